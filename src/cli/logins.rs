//! `tenantd logins`: lists and ends people's logins, and keeps people out.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::admin_client::{Error, encode_segment};
use super::admin_request::{Answer, print_answer, send};
use super::args::{AdminArgs, LoginFilterArgs, LoginsAction, LoginsArgs};
use super::{Exit, output};
use crate::oauth::logins::MAX_LOGINS;
use crate::telemetry::printable::printable;

/// How many logins are asked for at once; the answer stays below a client's limit.
const PAGE: usize = 1000;

/// Runs the command.
pub(super) fn run(args: &LoginsArgs) -> anyhow::Result<Exit> {
    match &args.action {
        LoginsAction::List { filter, query } => {
            let listed = fetch_all(filter, &query.admin)?;
            print_answer(listed, |listed| output::rendered(query.format, listed, login_table))
        }
        LoginsAction::End { id, filter, all, yes, admin } => {
            let order = json!({
                "id": id, "tenant": filter.tenant, "person": filter.person, "client": filter.client, "all": all,
            });
            end(&order, filter, *yes, admin)
        }
        LoginsAction::Block { person, place, reason, until, admin } => {
            let until = until.as_deref().map(parse_until).transpose()?;
            let order = json!({
                "person": person, "tenant": place.tenant, "all_tenants": place.all_tenants, "reason": reason,
                "until": until,
            });
            print_answer(send(admin, Method::POST, "/api/blocks", order.to_string().into())?, blocked)
        }
        LoginsAction::Unblock { person, admin } => unblock(person, admin),
        LoginsAction::Blocks { query } => {
            let listed = send(&query.admin, Method::GET, "/api/blocks", Bytes::new())?;
            print_answer(listed, |listed| output::rendered(query.format, listed, block_table))
        }
    }
}

/// Reads the list page by page, up to the limit.
fn fetch_all(filter: &LoginFilterArgs, admin: &AdminArgs) -> anyhow::Result<Answer> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let pairs = [("tenant", &filter.tenant), ("person", &filter.person), ("client", &filter.client)];
        let pairs = pairs.into_iter().chain([("after", &after)]);
        query.extend_pairs(pairs.filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let path = format!("/api/logins?{}", query.append_pair("limit", &PAGE.to_string()).finish());
        let page = match send(admin, Method::GET, &path, Bytes::new())? {
            Ok(page) => page,
            Err(error) => return Ok(Err(error)),
        };
        all.extend(entries(&page, "programs", "program"));
        all.extend(entries(&page, "logins", "person"));
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(Ok(Value::Array(all)));
        }
        if all.len() >= MAX_LOGINS {
            output::print_error(format_args!(
                "there are more than {MAX_LOGINS} logins; the list ends here: give --tenant, --person or --client"
            ));
            return Ok(Ok(Value::Array(all)));
        }
    }
}

/// Returns the entries of one kind on a page, which say so.
fn entries(page: &Value, member: &str, kind: &str) -> Vec<Value> {
    let mut entries = page[member].as_array().cloned().unwrap_or_default();
    entries.iter_mut().for_each(|entry| entry["kind"] = kind.into());
    entries
}

fn end(order: &Value, filter: &LoginFilterArgs, yes: bool, admin: &AdminArgs) -> anyhow::Result<Exit> {
    let names_some = ["id", "tenant", "person", "client"].iter().any(|name| order[name].is_string());
    anyhow::ensure!(
        names_some || order["all"] == true,
        "say which logins: an id, --tenant, --person, --client, or --all"
    );
    if !yes && io::stdin().is_terminal() && order["id"].is_null() {
        let count = match fetch_all(filter, admin)? {
            Ok(listed) => listed.as_array().map_or(0, Vec::len),
            Err(error) => return print_answer(Err(error), |_| String::new()),
        };
        if !confirm(&format!("This ends {}. Go on?", count_logins(count as u64)))? {
            return Ok(Exit::Findings);
        }
    }
    let order: Value = order.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).fold(
        json!({}),
        |mut order, (name, value)| {
            order[name] = value.clone();
            order
        },
    );
    let ended = send(admin, Method::POST, "/api/logins/end", order.to_string().into())?;
    print_answer(ended, |ended| {
        format!("{} ended\n", count_logins(ended["ended"].as_u64().unwrap_or_default()))
    })
}

