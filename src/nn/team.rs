//! Threads that share the layers of one input.
//!
//! A layer of a small network takes some tens of microseconds. A sleeping thread takes as long to
//! wake, so the threads of the pool join a team for the whole network and wait awake between its
//! layers. Nobody is waited for who did not come: tasks are taken one by one, by whoever is there.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A layer's task, by number.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

thread_local! {
    static TEAM: Cell<Option<*const Team>> = const { Cell::new(None) };
}

/// How often a thread looks for work before it lets others run in between.
const SPINS: u32 = 4096;

struct Team {
    /// Read only between joining `active` and leaving it, with `open` seen to be true.
    task: UnsafeCell<Option<Task<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    open: AtomicBool,
    /// Helpers that may be looking at `task`.
    active: AtomicUsize,
    ended: AtomicBool,
}

// SAFETY: `task` is written by the leader alone, while `open` is false and `active` is 0; the order
// of `open` and `active` (sequentially consistent) keeps helpers away from it meanwhile.
unsafe impl Sync for Team {}

/// Runs `lead` on this thread of the pool; the others help with what it gives to [`share`].
pub(super) fn with_team<T: Send>(lead: impl FnOnce() -> T + Send) -> T {
    let threads = rayon::current_num_threads();
    if threads == 1 {
        return lead();
    }
    let team = Team {
        task: UnsafeCell::new(None),
        tasks: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        open: AtomicBool::new(false),
        active: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| team.help());
        }
        /// Lets the helpers go, even where `lead` panics.
        struct End<'a>(&'a Team, Option<*const Team>);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                TEAM.set(self.1);
                self.0.ended.store(true, Ordering::SeqCst);
            }
        }
        let _end = End(&team, TEAM.replace(Some(&raw const team)));
        lead()
    })
}

/// Runs tasks 0..n with the team that this thread leads; false where it leads none.
pub(super) fn share(n: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
    let Some(team) = TEAM.get() else { return false };
    // A task that shares out work of its own does it by itself.
    struct Restore(Option<*const Team>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TEAM.set(self.0);
        }
    }
    let _restore = Restore(TEAM.replace(None));
    // SAFETY: `with_team` outlives its `lead`, which is what called this.
    unsafe { &*team }.run(n, task);
    true
}

impl Team {
    fn run(&self, n: usize, task: Task<'_>) {
        /// No helper looks at the task after this.
        struct Close<'a>(&'a Team);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.open.store(false, Ordering::SeqCst);
                let mut wait = Wait(0);
                while self.0.active.load(Ordering::SeqCst) != 0 {
                    wait.a_little();
                }
            }
        }
        // SAFETY: nobody looks at it, as `Close` sees to; it does not outlive this call.
        unsafe { *self.task.get() = Some(std::mem::transmute::<Task<'_>, Task<'static>>(task)) };
        self.tasks.store(n, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.open.store(true, Ordering::SeqCst);
        let _close = Close(self);
        self.take(n, task);
    }

    fn take(&self, n: usize, task: Task<'_>) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return;
            }
            task(i);
        }
    }

    fn help(&self) {
        /// Leaves, even where a task panics.
        struct Leave<'a>(&'a Team);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.active.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let mut wait = Wait(0);
        while !self.ended.load(Ordering::SeqCst) {
            let tasks = self.tasks.load(Ordering::Relaxed);
            if !self.open.load(Ordering::Relaxed) || self.next.load(Ordering::Relaxed) >= tasks {
                wait.a_little();
                continue;
            }
            self.active.fetch_add(1, Ordering::SeqCst);
            let _leave = Leave(self);
            if self.open.load(Ordering::SeqCst) {
                // SAFETY: open, and this thread is active.
                if let Some(task) = unsafe { *self.task.get() } {
                    self.take(self.tasks.load(Ordering::Relaxed), task);
                }
                wait = Wait(0);
            }
        }
    }
}

/// Waiting awake, but not for ever at the cost of threads that have work.
struct Wait(u32);

impl Wait {
    fn a_little(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_comes() {
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let counts: Vec<AtomicUsize> = (0..500).map(|_| AtomicUsize::new(0)).collect();
            let shared = pool.install(|| {
                with_team(|| {
                    (0..500)
                        .filter(|n| {
                            share(*n, &|i| {
                                counts[i].fetch_add(1, Ordering::Relaxed);
                            })
                        })
                        .count()
                })
            });
            // A pool of one has no team.
            assert_eq!(shared, if threads == 1 { 0 } else { 500 });
            for (i, count) in counts.iter().enumerate() {
                let expected = if threads == 1 { 0 } else { 499 - i };
                assert_eq!(count.load(Ordering::Relaxed), expected, "task {i}");
            }
            assert!(!share(1, &|_| ()));
        }
    }

    #[test]
    fn a_task_that_shares_out_work_has_no_team() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| with_team(|| assert!(share(9, &|_| assert!(!share(9, &|_| ()))))));
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_nobody_waits_for_ever() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| {
                with_team(|| {
                    share(100, &|i| assert!(i != 50, "task 50"));
                })
            })
        }));
        assert!(failed.is_err());
        assert_eq!(pool.install(|| with_team(|| 5)), 5);
    }
}
