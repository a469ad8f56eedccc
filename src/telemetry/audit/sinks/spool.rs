//! The spool of one sink: the lines that its receiver has not taken yet, in files of the state
//! folder.
//!
//! Lines are appended to segments. What was taken is remembered as a position, so a killed process
//! sends the lines of its last moments again and loses none. When all segments together have
//! reached their bound the oldest one is dropped, and its lines are counted. While the disk takes
//! nothing, some lines wait in memory.

mod claim;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::claim::ClaimedFolder;
use crate::base::disk;
use crate::base::sync::lock;

/// How many segments a full spool has: what is dropped at once is one of them.
const SEGMENTS: u64 = 8;
const MAX_SEGMENT_BYTES: u64 = 8 << 20;
/// What waits in memory while the disk takes nothing.
const MAX_MEMORY_BYTES: usize = 1 << 20;
/// How much is read at once; lines are far shorter.
const PIECE_BYTES: u64 = 512 << 10;
const POSITION_FILE: &str = "position.json";
/// The largest file with a position.
const MAX_POSITION_BYTES: u64 = 4 << 10;

/// The spool. All its methods block.
pub(super) struct Spool(Mutex<SpoolState>);

struct SpoolState {
    /// The usual folder.
    first_folder: PathBuf,
    claimed: ClaimedFolder,
    max_bytes: u64,
    /// On the disk, oldest first.
    segments: VecDeque<Segment>,
    /// The last segment, if lines are appended to it.
    open: Option<File>,
    next_number: u64,
    /// The lines that the disk did not take.
    memory: VecDeque<Vec<u8>>,
    /// How many of them are handed out.
    lent: usize,
    /// Where the next batch begins.
    read: SpoolPosition,
    kept: KeptPosition,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// Whole lines, except in a segment of a killed process.
    bytes: u64,
}

/// A place in the segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct SpoolPosition {
    segment: u64,
    offset: u64,
}

/// What is remembered across restarts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct KeptPosition {
    /// Everything before it was taken.
    taken: SpoolPosition,
    /// The lines that were dropped and that no line of the audit states yet.
    #[serde(default)]
    dropped: u64,
    #[serde(default)]
    dropped_since: Option<Timestamp>,
}

/// Lines to send.
#[derive(Debug)]
pub(super) struct SpoolBatch {
    /// The lines, each with its newline.
    pub(super) lines: Vec<Vec<u8>>,
    /// What to report when they were taken.
    pub(super) end: BatchEnd,
}

/// Where a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchEnd {
    /// On the disk.
    Disk(SpoolPosition),
    /// After so many lines in memory.
    Memory(usize),
}

/// What became of appended lines.
#[derive(Debug, Default)]
pub(super) struct AppendOutcome {
    /// How many lines had to go, old or new.
    pub(super) dropped: u64,
    /// Why the disk does not take lines.
    pub(super) disk_error: Option<io::Error>,
}

/// Lines that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry::audit) struct DroppedLines {
    pub(in crate::telemetry::audit) lines: u64,
    pub(in crate::telemetry::audit) since: Timestamp,
}

impl Spool {
    /// Opens a spool with what an earlier process left in it. A folder that cannot be read counts
    /// as empty.
    pub(super) fn open(folder: PathBuf, max_bytes: u64) -> Self {
        let claimed = ClaimedFolder::claim(&folder);
        let kept = KeptPosition::read(&claimed.path);
        let segments = find_segments(&claimed.path);
        let last = segments.back().map_or(0, |segment| segment.number);
        let mut state = SpoolState {
            next_number: last.max(kept.taken.segment) + 1,
            read: kept.taken,
            first_folder: folder,
            claimed,
            max_bytes,
            segments,
            open: None,
            memory: VecDeque::new(),
            lent: 0,
            kept,
        };
        state.remove_taken();
        Self(Mutex::new(state))
    }

    /// Appends lines, each with its newline.
    pub(super) fn append(&self, lines: &[Vec<u8>], at: Timestamp) -> AppendOutcome {
        lock(&self.0).append(lines, at)
    }

    /// Returns the next lines, at most `max_lines`; `None` if there are none.
    ///
    /// # Errors
    /// A segment cannot be read. One that is gone is left out from then on.
    pub(super) fn next_batch(&self, max_lines: usize) -> io::Result<Option<SpoolBatch>> {
        let mut state = lock(&self.0);
        match state.next_batch(max_lines)? {
            None if state.take_over_abandoned() => state.next_batch(max_lines),
            batch => Ok(batch),
        }
    }

    /// Forgets what was taken.
    pub(super) fn confirm(&self, end: BatchEnd) {
        lock(&self.0).confirm(end);
    }

    /// Hands out again what was not confirmed.
    pub(super) fn rewind(&self) {
        let mut state = lock(&self.0);
        (state.read, state.lent) = (state.kept.taken, 0);
    }

    /// Counts lines that no receiver can take.
    pub(super) fn count_dropped(&self, lines: u64, at: Timestamp) {
        lock(&self.0).count_dropped(lines, at);
    }