fn count_logins(count: u64) -> String {
    if count == 1 { "1 login".to_owned() } else { format!("{count} logins") }
}

/// Asks the person at the terminal.
fn confirm(question: &str) -> anyhow::Result<bool> {
    let mut out = io::stderr().lock();
    write!(out, "{question} [y/N] ")
        .and_then(|()| out.flush())
        .context("the terminal cannot be written to")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("the terminal cannot be read")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Lifts the block with this id, or the only one of this person.
fn unblock(person: &str, admin: &AdminArgs) -> anyhow::Result<Exit> {
    let listed = match send(admin, Method::GET, "/api/blocks", Bytes::new())? {
        Ok(listed) => listed,
        refused => return print_answer(refused, |_| String::new()),
    };
    let all = listed.as_array().into_iter().flatten();
    let meant: Vec<_> = all.filter(|block| is_meant(block, person)).collect();
    let id = match meant.as_slice() {
        [block] => block["id"].as_str().unwrap_or_default().to_owned(),
        [] => {
            let detail = format!("nobody is blocked by this name or id: {person}");
            return print_answer(Err(Error::Rejected(detail, Vec::new())), |_| String::new());
        }
        several => {
            let several = Value::Array(several.iter().map(|block| (*block).clone()).collect());
            output::print_error("there are several blocks of this person; give the id of one of them");
            output::print(&block_table(&several))?;
            return Ok(Exit::Findings);
        }
    };
    let lifted = send(admin, Method::DELETE, &format!("/api/blocks/{}", encode_segment(&id)), Bytes::new())?;
    print_answer(lifted, |_| format!("{} may log in again\n", printable(person)))
}

/// Whether a block has this id, or means this person.
fn is_meant(block: &Value, person: &str) -> bool {
    let text = |name: &str| block[name].as_str().unwrap_or_default().to_lowercase();
    let full = format!("{}/{}", text("tid"), text("oid"));
    let person = person.to_lowercase();
    [text("id"), text("user"), text("oid"), full].contains(&person)
}

/// Parses a time, or a date, whose end is meant.
fn parse_until(text: &str) -> anyhow::Result<Timestamp> {
    let end_of_day = |text: &str| {
        let day = text.parse::<Date>().ok()?.tomorrow().ok()?;
        TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).ok()
    };
    let parsed = text.parse::<Timestamp>().ok().or_else(|| end_of_day(text));
    parsed.with_context(|| {
        format!("`--until` is {text:?}: write a last day (2027-01-31) or a time (2027-01-31T12:00:00Z)")
    })
}

fn blocked(blocked: &Value) -> String {
    let text = |name: &str| blocked[name].as_str().map(|text| printable(text).into_owned());
    let who = text("user").or_else(|| text("oid")).unwrap_or_default();
    let place = text("tenant").map_or_else(|| "all tenants".to_owned(), |tenant| format!("tenant {tenant}"));
    let until = text("until").map(|until| format!(" until {until}")).unwrap_or_default();
    let ended = count_logins(blocked["logins_ended"].as_u64().unwrap_or_default());
    let mut out = format!("{who} is kept out of {place}{until}; {ended} ended\n");
    if let Some(notice) = text("notice") {
        let _ = writeln!(out, "Note: {notice}");
    }
    out + &format!("Lift it with: tenantd logins unblock {}\n", text("id").unwrap_or_default())
}

fn login_table(listed: &Value) -> String {
    let mut logins: Vec<_> = listed.as_array().into_iter().flatten().collect();
    let order = |login: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        (text(&login["tenant"]), text(&login["person"]["user"]), text(&login["label"]), text(&login["since"]))
    };
    logins.sort_by_cached_key(|login| order(login));
    let row = |login: &&Value| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let person = &login["person"];
        let names = [&login["label"], &person["user"], &person["oid"]];
        let who = names.into_iter().find(|name| name.is_string()).unwrap_or(&Value::Null);
        let time = |name: &str| minutes(login[name].as_str().unwrap_or("-"));
        vec![
            text(&login["tenant"]),
            text(&login["kind"]),
            text(who),
            client_title(login),
            time("since"),
            time("last_used"),
            time("expires_at"),
            text(&login["id"]),
        ]
    };
    let rows: Vec<_> = logins.iter().map(row).collect();
    match rows.is_empty() {
        true => "Nobody is logged in.\n".to_owned(),
        false => {
            output::table(&["TENANT", "KIND", "WHO", "CLIENT", "SINCE", "LAST USED", "UNTIL", "LOGIN"], &rows)
        }
    }
}

