//! The number of entries that a zip declares, read from its end records before anything is
//! allocated for them (APPNOTE 4.3.14 to 4.3.16).

use std::collections::{BTreeMap, BTreeSet};

const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_LEN: usize = 20;
const END_64: &[u8] = b"PK\x06\x06";
const MAX_COMMENT: usize = 0xFFFF;
/// A count with this value is in the ZIP64 record.
const ELSEWHERE: u64 = 0xFFFF;

/// Returns the number of entries: the largest that any end record within reach declares, or `None`
/// without such a record. Several can be within reach (one inside another's comment), and readers
/// differ in which of them they take.
pub(super) fn declared_entries(bytes: &[u8]) -> Option<u64> {
    let from = bytes.len().saturating_sub(END_LEN + MAX_COMMENT);
    let last = bytes.len().checked_sub(END_LEN)?;
    let ends: Vec<_> = (from..=last).filter(|&at| bytes[at..].starts_with(END)).collect();
    let counts = counts_64(bytes, ends.iter().filter_map(|&end| locator(bytes, end)).collect());
    ends.into_iter().filter_map(|end| entries_at(bytes, end, &counts)).max()
}

fn entries_at(bytes: &[u8], end: usize, counts: &BTreeMap<usize, u64>) -> Option<u64> {
    let here = [number(bytes, end + 8, 2)?, number(bytes, end + 10, 2)?];
    let there = locator(bytes, end).and_then(|locator| counts.get(&locator).copied());
    let Some(there) = there else { return here.into_iter().max() };
    // Writers that always use ZIP64 put this value here, however few the entries are (APPNOTE
    // 4.4.1.4).
    here.into_iter().filter(|count| *count != ELSEWHERE).chain([there]).max()
}

/// Where the ZIP64 locator of an end record is, if it has one.
fn locator(bytes: &[u8], end: usize) -> Option<usize> {
    end.checked_sub(LOCATOR_LEN).filter(|&at| bytes[at..].starts_with(LOCATOR))
}

/// Returns the counts of ZIP64 end records by their locators. Both the record that the locator
/// points to and any that ends at the locator count, since bytes in front of the archive shift the
/// offsets; the largest count wins, since a reader may take any of them. One pass over the bytes,
/// however many locators there are.
fn counts_64(bytes: &[u8], locators: BTreeSet<usize>) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    let Some(&last) = locators.last() else { return counts };
    let mut take = |locator: usize, record: usize| {
        if let Some(count) = count_64(bytes, record) {
            counts
                .entry(locator)
                .and_modify(|largest: &mut u64| *largest = count.max(*largest))
                .or_insert(count);
        }
    };
    for &locator in &locators {
        if let Some(told) = number(bytes, locator + 8, 8).and_then(|told| usize::try_from(told).ok()) {
            take(locator, told);
        }
    }
    for record in (0..last).filter(|&at| bytes[at..].starts_with(END_64)) {
        let ends_at = number(bytes, record + 4, 8).and_then(|size| size.checked_add(record as u64 + 12));
        let ends_at = ends_at.and_then(|at| usize::try_from(at).ok());
        if let Some(locator) = ends_at.filter(|at| locators.contains(at)) {
            take(locator, record);
        }
    }
    counts
}

/// Returns the count of the ZIP64 end record at an offset.
fn count_64(bytes: &[u8], record: usize) -> Option<u64> {
    bytes.get(record..).filter(|rest| rest.starts_with(END_64))?;
    Some(number(bytes, record.checked_add(24)?, 8)?.max(number(bytes, record.checked_add(32)?, 8)?))
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(len)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(entries: u16, comment: &[u8]) -> Vec<u8> {
        let mut out = END.to_vec();
        out.extend([0; 4]);
        out.extend(entries.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out.extend([0; 8]);
        out.extend((comment.len() as u16).to_le_bytes());
        out.extend(comment);
        out
    }

    #[test]
    fn the_largest_claim_counts() {
        assert_eq!(declared_entries(&end(7, b"")), Some(7));
        assert_eq!(declared_entries(&end(7, &end(9000, b""))), Some(9000));
        assert_eq!(declared_entries(b"PK"), None);
        assert_eq!(declared_entries(&[b'x'; 100]), None);
    }

    /// Builds a ZIP64 end record with this count, its locator, which says that the record is at
    /// `told`, and the classic end record.
    fn zip64(entries: u64, told: u64, classic: u16) -> Vec<u8> {
        let mut bytes = END_64.to_vec();
        bytes.extend(44u64.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(entries.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(LOCATOR);
        bytes.extend([0; 4]);
        bytes.extend(told.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(end(classic, b""));
        bytes
    }

    #[test]
    fn zip64_counts_are_read() {
        assert_eq!(declared_entries(&zip64(300_000, 0, 0xFFFF)), Some(300_000));
        // A small archive of a writer that always writes ZIP64.
        assert_eq!(declared_entries(&zip64(4, 0, 0xFFFF)), Some(4));
        assert_eq!(declared_entries(&zip64(4, 0, 7)), Some(7));
        // Bytes in front move the record away from where the locator says.
        let moved = [&[b'x'; 100][..], &zip64(4, 0, 0xFFFF)].concat();
        assert_eq!(declared_entries(&moved), Some(4));
    }

    #[test]
    fn a_count_that_is_said_elsewhere_and_is_nowhere_is_as_large_as_it_says() {
        assert_eq!(declared_entries(&end(0xFFFF, b"")), Some(0xFFFF));
        let mut torn = zip64(4, 0, 0xFFFF);
        torn[0] = b'x';
        assert_eq!(declared_entries(&torn), Some(0xFFFF));
    }

    #[test]
    fn a_small_record_does_not_hide_a_large_one_that_a_reader_may_take() {
        let mut bytes = zip64(4, 0, 0xFFFF);
        let large = zip64(300_000, 0, 0xFFFF);
        bytes.truncate(56);
        bytes.extend(large);
        assert_eq!(declared_entries(&bytes), Some(300_000));
    }
}
