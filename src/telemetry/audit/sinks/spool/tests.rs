use std::os::unix::fs::PermissionsExt;

use super::*;

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn lines(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("{{\"line\":{number},\"x\":\"{:080}\"}}\n", 0).into_bytes()).collect()
}

fn numbers(batch: &SpoolBatch) -> Vec<u32> {
    let number = |line: &Vec<u8>| {
        let line: serde_json::Value = serde_json::from_slice(line).ok()?;
        line["line"].as_u64().and_then(|number| u32::try_from(number).ok())
    };
    batch.lines.iter().filter_map(number).collect()
}

/// Takes everything, in batches of 7, and returns the numbers.
fn take_all(spool: &Spool) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(batch) = spool.next_batch(7).expect("readable") {
        all.extend(numbers(&batch));
        spool.confirm(batch.end);
    }
    all
}

#[test]
fn lines_come_in_order_and_once_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    let spool = Spool::open(place.clone(), 64 << 10);
    spool.append(&lines(0..100), AT);
    let batch = spool.next_batch(30).expect("readable").expect("lines");
    assert_eq!(numbers(&batch), (0..30).collect::<Vec<_>>());
    spool.confirm(batch.end);
    let unconfirmed = spool.next_batch(30).expect("readable").expect("lines");
    assert_eq!(numbers(&unconfirmed), (30..60).collect::<Vec<_>>());
    drop(spool);

    let spool = Spool::open(place.clone(), 64 << 10);
    spool.append(&lines(100..120), AT);
    assert_eq!(take_all(&spool), (30..120).collect::<Vec<_>>(), "what was not confirmed comes again");
    assert_eq!((spool.waiting_bytes(), spool.dropped()), (0, None));
    drop(spool);
    assert_eq!(take_all(&Spool::open(place.clone(), 64 << 10)), [] as [u32; 0]);
    let mode = std::fs::metadata(&place).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_rewind_hands_out_again_what_was_not_confirmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Spool::open(folder.path().join("sink"), 64 << 10);
    spool.append(&lines(0..10), AT);
    let first = spool.next_batch(4).expect("readable").expect("lines");
    spool.next_batch(4).expect("readable").expect("lines");
    spool.confirm(first.end);
    spool.rewind();
    assert_eq!(take_all(&spool), (4..10).collect::<Vec<_>>());
}

#[test]
fn a_full_spool_drops_the_oldest_and_counts_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    let spool = Spool::open(place.clone(), 16 << 10);
    for start in (0..1000).step_by(10) {
        spool.append(&lines(start..start + 10), AT);
    }
    let on_disk: u64 = std::fs::read_dir(&place)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").metadata().expect("metadata").len())
        .sum();
    assert!(on_disk < 17 << 10, "{on_disk}");
    drop(spool);
    let spool = Spool::open(place, 16 << 10);
    let dropped = spool.dropped().expect("the count survives a restart");
    let left = take_all(&spool);
    assert_eq!(dropped.lines, u64::from(left[0]), "what is dropped is what is missing");
    assert!(left[0] > 500 && left == (left[0]..1000).collect::<Vec<_>>(), "{left:?}");
    spool.forget_dropped(dropped);
    assert_eq!(spool.dropped(), None);
}

#[test]
fn a_line_without_its_end_is_left_out_and_the_next_ones_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    Spool::open(place.clone(), 64 << 10).append(&lines(0..3), AT);
    let segment = place.join("0000000001.jsonl");
    let text = std::fs::read(&segment).expect("there");
    std::fs::write(&segment, &text[..text.len() - 20]).expect("cut");
    let spool = Spool::open(place, 64 << 10);
    spool.append(&lines(3..5), AT);
    assert_eq!(take_all(&spool), [0, 1, 3, 4]);
}

#[test]
fn lines_wait_in_memory_while_the_disk_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    // A file where the folder should be: nothing can be written.
    std::fs::write(&place, "").expect("written");
    let spool = Spool::open(place.clone(), 64 << 10);
    assert!(spool.append(&lines(0..10), AT).disk_error.is_some());
    let lent = spool.next_batch(4).expect("readable").expect("lines");
    assert_eq!(numbers(&lent), [0, 1, 2, 3]);
    std::fs::remove_file(&place).expect("removed");
    assert!(spool.append(&lines(10..12), AT).disk_error.is_none());
    assert!(spool.next_batch(4).expect("readable").is_none(), "one batch of memory at a time");
    spool.confirm(lent.end);
    spool.append(&lines(12..13), AT);
    assert!(place.join("0000000001.jsonl").exists(), "the rest is on the disk again");
    assert_eq!(take_all(&spool), (4..13).collect::<Vec<_>>());
}

#[test]
fn memory_has_a_bound_and_the_newest_lines_are_dropped_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    std::fs::write(&place, "").expect("written");
    let spool = Spool::open(place, 64 << 10);
    let outcome = spool.append(&lines(0..20_000), AT);
    let waiting = spool.waiting_bytes();
    assert!(waiting > 1_000_000 && waiting <= MAX_MEMORY_BYTES as u64, "{waiting}");
    let kept = take_all(&spool);
    assert_eq!(outcome.dropped + kept.len() as u64, 20_000);
    assert!(kept == (0..kept[kept.len() - 1] + 1).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_somebody_deleted_is_told_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    let spool = Spool::open(place.clone(), 64 << 10);
    spool.append(&lines(0..3), AT);
    std::fs::remove_file(place.join("0000000001.jsonl")).expect("removed");
    assert!(spool.next_batch(9).is_err());
    spool.append(&lines(3..5), AT);
    assert_eq!(take_all(&spool), [3, 4]);
}

#[test]
fn two_processes_have_a_folder_each_and_what_one_leaves_the_other_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("sink");
    let old = Spool::open(place.clone(), 64 << 10);
    old.append(&lines(0..5), AT);
    let new = Spool::open(place.clone(), 64 << 10);
    new.append(&lines(10..13), AT);
    let batch = new.next_batch(99).expect("readable").expect("lines");
    assert_eq!(numbers(&batch), [10, 11, 12], "the old process sends its own lines");
    new.confirm(batch.end);
    old.append(&lines(5..7), AT);
    assert!(new.next_batch(99).expect("readable").is_none());
    drop(old);
    new.append(&lines(13..14), AT);
    assert_eq!(take_all(&new), [13, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(new.waiting_bytes(), 0);
    drop(new);
    assert_eq!(take_all(&Spool::open(place, 64 << 10)), [] as [u32; 0]);
}
