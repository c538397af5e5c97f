//! The threads that run networks on a CPU.
//!
//! A layer of a small network takes some tens of microseconds. A sleeping thread takes as long to
//! wake, and where two threads wait on one processor the second may come milliseconds late. So the
//! thread that runs a network leads a team of threads that only do this: they are woken once for
//! the whole network and wait awake between its layers. Nobody is waited for who did not come:
//! tasks are taken one by one, by whoever is there.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// A layer's task, by number.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

thread_local! {
    /// The team that this thread leads.
    static LED: Cell<Option<*const State>> = const { Cell::new(None) };
    /// Whether operations on this thread keep to it.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// How often a thread looks for work before it lets others run in between: some tens of
/// microseconds.
const SPINS: u32 = 1024;
/// How long a helper waits for the next network before it sleeps: longer than what lies between
/// two calls that follow at once, because a helper that slept comes late to the first layers;
/// short, because decoders want the processor.
const AWAKE: Duration = Duration::from_micros(300);

/// A look for work after a long wait; a helper that comes so much late costs a layer little, whose
/// tasks the leader takes meanwhile.
const NAP: Duration = Duration::from_micros(50);

/// Threads that help one leader at a time.
pub(super) struct Team {
    state: Arc<State>,
    helpers: Vec<Thread>,
    seats: Arc<Vec<Seat>>,
    /// Until they end, after the team was dropped.
    _handles: Vec<JoinHandle<()>>,
}

/// Where a helper is.
#[derive(Default)]
struct Seat {
    /// The system's number of the thread.
    thread: AtomicI32,
    /// The processor that it ran on last.
    processor: AtomicI32,
}

#[derive(Default)]
struct State {
    /// The leader included.
    threads: usize,
    /// Read only between joining `active` and leaving it, with `open` seen to be true.
    task: UnsafeCell<Option<Task<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    open: AtomicBool,
    /// Helpers that may be looking at `task`.
    active: AtomicUsize,
    /// A helper's task panicked.
    failed: AtomicBool,
    /// Somebody leads.
    led: AtomicBool,
    ended: AtomicBool,
}

// SAFETY: `task` is written by the leader alone, while `open` is false and `active` is 0; the order
// of `open` and `active` (sequentially consistent) keeps helpers away from it meanwhile.
unsafe impl Sync for State {}
// SAFETY: what `task` points to may be used by any thread.
unsafe impl Send for State {}

/// Sets a thread's cell and puts the old value back, even after a panic.
struct Set<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);

impl<T: Copy> Set<T> {
    fn new(cell: &'static std::thread::LocalKey<Cell<T>>, value: T) -> Self {
        Self(cell, cell.replace(value))
    }
}

impl<T: Copy> Drop for Set<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Whether operations on this thread keep to it, because the other threads have inputs of their
/// own.
pub(super) fn is_alone() -> bool {
    ALONE.get()
}

/// Runs `f` with all operations on this thread.
pub(super) fn alone<T>(f: impl FnOnce() -> T) -> T {
    let _alone = Set::new(&ALONE, true);
    f()
}

/// The team of the program: as many threads as rayon's pool has, so that one setting
/// (`RAYON_NUM_THREADS`) holds for all.
pub(super) fn team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(|| Team::new(rayon::current_num_threads()))
}

/// Threads that share the tasks of an operation on this thread.
pub(super) fn threads() -> usize {
    match LED.get() {
        _ if ALONE.get() => 1,
        // SAFETY: this thread leads the team, so it is there: see `lead`.
        Some(led) => unsafe { &*led }.threads,
        None => team().state.threads,
    }
}

/// Runs tasks 0..n: on this thread where it is to keep to itself, else with the team that it leads,
/// else with the program's.
pub(super) fn for_each_task(n: usize, task: impl Fn(usize) + Sync) {
    if n <= 1 || ALONE.get() {
        (0..n).for_each(task);
        return;
    }
    let Some(led) = LED.get() else {
        return team().lead(|_| for_each_task(n, task));
    };
    // A task that shares out work of its own does it by itself.
    let _alone = Set::new(&ALONE, true);
    // SAFETY: this thread leads the team, so it is there: see `lead`.
    unsafe { &*led }.run(n, &task);
}

