//! The client libraries, each in every mode of version negotiation.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use super::cache;
use super::script::command;

pub(super) const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// A library and its mode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    /// Also the name of its tenant.
    pub(super) name: &'static str,
    program: Program,
    /// The mode that the script sets; the default is the library's own.
    mode: Mode,
    /// The protocol version that client and gateway must agree on; a framework does not tell.
    pub(super) agrees_on: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Node(&'static str),
    /// A Python environment, and the script that runs in it.
    Python(&'static str, &'static str),
    /// A framework for agents, which has an environment of its own name.
    Framework(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Default,
    Named(&'static str),
    Pinned(&'static str),
}

const TS_V1: Program = Program::Node("ts-v1.mjs");
const TS_V2: Program = Program::Node("ts-v2.mjs");
const PYTHON_V1: Program = Program::Python("python-mcp1", "python_v1.py");
const PYTHON_V2: Program = Program::Python("python-mcp2", "python_v2.py");
const FASTMCP: Program = Program::Python("python-fastmcp", "fastmcp_client.py");

/// All libraries and modes.
pub(super) const LIBRARIES: [Library; 9] = [
    Library { name: "ts-v1", program: TS_V1, mode: Mode::Default, agrees_on: Some(LEGACY) },
    Library { name: "ts-v2", program: TS_V2, mode: Mode::Default, agrees_on: Some(LEGACY) },
    Library { name: "ts-v2-auto", program: TS_V2, mode: Mode::Named("auto"), agrees_on: Some(MODERN) },
    Library { name: "ts-v2-pinned", program: TS_V2, mode: Mode::Pinned(MODERN), agrees_on: Some(MODERN) },
    Library { name: "python-v1", program: PYTHON_V1, mode: Mode::Default, agrees_on: Some(LEGACY) },
    Library { name: "python-v2", program: PYTHON_V2, mode: Mode::Default, agrees_on: Some(MODERN) },
    Library {
        name: "python-v2-legacy",
        program: PYTHON_V2,
        mode: Mode::Named("legacy"),
        agrees_on: Some(LEGACY),
    },
    Library { name: "fastmcp", program: FASTMCP, mode: Mode::Default, agrees_on: Some(MODERN) },
    Library {
        name: "fastmcp-legacy",
        program: FASTMCP,
        mode: Mode::Named("legacy"),
        agrees_on: Some(LEGACY),
    },
];

impl Library {
    /// A framework for agents whose script is in `tests/peers/frameworks/`.
    pub(super) const fn framework(name: &'static str) -> Self {
        Self { name, program: Program::Framework(name), mode: Mode::Default, agrees_on: None }
    }

    /// The command that runs its script. `folder` is the script's own.
    pub(super) fn command(&self, folder: &Path) -> Command {
        match self.program {
            Program::Node(script) => command(cache::node(), &beside_packages(script, folder)),
            Program::Python(environment, script) => {
                command(cache::python(environment), &cache::script(script))
            }
            Program::Framework(name) => {
                let script = format!("frameworks/with_{}.py", name.replace('-', "_"));
                command(cache::python(&format!("framework-{name}")), &cache::script(&script))
            }
        }
    }

    /// What its process needs to know beside keys and certificates. Frameworks tell their makers what they do, unless they
    /// are told not to; whatever would still leave this machine meets a proxy that is none.
    pub(super) fn variables(&self, folder: &Path) -> Vec<(&'static str, OsString)> {
        if !matches!(self.program, Program::Framework(_)) {
            return Vec::new();
        }
        let fixed = [
            ("PATH", "/usr/bin:/bin"),
            ("CREWAI_DISABLE_TELEMETRY", "true"),
            ("MCP_USE_ANONYMIZED_TELEMETRY", "false"),
            ("NO_GCE_CHECK", "true"),
            ("OPENAI_AGENTS_DISABLE_TRACING", "1"),
            ("OTEL_SDK_DISABLED", "true"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
            ("HTTPS_PROXY", "http://127.0.0.1:9"),
            ("NO_PROXY", "127.0.0.1,localhost"),
        ];
        let mut variables = Vec::from(fixed.map(|(name, value)| (name, OsString::from(value))));
        variables.push(("HOME", folder.into()));
        variables.push(("PYTHONPATH", cache::script("").into()));
        variables
    }

    /// The order to connect to a URL.
    pub(super) fn connect(&self, url: &str) -> Value {
        let mode = match self.mode {
            Mode::Default => Value::Null,
            Mode::Named(mode) => json!(mode),
            Mode::Pinned(version) => json!({ "pin": version }),
        };
        json!({ "do": "connect", "url": url, "mode": mode })
    }

    /// Returns whether its script logs in. One mode of each SDK that supports it does.
    pub(super) fn logs_in(&self) -> bool {
        matches!(self.name, "ts-v1" | "ts-v2-auto" | "python-v2")
    }

    /// Returns whether it negotiates the newer protocol era.
    pub(super) fn is_modern(&self) -> bool {
        self.agrees_on == Some(MODERN)
    }

    /// Returns whether it receives change notifications. fastmcp's client has no
    /// `subscriptions/listen`, and the older era has no such request.
    pub(super) fn listens(&self) -> bool {
        self.is_modern() && matches!(self.program, TS_V2 | PYTHON_V2)
    }
}

/// Copies the script into a folder with the npm packages, since Node resolves packages only beside
/// the script.
pub(super) fn beside_packages(script: &str, folder: &Path) -> PathBuf {
    for name in [script, "steps.mjs", "login.mjs"] {
        fs::copy(cache::script(name), folder.join(name)).expect("copied");
    }
    symlink(cache::package(""), folder.join("node_modules")).expect("linked");
    folder.join(script)
}
