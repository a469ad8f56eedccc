use std::path::Path;

use super::*;
use crate::base::clock::{ManualClock, SystemClock};

fn start(folder: &Path, bytes: u64, files: u32) -> (Audit, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let file = AuditFileConfig { path: folder.join("audit.jsonl"), max_bytes: bytes, max_files: files };
    let config = AuditConfig { file: Some(file), ..AuditConfig::default() };
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    (Audit::start(config, clock, Arc::clone(&metrics)).expect("opened"), metrics)
}

/// Returns the text without the ids of its lines, which differ with each process.
fn without_ids(text: &str) -> String {
    let before_id = |line: &str| line.rsplit_once(",\"id\":").map(|(line, _)| format!("{line}}}\n"));
    text.lines().map(|line| before_id(line).expect("each line has an id")).collect()
}

fn flush(audit: &Audit) {
    audit.flush(Duration::from_secs(10));
}

#[test]
fn a_line_says_who_did_what_and_leaves_out_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (audit, _) = start(folder.path(), 1 << 20, 2);
    let who = Actor { tid: Some("t"), oid: Some("o"), user: Some("ann@example.com"), label: None };
    audit.record(&AuditRecord {
        who,
        tool: Some("search"),
        ..AuditRecord::new(AuditEvent::Call, "acme", "ok")
    });
    flush(&audit);
    let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("written");
    assert_eq!(
        without_ids(&text),
        concat!(
            r#"{"at":"1970-01-01T00:00:00.000Z","event":"call","tenant":"acme","outcome":"ok","tid":"t","oid":"o","#,
            r#""user":"ann@example.com","tool":"search"}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_of_one_of_several_gateways_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let file = AuditFileConfig { path: path.clone(), max_bytes: 1 << 20, max_files: 2 };
    let config = AuditConfig { file: Some(file), node: Some("gw-1".to_owned()), ..AuditConfig::default() };
    let audit = Audit::start(config, SystemClock::shared(), Arc::new(Metrics::new())).expect("opened");
    audit.record(&AuditRecord::new(AuditEvent::Login, "acme", "ok"));
    flush(&audit);
    let line: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("one line");
    assert_eq!(line["node"], "gw-1");
    assert!(line["id"].as_str().is_some_and(|id| id.ends_with("-1")), "{line}");
}

#[test]
fn files_are_rotated_by_size_and_bounded_in_number() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (audit, _) = start(folder.path(), 330, 3);
    for number in 0..40 {
        let request_id = number.to_string();
        audit.record(&AuditRecord {
            request_id: Some(&request_id),
            ..AuditRecord::new(AuditEvent::Call, "acme", "ok")
        });
    }
    flush(&audit);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("listed").flatten() {
        let about = entry.metadata().expect("there");
        assert!(about.len() <= 330 && about.permissions().mode() & 0o777 == 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().expect("text"));
    }
    names.sort();
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    let last = std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("written");
    assert!(without_ids(&last).ends_with("\"request_id\":\"39\"}\n") && last.ends_with("-40\"}\n"), "{last}");
}

#[test]
fn what_cannot_be_written_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (audit, metrics) = start(folder.path(), 10, 2);
    // The first line fits into an empty file only; then there is no folder to rotate in.
    audit.record(&AuditRecord::new(AuditEvent::Login, "acme", "ok"));
    flush(&audit);
    std::fs::remove_dir_all(folder.path()).expect("removed");
    audit.record(&AuditRecord::new(AuditEvent::Login, "acme", "ok"));
    flush(&audit);
    assert!(metrics.encode().contains("tenantd_audit_lost_total 1"), "{}", metrics.encode());
}

#[test]
fn a_file_that_cannot_be_opened_is_told_at_the_start() {
    let file = AuditFileConfig { path: "/nowhere/at/all/audit.jsonl".into(), max_bytes: 1, max_files: 1 };
    let config = AuditConfig { file: Some(file), ..AuditConfig::default() };
    assert!(Audit::start(config, SystemClock::shared(), Arc::new(Metrics::new())).is_err());
}

#[test]
fn a_flood_of_refusals_pushes_nothing_out_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (audit, metrics) = start(folder.path(), 1 << 20, 2);
    (0..5000).for_each(|_| audit.record(&AuditRecord::new(AuditEvent::Refusal, "acme", "invalid_token")));
    audit.record(&AuditRecord::new(AuditEvent::Login, "acme", "ok"));
    let who = Actor { label: Some("ann"), ..Actor::default() };
    audit.record(&AuditRecord { who, ..AuditRecord::new(AuditEvent::Call, "acme", "ok") });
    flush(&audit);
    let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).expect("written");
    assert!(text.len() < 80 << 10, "{}", text.len());
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |event: &str| {
        let of = lines.iter().filter(|line| line["event"] == event);
        of.map(|line| line["left_out"].as_u64().unwrap_or(1)).sum::<u64>()
    };
    assert_eq!((count("refusal"), count("login"), count("call")), (5000, 1, 1), "{text}");
    let call = r#""event":"call","tenant":"acme","outcome":"ok","label":"ann"}"#;
    assert!(without_ids(&text).contains(call), "{text}");
    let metrics = metrics.encode();
    assert!(metrics.contains("tenantd_audit_lost_total 0"), "{metrics}");
    let counted = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum::<u64>();
    assert!(metrics.contains(&format!("tenantd_audit_counted_total {counted}")), "{metrics}");
}

#[test]
fn no_line_is_shorter_than_its_least() {
    let shortest = AuditRecord::new(AuditEvent::Call, "", "");
    let longest = AuditRecord {
        client: Some("a client"),
        user_agent: Some("agent/1"),
        client_id: Some("id"),
        tool: Some("search"),
        resource: Some("a:b"),
        request_id: Some("0123456789abcdef"),
        ..AuditRecord::new(AuditEvent::Login, "acme", "quoted \"ok\"")
    };
    for entry in [shortest, longest] {
        let at = "2026-11-26T10:00:00Z".parse().expect("a time");
        let line = AuditLine { at, entry: &entry, left_out: None, since: None }.written();
        assert!(entry.least_bytes() <= line.len() + ID_BYTES, "{}", String::from_utf8_lossy(&line));
    }
}