/// What `make` gives for 0..n, in order; tasks as in [`for_each_task`].
pub(super) fn map<T: Send>(n: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results: Vec<std::sync::Mutex<Option<T>>> = (0..n).map(|_| Default::default()).collect();
    for_each_task(n, |i| {
        let made = make(i);
        if let Ok(mut result) = results[i].lock() {
            *result = Some(made);
        }
    });
    // A task that panicked has ended this call already.
    results.into_iter().filter_map(|result| result.into_inner().ok().flatten()).collect()
}

impl Team {
    /// A team of `threads`, the leader included. Where the system gives fewer, it is smaller.
    pub(super) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let state = Arc::new(State { threads, ..State::default() });
        let seats: Arc<Vec<Seat>> = Arc::new((1..threads).map(|_| Seat::default()).collect());
        let handles: Vec<_> = (1..threads)
            .map_while(|i| {
                let (state, seats) = (Arc::clone(&state), Arc::clone(&seats));
                let builder = std::thread::Builder::new().name(format!("nn-{i}"));
                builder.spawn(move || state.help(&seats[i - 1])).ok()
            })
            .collect();
        let helpers = handles.iter().map(|handle| handle.thread().clone()).collect();
        Self { state, helpers, seats, _handles: handles }
    }

    /// Runs `f` on this thread, which leads the team meanwhile: tasks of operations in `f` are
    /// shared. `f` gets the number of threads. Where another thread leads at the moment, this one
    /// works alone.
    pub(super) fn lead<T>(&self, f: impl FnOnce(usize) -> T) -> T {
        /// Lets the helpers sleep, even where `f` panics.
        struct End<'a>(&'a State);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.led.store(false, Ordering::SeqCst);
            }
        }
        if ALONE.get() || self.helpers.is_empty() || self.state.led.swap(true, Ordering::SeqCst) {
            return alone(|| f(1));
        }
        let _end = End(&self.state);
        let _led = Set::new(&LED, Some(Arc::as_ptr(&self.state)));
        let here = place::processor();
        for (helper, seat) in self.helpers.iter().zip(self.seats.iter()) {
            let thread = seat.thread.load(Ordering::Relaxed);
            if thread != 0 && seat.processor.load(Ordering::Relaxed) == here {
                place::wake_elsewhere(thread, here, || helper.unpark());
            } else {
                helper.unpark();
            }
        }
        f(self.state.threads)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        for helper in &self.helpers {
            helper.unpark();
        }
    }
}

