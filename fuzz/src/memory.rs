//! How much memory a reader takes: every allocation of Rust code is counted. What the fuzzer itself
//! holds (its corpus, its counters) comes from C++ and is not in it, so the limit is the reader's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What one file may take.
const LIMIT: usize = 64 << 20;

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Highest [`LIVE`] since the reader was started.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// [`LIVE`] that nothing may exceed.
static CEILING: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Highest that any file took.
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
    if live > CEILING.load(Relaxed) {
        CEILING.store(usize::MAX, Relaxed);
        // An allocator must not unwind; the fuzzer reports the abort with its stack and keeps the file.
        eprintln!("a reader takes more than {} MiB", LIMIT >> 20);
        std::process::abort();
    }
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise about `ptr` and `layout` is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    // As if old and new were both there, which is the worst that growing in place can cost.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        taken(new_size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Runs `reader`, and aborts where it takes more than 64 MiB beyond what was there before. Whenever a
/// file takes a mebibyte more than any before it, that is printed.
pub fn bounded<T>(reader: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    CEILING.store(before + LIMIT, Relaxed);
    let result = reader();
    CEILING.store(usize::MAX, Relaxed);
    let taken = PEAK.load(Relaxed) - before;
    if taken >> 20 > MOST.load(Relaxed) >> 20 {
        eprintln!("PEAK {} KiB", taken >> 10);
    }
    MOST.fetch_max(taken, Relaxed);
    result
}
