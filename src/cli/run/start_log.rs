//! The start-up lines on standard output, and the log file that has them too.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::refusal::StartRefusal;
use super::tree;
use crate::bundle;
use crate::cli::args::RunArgs;
use crate::cli::output;

/// What turns the log file off.
const OFF: &str = "off";

/// Where start-up lines go.
#[derive(Default)]
pub(super) struct StartLog {
    file: Option<File>,
}

impl StartLog {
    /// Opens the log file that was asked for, or that of an unpacked export. Returns why it cannot
    /// be written, if so: that ends nothing.
    pub(super) fn default_for(args: &RunArgs) -> (Self, Option<String>) {
        let Some(path) = log_file(args) else { return (Self::default(), None) };
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => {
                let mut lines = Self { file: Some(file) };
                lines.print(&format!("Log file: {}", path.display()));
                (lines, None)
            }
            Err(error) => {
                let why = format!(
                    "the log file {} cannot be written ({error}); the log goes to the terminal only. Choose \
                     another file with --log-file, or none with --log-file off",
                    path.display()
                );
                (Self::default(), Some(why))
            }
        }
    }

    /// Returns the log file, for the log.
    pub(super) fn file(&self) -> Option<File> {
        self.file.as_ref().and_then(|file| file.try_clone().ok())
    }

    /// Prints a line.
    pub(super) fn print(&mut self, line: &str) {
        let line = format!("{line}\n");
        // Neither a closed pipe nor a full disk keeps anybody from serving.
        let _nobody_reads = output::print(&line);
        self.copy(&line);
    }

    /// Prints why nothing is served.
    pub(super) fn refuse(&mut self, refusal: &StartRefusal) {
        let lines = refusal.to_lines();
        output::print_error_lines(&lines);
        self.copy(&lines);
    }

    fn copy(&mut self, text: &str) {
        if let Some(file) = &mut self.file {
            let _full = output::write_printable(file, text);
        }
    }
}

fn log_file(args: &RunArgs) -> Option<PathBuf> {
    match &args.log_file {
        Some(file) if file == Path::new(OFF) => None,
        Some(file) => Some(file.clone()),
        None => {
            let tree = args.path.clone().or_else(tree::find_here)?;
            let tree = std::path::absolute(tree::above_mcp(&tree)).ok()?;
            bundle::is_unpacked_export(&tree).then(|| tree.join("mcp/run.log"))
        }
    }
}
