//! Runs the targets of `tenantd::fuzzing` under a counting allocator, so that an input that takes
//! too much memory is a finding like a panic: libFuzzer's own limits do not see Rust's allocator,
//! and cover the whole process only.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Checks an input. Aborts the process if it holds more memory than the target may.
///
/// # Panics
/// If the target does not exist, or if the input violates one of its properties.
pub fn check(name: &str, bytes: &[u8]) {
    let target = tenantd::fuzzing::target(name).expect("a target of tenantd::fuzzing");
    MOST.store(HELD.load(Relaxed).saturating_add(target.most_bytes), Relaxed);
    let _ = (target.check)(bytes);
    MOST.store(usize::MAX, Relaxed);
}

fn add(bytes: usize) {
    let held = HELD.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    if held > MOST.load(Relaxed) {
        // Printing allocates, too.
        MOST.store(usize::MAX, Relaxed);
        eprintln!("this input takes more memory than its target may: the last piece has {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: every call is passed to the system's allocator unchanged; counting does not touch the
// memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the contract of this method is that of the method it calls.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the contract of this method is that of the method it calls.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the contract of this method is that of the method it calls.
        unsafe { System.realloc(place, layout, size) }
    }
}