    /// Returns the lines that were dropped and not stated yet.
    pub(super) fn dropped(&self) -> Option<DroppedLines> {
        let state = lock(&self.0);
        let since = state.kept.dropped_since?;
        (state.kept.dropped > 0).then_some(DroppedLines { lines: state.kept.dropped, since })
    }

    /// Forgets dropped lines that a line of the audit states.
    pub(super) fn forget_dropped(&self, stated: DroppedLines) {
        let mut state = lock(&self.0);
        state.kept.dropped = state.kept.dropped.saturating_sub(stated.lines);
        if state.kept.dropped == 0 {
            state.kept.dropped_since = None;
        }
        state.keep_position();
    }

    /// Sets how much may wait. What is too much is dropped when the next lines are appended.
    pub(super) fn set_max_bytes(&self, max_bytes: u64) {
        lock(&self.0).max_bytes = max_bytes;
    }

    /// Returns how many bytes wait.
    pub(super) fn waiting_bytes(&self) -> u64 {
        let state = lock(&self.0);
        let on_disk = state.bytes_on_disk() - state.taken_of_first();
        on_disk + state.memory.iter().map(|line| line.len() as u64).sum::<u64>()
    }
}

impl SpoolState {
    fn append(&mut self, lines: &[Vec<u8>], at: Timestamp) -> AppendOutcome {
        let before = self.kept.dropped;
        self.memory.extend(lines.iter().cloned());
        // Lines that are handed out come before those that follow, wherever these wait.
        let written = if self.lent == 0 { self.write_memory(at) } else { Ok(()) };
        if written.is_err() {
            self.trim_memory(at);
        }
        AppendOutcome { dropped: self.kept.dropped - before, disk_error: written.err() }
    }

