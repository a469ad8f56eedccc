//! The file and its rotation: `audit.jsonl`, then `audit.jsonl.1` (the last one rotated), `.2` …

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::AuditFileConfig;

/// The file being written.
#[derive(Debug)]
pub(super) struct RotatingFile {
    keeping: AuditFileConfig,
    open: fs::File,
    written: u64,
}

impl RotatingFile {
    pub(super) fn open(keeping: AuditFileConfig) -> io::Result<Self> {
        let open = append_to(&keeping.path)?;
        let written = open.metadata()?.len();
        Ok(Self { keeping, open, written })
    }

    /// Appends a line, after a rotation if the file is full.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.keeping.max_bytes {
            self.rotate()?;
        }
        self.open.write_all(line)?;
        self.written += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| match number {
            0 => self.keeping.path.clone(),
            _ => PathBuf::from(format!("{}.{number}", self.keeping.path.display())),
        };
        // The oldest file is overwritten. If only one file is kept, it is started anew.
        for number in (1..self.keeping.max_files).rev() {
            match fs::rename(name(number - 1), name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keeping.max_files <= 1 {
            fs::remove_file(&self.keeping.path)?;
        }
        self.open = append_to(&self.keeping.path)?;
        self.written = 0;
        Ok(())
    }
}

/// Opens the file with mode 0600, since it contains people's names.
fn append_to(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
