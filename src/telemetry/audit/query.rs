//! Reads the audit files, newest line first, across rotations.
//!
//! Files are read backwards in pieces, so memory does not depend on their size. One query looks at
//! a bounded number of bytes; its cursor says where the next one goes on.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How much is read at once; lines are far shorter.
const PIECE: usize = 256 << 10;
/// How much one query looks at: some seconds of reading.
const MAX_SCANNED: u64 = 256 << 20;
/// The most lines of an answer.
const MAX_LINES: usize = 1000;
/// The most files that are looked for.
const MAX_FILES: u32 = 10_000;

/// Which lines are wanted. What is not given does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// The tenant's name.
    pub tenant: Option<String>,
    /// The user name, the id of the account, the label of a key or program, or the operator.
    pub person: Option<String>,
    /// The OAuth client's id, or the name that the client gives itself.
    pub client: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// `ok`, or why not.
    pub outcome: Option<String>,
    /// The kind of event, such as `call`.
    pub event: Option<String>,
    /// The earliest time.
    pub since: Option<Timestamp>,
    /// The time before which lines are.
    pub until: Option<Timestamp>,
    /// Where the last page ended.
    pub before: Option<AuditCursor>,
    /// The most lines, up to 1000.
    pub limit: usize,
    /// The most bytes that are looked at, if less than usual.
    pub max_bytes: Option<u64>,
}

/// A place in the files: a file, which keeps its inode when it is renamed, and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditCursor {
    inode: u64,
    offset: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct AuditPage {
    /// The lines as they are written, newest first.
    pub lines: Vec<Box<RawValue>>,
    /// Where to go on (`before`); `None` at the end.
    pub next: Option<AuditCursor>,
}

impl AuditCursor {
    /// Reads a cursor as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        let (inode, offset) = text.split_once('-')?;
        Some(Self { inode: inode.parse().ok()?, offset: offset.parse().ok()? })
    }
}

impl fmt::Display for AuditCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.inode, self.offset)
    }
}

impl Serialize for AuditCursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a filter looks at.
#[derive(Deserialize)]
struct LineFields {
    at: Timestamp,
    event: Option<String>,
    tenant: Option<String>,
    outcome: Option<String>,
    user: Option<String>,
    oid: Option<String>,
    label: Option<String>,
    operator: Option<String>,
    client: Option<String>,
    client_id: Option<String>,
    tool: Option<String>,
}

