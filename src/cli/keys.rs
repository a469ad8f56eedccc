//! `tenantd keys`: shows and rotates the keys that sign a tenant's access tokens.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::admin_client::tenant_path;
use super::admin_request::{print_answer, send};
use super::args::{KeysAction, KeysArgs};
use super::{Exit, output};

pub(super) fn run(args: &KeysArgs) -> anyhow::Result<Exit> {
    match &args.action {
        KeysAction::Show { tenant, query } => {
            let path = tenant_path(tenant, "/keys");
            let keys = send(&query.admin, Method::GET, &path, Bytes::new())?;
            print_answer(keys, |keys| output::rendered(query.format, keys, table))
        }
        KeysAction::Rotate { tenant, emergency, admin } => {
            let path = tenant_path(tenant, if *emergency { "/keys?emergency" } else { "/keys" });
            let said = match emergency {
                false => "the new key is published now and signs in one day",
                true => {
                    "the old keys are deleted: all access tokens are refused from now on, refresh tokens \
                     stay valid"
                }
            };
            print_answer(send(admin, Method::POST, &path, Bytes::new())?, |keys| {
                format!("{}\n{tenant}: {said}\n", table(keys))
            })
        }
    }
}

fn table(keys: &Value) -> String {
    let row = |key: &Value| {
        ["kid", "state", "signs_from"].map(|name| key[name].as_str().unwrap_or_default().to_owned()).to_vec()
    };
    let rows: Vec<_> = keys.as_array().into_iter().flatten().map(row).collect();
    output::table(&["KEY", "STATE", "SIGNS FROM"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_table() {
        let keys = serde_json::json!([
            { "kid": "aaa", "state": "signing", "signs_from": "2026-11-25T08:00:00Z" },
            { "kid": "bbb", "state": "next", "signs_from": "2026-11-26T08:00:00Z" },
        ]);
        insta::assert_snapshot!(table(&keys), @r"
        KEY  STATE    SIGNS FROM
        aaa  signing  2026-11-25T08:00:00Z
        bbb  next     2026-11-26T08:00:00Z
        ");
    }
}
