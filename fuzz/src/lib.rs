//! Runs targets of `tenantd::fuzzing` under an allocator that counts, so that an input which takes too much memory is a
//! finding like a panic: libFuzzer's own limits see neither Rust's allocator nor less than the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Judges an input; ends the process if a promise is broken or more is held than the target may.
///
/// # Panics
/// If there is no such target, or if it finds something.
pub fn check(name: &str, bytes: &[u8]) {
    let target = tenantd::fuzzing::target(name).expect("a target of tenantd::fuzzing");
    MOST.store(HELD.load(Relaxed).saturating_add(target.most_bytes), Relaxed);
    let _ = (target.check)(bytes);
    MOST.store(usize::MAX, Relaxed);
}

fn add(bytes: usize) {
    let held = HELD.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    if held > MOST.load(Relaxed) {
        // What says so needs memory, too.
        MOST.store(usize::MAX, Relaxed);
        eprintln!("this input takes more memory than its target may: the last piece has {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.realloc(place, layout, size) }
    }
}