    /// Moves the lines in memory to the disk.
    fn write_memory(&mut self, at: Timestamp) -> io::Result<()> {
        while !self.memory.is_empty() {
            let mut piece = Vec::new();
            let mut count = 0;
            for line in &self.memory {
                if count > 0 && (piece.len() + line.len()) as u64 > self.segment_bytes() {
                    break;
                }
                piece.extend_from_slice(line);
                count += 1;
            }
            self.make_room(piece.len() as u64, at);
            self.write(&piece)?;
            self.memory.drain(..count);
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let is_full =
            |last: &Segment| last.bytes > 0 && last.bytes + lines.len() as u64 > self.segment_bytes();
        if self.open.is_none() || self.segments.back().is_none_or(is_full) {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("there is no segment"));
        };
        if let Err(error) = file.write_all(lines) {
            // Half a line must not stand before the next one. Whether or not it can be cut off,
            // the next lines go to another segment.
            let _cut = file.set_len(segment.bytes);
            self.open = None;
            return Err(error);
        }
        segment.bytes += lines.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.open = None;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.claimed.path)?;
        let path = self.segment_path(self.next_number);
        let file = fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        self.segments.push_back(Segment { number: self.next_number, bytes: 0 });
        self.next_number += 1;
        self.open = Some(file);
        Ok(())
    }

    /// Drops the oldest segments until there is room for so many bytes.
    fn make_room(&mut self, bytes: u64, at: Timestamp) {
        while self.bytes_on_disk() + bytes > self.max_bytes {
            let Some(oldest) = self.segments.pop_front() else { return };
            if self.segments.is_empty() {
                self.open = None;
            }
            let from = if self.kept.taken.segment == oldest.number { self.kept.taken.offset } else { 0 };
            let path = self.segment_path(oldest.number);
            let lines = count_lines(&path, from).unwrap_or(0);
            let _gone = fs::remove_file(path);
            let next = SpoolPosition { segment: oldest.number + 1, offset: 0 };
            self.kept.taken = self.kept.taken.max(next);
            self.read = self.read.max(next);
            self.count_dropped(lines, at);
        }
    }

    /// Drops the newest lines in memory that there is no room for.
    fn trim_memory(&mut self, at: Timestamp) {
        let mut bytes: usize = self.memory.iter().map(Vec::len).sum();
        let mut dropped = 0;
        while bytes > MAX_MEMORY_BYTES
            && let Some(line) = self.memory.pop_back()
        {
            bytes -= line.len();
            dropped += 1;
        }
        self.count_dropped(dropped, at);
    }

    fn count_dropped(&mut self, lines: u64, at: Timestamp) {
        if lines > 0 {
            self.kept.dropped += lines;
            self.kept.dropped_since.get_or_insert(at);
            self.keep_position();
        }
    }

    fn next_batch(&mut self, max_lines: usize) -> io::Result<Option<SpoolBatch>> {
        while let Some(index) = self.segments.iter().position(|it| it.number >= self.read.segment) {
            let (number, bytes) = (self.segments[index].number, self.segments[index].bytes);
            if number > self.read.segment {
                self.read = SpoolPosition { segment: number, offset: 0 };
            }
            let is_last = self.open.is_some() && index + 1 == self.segments.len();
            if self.read.offset >= bytes {
                if is_last {
                    break;
                }
                self.read = SpoolPosition { segment: number + 1, offset: 0 };
                continue;
            }
            let piece = match self.read_piece(number, bytes) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.segments.remove(index);
                    self.open = self.open.take().filter(|_| !is_last);
                    return Err(error);
                }
                piece => piece?,
            };
            let lines: Vec<Vec<u8>> = piece
                .split_inclusive(|byte| *byte == b'\n')
                .filter(|line| line.ends_with(b"\n"))
                .take(max_lines)
                .map(<[u8]>::to_vec)
                .collect();
            let length: usize = lines.iter().map(Vec::len).sum();
            // What a killed process left without its end is no line.
            self.read.offset += if lines.is_empty() { piece.len() } else { length } as u64;
            if !lines.is_empty() {
                return Ok(Some(SpoolBatch { lines, end: BatchEnd::Disk(self.read) }));
            }
        }
        Ok(self.lend_memory(max_lines))
    }

    fn read_piece(&self, number: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let length = (bytes - self.read.offset).min(PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
        File::open(self.segment_path(number))?.read_exact_at(&mut piece, self.read.offset)?;
        Ok(piece)
    }

    fn lend_memory(&mut self, max_lines: usize) -> Option<SpoolBatch> {
        if self.lent > 0 || self.memory.is_empty() {
            return None;
        }
        let lines: Vec<_> = self.memory.iter().take(max_lines).cloned().collect();
        self.lent = lines.len();
        Some(SpoolBatch { end: BatchEnd::Memory(lines.len()), lines })
    }

    fn confirm(&mut self, end: BatchEnd) {
        match end {
            BatchEnd::Memory(lines) => {
                self.memory.drain(..lines.min(self.memory.len()));
                self.lent = 0;
            }
            BatchEnd::Disk(position) => {
                self.kept.taken = self.kept.taken.max(position);
                self.remove_taken();
                self.keep_position();
            }
        }
    }

    /// Removes the segments that were taken as a whole.
    fn remove_taken(&mut self) {
        let taken = self.kept.taken;
        while let Some(first) = self.segments.front() {
            let is_open = self.open.is_some() && self.segments.len() == 1;
            let is_taken = first.number < taken.segment
                || (first.number == taken.segment && taken.offset >= first.bytes && !is_open);
            if !is_taken {
                return;
            }
            let _gone = fs::remove_file(self.segment_path(first.number));
            self.segments.pop_front();
        }
    }

    /// Moves the segments here that ended processes have left in other folders. Returns whether
    /// there were any.
    fn take_over_abandoned(&mut self) -> bool {
        let mut has_some = false;
        for abandoned in self.claimed.claim_abandoned(&self.first_folder) {
            let kept = KeptPosition::read(&abandoned.path);
            for segment in find_segments(&abandoned.path) {
                let from = segment_path(&abandoned.path, segment.number);
                if segment.number < kept.taken.segment {
                    let _gone = fs::remove_file(from);
                } else if fs::rename(from, self.segment_path(self.next_number)).is_ok() {
                    // What was taken of it is sent again.
                    self.open = None;
                    self.segments.push_back(Segment { number: self.next_number, bytes: segment.bytes });
                    self.next_number += 1;
                    has_some = true;
                }
            }
            if let Some(since) = kept.dropped_since {
                self.count_dropped(kept.dropped, since);
            }
            abandoned.remove(POSITION_FILE);
        }
        has_some
    }

    /// Writes the position down. If that fails, lines are sent again after a restart.
    fn keep_position(&self) {
        let bytes = serde_json::to_vec(&self.kept).expect("a position is plain data");
        let _kept = disk::replace(&self.claimed.path.join(POSITION_FILE), &bytes, 0o600);
    }

    fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn taken_of_first(&self) -> u64 {
        let first = self.segments.front().filter(|first| first.number == self.kept.taken.segment);
        first.map_or(0, |first| self.kept.taken.offset.min(first.bytes))
    }

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(1, MAX_SEGMENT_BYTES)
    }

    fn segment_path(&self, number: u64) -> PathBuf {
        segment_path(&self.claimed.path, number)
    }
}

impl KeptPosition {
    fn read(folder: &Path) -> Self {
        let bytes = disk::read_no_follow(&folder.join(POSITION_FILE), MAX_POSITION_BYTES);
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.jsonl"))
}

/// Returns the segments in a folder, oldest first.
fn find_segments(folder: &Path) -> VecDeque<Segment> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut segments: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_suffix(".jsonl")?.parse().ok()?;
            Some(Segment { number, bytes: entry.metadata().ok()?.len() })
        })
        .collect();
    segments.sort_by_key(|segment| segment.number);
    segments.into()
}

fn count_lines(path: &Path, from: u64) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let rest = bytes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
    Ok(rest.iter().filter(|byte| **byte == b'\n').count() as u64)
}

#[cfg(test)]
mod tests;