impl State {
    fn run(&self, n: usize, task: Task<'_>) {
        /// No helper looks at the task after this.
        struct Close<'a>(&'a State);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.open.store(false, Ordering::SeqCst);
                let mut wait = Wait::default();
                while self.0.active.load(Ordering::SeqCst) != 0 {
                    wait.a_little();
                }
            }
        }
        // SAFETY: nobody looks at it, as `Close` sees to; it does not outlive this call.
        unsafe { *self.task.get() = Some(std::mem::transmute::<Task<'_>, Task<'static>>(task)) };
        self.tasks.store(n, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        // Of a run that ended in a panic of the leader's own.
        self.failed.store(false, Ordering::SeqCst);
        self.open.store(true, Ordering::SeqCst);
        let close = Close(self);
        self.take(n, task);
        drop(close);
        if self.failed.swap(false, Ordering::SeqCst) {
            // What the task was to write is not there; nobody may go on with it.
            std::panic::resume_unwind(Box::new("a task of another thread panicked"));
        }
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

    /// A helper's life.
    fn help(&self, seat: &Seat) {
        ALONE.set(true);
        seat.thread.store(place::thread(), Ordering::Relaxed);
        let mut wait = Wait::default();
        let mut since = Instant::now();
        while !self.ended.load(Ordering::SeqCst) {
            let here = place::processor();
            if seat.processor.load(Ordering::Relaxed) != here {
                seat.processor.store(here, Ordering::Relaxed);
            }
            let tasks = self.tasks.load(Ordering::Relaxed);
            if self.open.load(Ordering::Relaxed) && self.next.load(Ordering::Relaxed) < tasks {
                self.join();
                wait = Wait::default();
                since = Instant::now();
            } else if self.led.load(Ordering::SeqCst) || !wait.is_long() || since.elapsed() < AWAKE
            {
                wait.a_little();
            } else {
                std::thread::park();
                wait = Wait::default();
                since = Instant::now();
            }
        }
    }

    fn join(&self) {
        self.active.fetch_add(1, Ordering::SeqCst);
        if self.open.load(Ordering::SeqCst) {
            // SAFETY: open, and this thread is active.
            if let Some(task) = unsafe { *self.task.get() } {
                let take = || self.take(self.tasks.load(Ordering::Relaxed), task);
                // Its message was printed where the panic began; the leader is told.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(take)).is_err() {
                    self.failed.store(true, Ordering::SeqCst);
                }
            }
        }
        self.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// On which processors threads run.
///
/// The system lets a woken thread stay on the processor where it slept even if the thread that
/// woke it runs there: on virtual machines a processor that has been idle for long does not count
/// as free. The helper then waits for milliseconds behind its leader, longer than a network takes.
#[cfg(target_os = "linux")]
mod place {
    pub fn processor() -> i32 {
        // SAFETY: no arguments; -1 where the system cannot tell.
        unsafe { libc::sched_getcpu() }
    }

    pub fn thread() -> i32 {
        // SAFETY: no arguments.
        unsafe { libc::gettid() }
    }

    /// Wakes a thread of this program on another processor than `here`, if it may run on one.
    /// It is free to run anywhere afterwards.
    pub fn wake_elsewhere(thread: i32, here: i32, wake: impl FnOnce()) {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: the sets are plain bits, read and written within their size; where the system
        // refuses (a set too small for its processors), nothing is changed.
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            if !(0..libc::CPU_SETSIZE).contains(&here)
                || libc::sched_getaffinity(thread, size, &mut all) != 0
            {
                return wake();
            }
            let mut others = all;
            libc::CPU_CLR(here as usize, &mut others);
            let moved =
                libc::CPU_COUNT(&others) > 0 && libc::sched_setaffinity(thread, size, &others) == 0;
            wake();
            if moved {
                libc::sched_setaffinity(thread, size, &all);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod place {
    pub fn processor() -> i32 {
        -1
    }

    pub fn thread() -> i32 {
        0
    }

    pub fn wake_elsewhere(_thread: i32, _here: i32, wake: impl FnOnce()) {
        wake();
    }
}

/// Waiting awake, but not for ever at the cost of threads that have work.
#[derive(Default)]
struct Wait {
    spins: u32,
    /// When spinning ended.
    since: Option<Instant>,
}

impl Wait {
    fn is_long(&self) -> bool {
        self.since.is_some()
    }

    fn a_little(&mut self) {
        let Some(since) = self.since else {
            self.spins += 1;
            if self.spins >= SPINS {
                self.since = Some(Instant::now());
            }
            return std::hint::spin_loop();
        };
        // A wait this long means that the other thread is not running: others have the processors, and
        // yielding to them again and again costs a tenth of what they get.
        if since.elapsed() < AWAKE { std::thread::yield_now() } else { std::thread::sleep(NAP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_comes() {
        for threads in [1, 2, 7] {
            let team = Team::new(threads);
            let counts: Vec<AtomicUsize> = (0..500).map(|_| AtomicUsize::new(0)).collect();
            team.lead(|n| {
                assert_eq!(n, threads);
                for n in 0..500 {
                    for_each_task(n, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
            for (i, count) in counts.iter().enumerate() {
                assert_eq!(count.load(Ordering::Relaxed), 499 - i, "task {i} of {threads}");
            }
            assert_eq!(
                team.lead(|_| map(100, |i| i * i)),
                (0..100).map(|i| i * i).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_second_leader_and_a_task_work_alone() {
        let team = Team::new(3);
        team.lead(|_| {
            for_each_task(9, |_| assert!(is_alone()));
            assert!(!is_alone());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    team.lead(|n| {
                        assert_eq!(n, 1);
                        assert!(is_alone());
                        for_each_task(9, |_| ());
                    });
                });
            });
        });
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_leader_and_the_team_goes_on() {
        let team = Team::new(3);
        let leader = std::thread::current().id();
        let fails = |among_helpers: bool| {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                team.lead(|_| {
                    // Until the thread in question takes a task.
                    for _ in 0..1_000_000 {
                        for_each_task(50, |_| {
                            let helper = std::thread::current().id() != leader;
                            assert_ne!(helper, among_helpers, "on purpose");
                        });
                    }
                });
            }));
            assert!(failed.is_err());
            assert_eq!(team.lead(|n| (n, map(3, |i| i))), (3, vec![0, 1, 2]));
        };
        fails(false);
        fails(true);
        for _ in 0..100 {
            let all = || team.lead(|_| for_each_task(50, |_| assert_eq!(1, 2, "on purpose")));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).is_err());
            assert_eq!(team.lead(|_| map(50, |i| i)).len(), 50);
        }
    }
}
