//! How many entries a zip says it has, read from its last records before anything is allocated for them
//! (APPNOTE 4.3.14 to 4.3.16).

const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_LEN: usize = 20;
const END_64: &[u8] = b"PK\x06\x06";
const MAX_COMMENT: usize = 0xFFFF;

/// The number of entries, the largest that any end record in reach claims; `None` if there is no end record.
/// Several can be in reach (one inside another's comment), and which one a reader takes is its own affair.
pub(super) fn declared_entries(bytes: &[u8]) -> Option<u64> {
    let from = bytes.len().saturating_sub(END_LEN + MAX_COMMENT);
    let last = bytes.len().checked_sub(END_LEN)?;
    (from..=last).filter(|&at| bytes[at..].starts_with(END)).filter_map(|at| entries_at(bytes, at)).max()
}

fn entries_at(bytes: &[u8], at: usize) -> Option<u64> {
    let here = number(bytes, at + 8, 2)?.max(number(bytes, at + 10, 2)?);
    Some(entries_64(bytes, at).map_or(here, |there| there.max(here)))
}

/// The count of a ZIP64 archive. Its record is looked for where the locator says, and right before the locator, where
/// it stands when bytes were put in front of the archive.
fn entries_64(bytes: &[u8], end: usize) -> Option<u64> {
    let locator = end.checked_sub(LOCATOR_LEN)?;
    if !bytes[locator..].starts_with(LOCATOR) {
        return None;
    }
    let told = usize::try_from(number(bytes, locator + 8, 8)?).ok();
    let before = locator.checked_sub(56);
    [told, before]
        .into_iter()
        .flatten()
        .filter(|&at| bytes.get(at..).is_some_and(|rest| rest.starts_with(END_64)))
        .filter_map(|at| Some(number(bytes, at + 24, 8)?.max(number(bytes, at + 32, 8)?)))
        .max()
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

    #[test]
    fn zip64_counts_are_read() {
        let mut bytes = END_64.to_vec();
        bytes.extend([0; 20]);
        bytes.extend(300_000u64.to_le_bytes());
        bytes.extend(300_000u64.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(LOCATOR);
        bytes.extend([0; 16]);
        bytes.extend(end(0xFFFF, b""));
        assert_eq!(declared_entries(&bytes), Some(300_000));
    }
}