impl AuditFilter {
    /// Returns the lines that fit, newest first. Blocks.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, path: &Path) -> io::Result<AuditPage> {
        let limit = self.limit.clamp(1, MAX_LINES);
        let mut page = AuditPage { lines: Vec::new(), next: None };
        let max_scanned = self.max_bytes.map_or(MAX_SCANNED, |bytes| bytes.min(MAX_SCANNED));
        let mut scanned = 0;
        let mut files = open_all(path)?;
        if let Some(cursor) = self.before {
            // A file that is gone took all that is older with it.
            let Some(at) = files.iter().position(|file| file.inode == cursor.inode) else { return Ok(page) };
            files.drain(..at);
            files[0].end = files[0].end.min(cursor.offset);
        }
        for file in files {
            let mut lines = BackwardLines::new(&file.file, file.end);
            while let Some((offset, line)) = lines.next_line()? {
                scanned += line.len() as u64 + 1;
                match self.judge(&line) {
                    Judgement::Fits => {
                        let text =
                            String::from_utf8(line).ok().and_then(|text| RawValue::from_string(text).ok());
                        page.lines.extend(text);
                    }
                    Judgement::Other => {}
                    Judgement::TooOld => return Ok(page),
                }
                if page.lines.len() >= limit || scanned >= max_scanned {
                    page.next = Some(AuditCursor { inode: file.inode, offset });
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    fn judge(&self, line: &[u8]) -> Judgement {
        // What was cut off by a crash is no line.
        let Ok(fields) = serde_json::from_slice::<LineFields>(line) else { return Judgement::Other };
        if self.since.is_some_and(|since| fields.at < since) {
            return Judgement::TooOld;
        }
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let is_person = self.person.as_deref().is_none_or(|wanted| {
            let all = [&fields.user, &fields.oid, &fields.label, &fields.operator];
            all.into_iter().flatten().any(|found| found.eq_ignore_ascii_case(wanted))
        });
        let is_client = self.client.as_deref().is_none_or(|wanted| {
            let all = [&fields.client, &fields.client_id];
            all.into_iter().flatten().any(|found| found.eq_ignore_ascii_case(wanted))
        });
        let fits = self.until.is_none_or(|until| fields.at < until)
            && is(&self.tenant, &fields.tenant)
            && is_client
            && is(&self.tool, &fields.tool)
            && is(&self.outcome, &fields.outcome)
            && is(&self.event, &fields.event)
            && is_person;
        if fits { Judgement::Fits } else { Judgement::Other }
    }
}

enum Judgement {
    Fits,
    Other,
    /// All lines before it are older than what is wanted.
    TooOld,
}

struct OpenFile {
    file: File,
    inode: u64,
    /// Where to begin, going backwards.
    end: u64,
}

/// Opens all files, newest first. A file that is renamed meanwhile is opened once.
fn open_all(path: &Path) -> io::Result<Vec<OpenFile>> {
    let mut files: Vec<OpenFile> = Vec::new();
    for number in 0..MAX_FILES {
        let name = match number {
            0 => path.to_owned(),
            _ => PathBuf::from(format!("{}.{number}", path.display())),
        };
        let file = match File::open(name) {
            Ok(file) => file,
            // The newest is missing for a moment when it is rotated.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if files.iter().all(|known| known.inode != metadata.ino()) {
            files.push(OpenFile { file, inode: metadata.ino(), end: metadata.len() });
        }
    }
    Ok(files)
}

/// The lines of a file, last first.
struct BackwardLines<'a> {
    file: &'a File,
    /// What was read and not returned yet; it ends before `end`.
    buffer: Vec<u8>,
    /// The offset of the buffer in the file.
    start: u64,
}

impl<'a> BackwardLines<'a> {
    fn new(file: &'a File, end: u64) -> Self {
        Self { file, buffer: Vec::new(), start: end }
    }

    /// Returns the line before those that were returned, with its offset.
    fn next_line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            if self.buffer.last() == Some(&b'\n') {
                self.buffer.pop();
            }
            let newline = self.buffer.iter().rposition(|byte| *byte == b'\n');
            let begin = match newline {
                Some(at) => at + 1,
                None if self.start == 0 && self.buffer.is_empty() => return Ok(None),
                None if self.start == 0 => 0,
                None => {
                    self.read_more()?;
                    continue;
                }
            };
            let line = self.buffer.split_off(begin);
            return Ok(Some((self.start + begin as u64, line)));
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let length = self.start.min(PIECE as u64);
        let mut piece = vec![0; usize::try_from(length).unwrap_or(PIECE)];
        self.file.read_exact_at(&mut piece, self.start - length)?;
        piece.extend_from_slice(&self.buffer);
        // The newline that `next_line` took away belongs between the two if the buffer is empty.
        self.start -= length;
        self.buffer = piece;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(second: u32, tenant: &str, more: &str) -> String {
        format!(
            "{{\"at\":\"2026-11-25T09:00:{second:02}.5Z\",\"event\":\"call\",\"tenant\":\"{tenant}\"{more}}}\n"
        )
    }

    fn times(page: &AuditPage) -> Vec<u32> {
        let second = |line: &RawValue| line.get()[24..26].parse().expect("a second");
        page.lines.iter().map(|line| second(line)).collect()
    }

    /// Three files with the seconds 0 to 8, of the tenants a and b in turn.
    fn files() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let write = |name: &str, seconds: std::ops::Range<u32>| {
            let tenant = |second: u32| if second.is_multiple_of(2) { "a" } else { "b" };
            let text: String = seconds.map(|second| line(second, tenant(second), "")).collect();
            fs::write(folder.path().join(name), text).expect("written");
        };
        write("audit.jsonl.2", 0..3);
        write("audit.jsonl.1", 3..6);
        write("audit.jsonl", 6..9);
        (folder, path)
    }

    #[test]
    fn lines_come_newest_first_across_rotations_and_pages() {
        let (_folder, path) = files();
        let mut filter = AuditFilter { limit: 2, ..AuditFilter::default() };
        let mut all = Vec::new();
        loop {
            let page = filter.read(&path).expect("readable");
            assert!(page.lines.len() <= 2);
            all.extend(times(&page));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
            // A rotation between two pages changes nothing.
            for number in (0..10).rev() {
                let name = |number: u32| match number {
                    0 => path.clone(),
                    _ => PathBuf::from(format!("{}.{number}", path.display())),
                };
                if name(number).exists() {
                    fs::rename(name(number), name(number + 1)).expect("renamed");
                }
            }
            fs::write(&path, "").expect("the writer's new file");
        }
        assert_eq!(all, [8, 7, 6, 5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn a_search_stops_after_its_bytes_and_says_where_to_go_on() {
        let (_folder, path) = files();
        let wanted = AuditFilter { tenant: Some("c".to_owned()), limit: 100, ..AuditFilter::default() };
        let bytes = 2 * line(8, "a", "").len() as u64;
        let mut filter = AuditFilter { max_bytes: Some(bytes), ..wanted };
        let mut searches = 0;
        loop {
            let page = filter.read(&path).expect("readable");
            assert!(page.lines.is_empty());
            searches += 1;
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        // Nine lines, two at a time.
        assert_eq!(searches, 5);
    }

    #[test]
    fn filters_hold_together() {
        let (folder, path) = files();
        let more = ",\"user\":\"Ann@example.com\",\"tool\":\"search\",\"outcome\":\"ok\",\"client_id\":\"c\"";
        let cut = "{\"at\":\"2026-11-25T09:00:10";
        fs::write(&path, format!("{}{}{cut}", line(8, "a", ""), line(9, "a", more))).expect("written");
        let at = |text: &str| Some(text.parse().expect("a time"));
        let some = |text: &str| Some(text.to_owned());
        let base = AuditFilter { limit: 100, ..AuditFilter::default() };
        for (filter, found) in [
            (AuditFilter { tenant: some("b"), ..base.clone() }, vec![5, 3, 1]),
            (AuditFilter { person: some("ann@example.com"), ..base.clone() }, vec![9]),
            (
                AuditFilter { tool: some("search"), client: some("c"), outcome: some("ok"), ..base.clone() },
                vec![9],
            ),
            (AuditFilter { tool: some("other"), ..base.clone() }, vec![]),
            (AuditFilter { event: some("login"), ..base.clone() }, vec![]),
            (
                AuditFilter { since: at("2026-11-25T09:00:04Z"), tenant: some("a"), ..base.clone() },
                vec![9, 8, 4],
            ),
            (AuditFilter { until: at("2026-11-25T09:00:02Z"), ..base.clone() }, vec![1, 0]),
        ] {
            assert_eq!(times(&filter.read(&path).expect("readable")), found, "{filter:?}");
        }
        drop(folder);
        assert_eq!(times(&base.read(&path).expect("nothing to read")), [] as [u32; 0]);
    }

    #[test]
    fn lines_are_whole_wherever_pieces_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let text: String = (0..20_000).map(|n| line(n % 60, "a", &format!(",\"bytes\":{n}"))).collect();
        assert!(text.len() > 4 * PIECE);
        fs::write(&path, &text).expect("written");
        let mut filter = AuditFilter { limit: MAX_LINES, ..AuditFilter::default() };
        let mut lines = Vec::new();
        loop {
            let page = filter.read(&path).expect("readable");
            lines.extend(page.lines.iter().map(|line| format!("{}\n", line.get())));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        lines.reverse();
        assert!(lines.concat() == text, "some lines differ");
    }

    #[test]
    fn a_file_that_is_renamed_meanwhile_is_read_once() {
        let (folder, path) = files();
        for (from, to) in [("audit.jsonl.2", "audit.jsonl.3"), ("audit.jsonl.1", "audit.jsonl.2")] {
            fs::rename(folder.path().join(from), folder.path().join(to)).expect("renamed");
        }
        // As if the newest file had got another name after it was opened.
        fs::hard_link(&path, folder.path().join("audit.jsonl.1")).expect("linked");
        let all = AuditFilter { limit: 100, ..AuditFilter::default() };
        assert_eq!(times(&all.read(&path).expect("readable")), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
    }
}
