//! What goes into the bundle.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::super::args::SupportBundleArgs;
use super::super::{admin_access, configuration, doctor, port_holder, render};
use crate::base::clock::{Clock, SystemClock};
use crate::settings::{Flags, Settings};

/// The lines of the audit that are taken.
const AUDIT_LINES: usize = 500;
/// What is read of the audit's end: long lines are rare.
const AUDIT_BYTES: u64 = 1 << 20;
const AUDIT_FILE: &str = "audit.jsonl";
/// The entries of one folder that are listed.
const MAX_ENTRIES: usize = 2000;

/// One file of the bundle.
pub(super) struct Member {
    pub(super) name: &'static str,
    /// What it is, for whoever decides about it.
    pub(super) purpose: &'static str,
    pub(super) text: String,
}

/// Collects what can be had: all with a running gateway, less without one.
///
/// # Errors
/// The settings cannot be read.
pub(super) fn collect(args: &SupportBundleArgs) -> anyhow::Result<Vec<Member>> {
    let doctor_args = &args.doctor();
    let flags = args.settings.validation.flags(args.settings.gateway.flags(Flags::new()));
    let mut settings = configuration::load_quietly(&flags, args.settings.validation.config.as_deref())?;
    let admin = admin_access::connect(&settings, &args.access)?;
    let info = admin.as_ref().and_then(|admin| admin.gateway_info().ok());
    if let Some(info) = &info {
        doctor::adopt(&mut settings, info, doctor_args);
    }
    let running = admin.filter(|_| info.is_some());
    let versions = json!({
        "tenantd": env!("CARGO_PKG_VERSION"),
        "gateway": info.as_ref().map(|info| &info.version),
        "system": fs::read_to_string("/proc/version").unwrap_or_default().trim(),
        "collected": SystemClock.now().to_string(),
    });
    let mut members = vec![member("versions.json", "versions of program, gateway and system", &versions)];
    let own =
        || json!({ "settings": settings.to_json(), "gateway": "does not run: these are this command's" });
    let in_force = running.as_ref().and_then(|admin| admin.settings().ok()).unwrap_or_else(own);
    members.push(member("settings.json", "the settings in force, without secrets", &in_force));
    if let (Some(admin), Some(info)) = (running, &info) {
        members.push(member("gateway.json", "the gateway's addresses and folders", info));
        members.push(member(
            "readiness.json",
            "whether it is ready",
            &admin.readiness().unwrap_or(Value::Null),
        ));
        members.push(member(
            "tenants.json",
            "states and findings of all tenants",
            &admin.tenants().unwrap_or_default(),
        ));
        let certificates = admin.certificates().unwrap_or_default();
        members.push(member("certificates.json", "states of all certificates", &certificates));
        for (name, purpose, path) in
            [("metrics.txt", "all metrics", "/metrics"), ("log.txt", "the last lines of the log", "/api/log")]
        {
            let text = admin.text(path).unwrap_or_else(|error| format!("{error}\n"));
            members.push(Member { name, purpose, text });
        }
    }
    let audit = read_audit(&settings.state.join(AUDIT_FILE));
    members.push(Member {
        name: "audit.jsonl",
        purpose: "who did what lately, with names of people",
        text: audit,
    });
    members.push(Member {
        name: "limits.txt",
        purpose: "the system's limits of the gateway's process",
        text: read_limits(&settings),
    });
    members.push(Member {
        name: "folders.txt",
        purpose: "names, modes and sizes in the folders, no contents",
        text: list_folders(&settings),
    });
    let diagnosis = doctor::diagnose(doctor_args)?;
    members.push(Member {
        name: "doctor.json",
        purpose: "what `tenantd doctor` says",
        text: render::json(&diagnosis) + "\n",
    });
    Ok(members)
}

fn member<T: serde::Serialize + ?Sized>(name: &'static str, purpose: &'static str, value: &T) -> Member {
    Member { name, purpose, text: render::json(&value) + "\n" }
}

/// Returns the last lines of the audit file.
fn read_audit(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(AUDIT_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(AUDIT_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(AUDIT_LINES)..];
            last.iter().map(|line| format!("{line}\n")).collect()
        }
        Err(error) => format!("{} cannot be read: {error}\n", path.display()),
    }
}

fn read_limits(settings: &Settings) -> String {
    let holder = settings.admin.and_then(|admin| port_holder::find(admin.port()));
    match holder {
        Some(holder) => {
            let limits = fs::read_to_string(format!("/proc/{}/limits", holder.process));
            format!("{holder}\n{}", limits.unwrap_or_else(|error| format!("{error}\n")))
        }
        None => "no process of a gateway was found\n".to_owned(),
    }
}

fn list_folders(settings: &Settings) -> String {
    let mut text = String::new();
    for folder in [&settings.tenants, &settings.state, &settings.certs] {
        let _ = writeln!(text, "{}:", folder.display());
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
        let mut lines: Vec<String> = entries
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                let name = entry.file_name();
                Some(format!(
                    "  {:06o} {}:{} {:>10} {}\n",
                    about.mode(),
                    about.uid(),
                    about.gid(),
                    about.len(),
                    name.to_string_lossy()
                ))
            })
            .collect();
        lines.sort();
        text.extend(lines);
    }
    text
}
