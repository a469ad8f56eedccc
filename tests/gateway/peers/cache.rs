//! Paths of the peers that `scripts/install-peers.sh` installed into the folder
//! `TENANTD_TEST_CACHE`.

use std::env;
use std::path::{Path, PathBuf};

/// Returns Node 22, independent of the system's version.
pub(crate) fn node() -> PathBuf {
    installed("npm/node_modules/.bin/node")
}

/// Returns a file or folder of an installed npm package, e.g. `@modelcontextprotocol/inspector`.
pub(crate) fn package(path: &str) -> PathBuf {
    installed(&format!("npm/node_modules/{path}"))
}

/// Returns the interpreter of a Python environment, e.g. `python-mcp2`.
pub(crate) fn python(environment: &str) -> PathBuf {
    installed(&format!("{environment}/bin/python"))
}

/// Returns a program of a Python environment.
pub(crate) fn program(environment: &str, name: &str) -> PathBuf {
    installed(&format!("{environment}/bin/{name}"))
}

/// Returns a file of `tests/peers/`.
pub(crate) fn script(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name);
    assert!(path.exists(), "there is no {}", path.display());
    path
}

fn installed(path: &str) -> PathBuf {
    let cache = env::var_os("TENANTD_TEST_CACHE").unwrap_or_else(|| {
        panic!("no peers: TENANTD_TEST_CACHE is not set. {INSTRUCTION}");
    });
    let installed = Path::new(&cache).join(path);
    assert!(installed.exists(), "no peer: {} does not exist. {INSTRUCTION}", installed.display());
    installed
}

const INSTRUCTION: &str = "Run ./scripts/test.sh, which installs them, or scripts/install-peers.sh DIR and set \
                           TENANTD_TEST_CACHE to DIR. ./scripts/test.sh quick runs all tests that need no peers";
