//! The file of tokens, read again whenever it changes. A file that cannot be used admits no token.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::disk::{self, Stamp};
use crate::base::sync::lock;
use crate::settings::{AdminToken, parse_admin_tokens};

/// The largest file; an entry takes some 150 bytes.
const MAX_BYTES: u64 = 256 << 10;

/// The tokens of a file.
#[derive(Debug)]
pub(super) struct AdminTokens {
    file: PathBuf,
    known: Mutex<Option<Known>>,
    is_usable: AtomicBool,
}

/// What was last read.
#[derive(Debug)]
struct Known {
    /// `None` if the file was not there.
    stamp: Option<Stamp>,
    tokens: Result<Arc<[AdminToken]>, String>,
}

/// The file cannot be read, or is wrong; the log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unusable;

impl AdminTokens {
    pub(super) fn new(file: PathBuf) -> Self {
        let tokens = Self { file, known: Mutex::new(None), is_usable: AtomicBool::new(false) };
        tokens.refresh();
        tokens
    }

    /// Whether the file could be used when it was last read.
    pub(super) fn is_usable(&self) -> bool {
        self.is_usable.load(Ordering::Relaxed)
    }

    /// Reads the file if it changed, unless another thread is about to. Blocks.
    pub(super) fn refresh(&self) {
        if let Ok(mut known) = self.known.try_lock() {
            self.update(&mut known);
        }
    }

    /// Returns the tokens that the file contains now. Blocks.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn load(&self) -> Result<Arc<[AdminToken]>, Unusable> {
        let mut known = lock(&self.known);
        self.update(&mut known);
        known.as_ref().and_then(|known| known.tokens.clone().ok()).ok_or(Unusable)
    }

    fn update(&self, known: &mut Option<Known>) {
        let stamp = Stamp::of(&self.file).ok();
        let is_current = known.as_ref().is_some_and(|known| known.stamp.is_some() && known.stamp == stamp);
        if !is_current {
            let tokens = read(&self.file);
            report(&self.file, known.as_ref().map(|known| &known.tokens), &tokens);
            self.is_usable.store(tokens.is_ok(), Ordering::Relaxed);
            *known = Some(Known { stamp, tokens });
        }
    }
}

fn read(file: &Path) -> Result<Arc<[AdminToken]>, String> {
    let is_open = fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o002 != 0);
    if is_open {
        return Err("everybody on this machine may write it; run chmod o-w".to_owned());
    }
    let text = disk::read_text(file, MAX_BYTES).map_err(|error| error.to_string())?;
    parse_admin_tokens(&text).map(Arc::from)
}

/// Logs what changed.
fn report(
    file: &Path,
    before: Option<&Result<Arc<[AdminToken]>, String>>,
    now: &Result<Arc<[AdminToken]>, String>,
) {
    let file = file.display();
    match (before, now) {
        (Some(Err(before)), Err(why)) if before == why => {}
        (_, Err(why)) => tracing::error!(
            %file, %why,
            "the file of admin tokens cannot be used: nobody gets in with a token until it is put right"
        ),
        (_, Ok(tokens)) => tracing::info!(%file, tokens = tokens.len(), "read the admin tokens"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_counts_at_once_and_a_broken_file_lets_nobody_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.yaml");
        let tokens = AdminTokens::new(file.clone());
        assert_eq!(tokens.load(), Err(Unusable), "it is missing");
        let write = |text: &str| disk::replace(&file, text.as_bytes(), 0o600).expect("written");
        let digest = "a".repeat(64);
        let good = format!("tokens:\n  - {{name: ann, sha256: \"{digest}\", role: read}}\n");
        write(&good);
        assert_eq!(tokens.load().expect("usable").len(), 1);
        write(&good.replace("read", "root"));
        assert_eq!(tokens.load(), Err(Unusable));
        write("tokens: []\n");
        assert_eq!(tokens.load().expect("usable").len(), 0);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o602)).expect("changed");
        assert_eq!(tokens.load(), Err(Unusable), "everybody may write it");
        fs::remove_file(&file).expect("removed");
        assert_eq!(tokens.load(), Err(Unusable));
    }
}