/// Returns the client's name; ids are too long for a table.
fn client_title(login: &Value) -> String {
    let id = login["client_id"].as_str().unwrap_or_default();
    match login["client_name"].as_str() {
        Some(name) => name.to_owned(),
        None if id.chars().count() > 40 => format!("{}…", id.chars().take(39).collect::<String>()),
        None => id.to_owned(),
    }
}

/// Shortens `2027-01-31T12:00:00Z` to its minutes.
fn minutes(time: &str) -> String {
    time.get(..16).map_or_else(|| time.to_owned(), |time| format!("{}Z", time.replace('T', " ")))
}

fn block_table(listed: &Value) -> String {
    let row = |block: &Value| {
        let text = |name: &str| block[name].as_str().unwrap_or("-").to_owned();
        let who = if block["user"].is_string() { text("user") } else { text("oid") };
        let place = block["tenant"].as_str().unwrap_or("all tenants").to_owned();
        let is_readable = block["since"].is_string();
        let who = if is_readable { who } else { "cannot be read: everybody gets 503".to_owned() };
        vec![who, place, minutes(&text("since")), minutes(&text("until")), text("reason"), text("id")]
    };
    let rows: Vec<_> = listed.as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "Nobody is blocked.\n".to_owned(),
        false => output::table(&["PERSON", "KEPT OUT OF", "SINCE", "UNTIL", "REASON", "BLOCK"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_blocks_are_tables() {
        let login = |tenant: &str, user: Value, client: Value| {
            json!({
                "id": "0a", "kind": "person", "tenant": tenant, "person": { "user": user, "oid": "o-1" },
                "client_id": "c".repeat(50),
                "client_name": client, "since": "2026-11-26T10:00:00Z", "last_used": "2026-11-26T11:30:05Z",
                "expires_at": "2026-12-26T11:00:00Z",
            })
        };
        let page = json!({ "programs": [{
            "id": "0d", "tenant": "beta", "client_id": "job", "label": "Nightly job", "since": "2026-11-26T10:00:00Z",
            "last_used": null, "expires_at": "2026-11-26T11:00:00Z",
        }]});
        let mut listed = entries(&page, "programs", "program");
        listed.extend([
            login("beta", json!("ada@x"), json!("Claude")),
            login("acme", Value::Null, Value::Null),
        ]);
        let listed = Value::Array(listed);
        insta::assert_snapshot!(login_table(&listed), @r"
        TENANT  KIND     WHO          CLIENT                                    SINCE              LAST USED          UNTIL              LOGIN
        acme    person   o-1          ccccccccccccccccccccccccccccccccccccccc…  2026-11-26 10:00Z  2026-11-26 11:30Z  2026-12-26 11:00Z  0a
        beta    program  Nightly job  job                                       2026-11-26 10:00Z  -                  2026-11-26 11:00Z  0d
        beta    person   ada@x        Claude                                    2026-11-26 10:00Z  2026-11-26 11:30Z  2026-12-26 11:00Z  0a
        ");
        let listed = json!([
            { "id": "0b", "tenant": null, "oid": "o", "user": "ada@x", "since": "2026-11-26T10:00:00Z", "reason": "left" },
            { "id": "0c" },
        ]);
        insta::assert_snapshot!(block_table(&listed), @r"
        PERSON                              KEPT OUT OF  SINCE              UNTIL  REASON  BLOCK
        ada@x                               all tenants  2026-11-26 10:00Z  -      left    0b
        cannot be read: everybody gets 503  all tenants  -                  -      -       0c
        ");
    }

    #[test]
    fn the_last_day_of_a_block_is_a_part_of_it() {
        assert_eq!(parse_until("2027-01-31").expect("a date").to_string(), "2027-02-01T00:00:00Z");
        assert_eq!(parse_until("2027-01-31T12:00:00Z").expect("a time").to_string(), "2027-01-31T12:00:00Z");
        assert!(parse_until("tomorrow").is_err());
    }
}
