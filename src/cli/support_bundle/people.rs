//! Replaces the names of people in what is given away.

use std::collections::BTreeSet;

use serde_json::Value;

use super::members::Member;

/// The members of audit lines that name a person, or what belongs to one.
const FIELDS: [&str; 6] = ["user", "oid", "client_addr", "operator", "by", "person"];
/// What is shorter may be a part of any word.
const MIN_CHARS: usize = 4;

/// Replaces all names that the audit has, in every member, by numbers.
pub(super) fn replace(members: &mut [Member]) {
    let mut names = BTreeSet::new();
    for line in
        members.iter().filter(|member| member.name == "audit.jsonl").flat_map(|member| member.text.lines())
    {
        let Ok(Value::Object(record)) = serde_json::from_str::<Value>(line) else { continue };
        let texts = FIELDS.iter().filter_map(|field| record.get(*field)?.as_str());
        names.extend(texts.filter(|text| text.len() >= MIN_CHARS).map(str::to_owned));
    }
    // Longer names first: one may begin with another.
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for member in members {
        for (number, name) in names.iter().enumerate() {
            if member.text.contains(name.as_str()) {
                member.text = member.text.replace(name.as_str(), &format!("person-{}", number + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_wherever_they_stand() {
        let member = |name, text: &str| Member { name, purpose: "", text: text.to_owned() };
        let mut members = [
            member(
                "audit.jsonl",
                "{\"event\":\"call\",\"user\":\"ada@contoso.com\",\"oid\":\"00aa-11\"}\n\
                 {\"event\":\"order\",\"operator\":\"ada@contoso.com.au\"}\n{broken",
            ),
            member("log.txt", "a login of ada@contoso.com (00aa-11) was refused"),
            member("settings.txt", "the token of ada@contoso.com.au"),
        ];
        replace(&mut members);
        let all: String = members.iter().map(|member| member.text.as_str()).collect();
        assert!(!all.contains("ada@") && !all.contains("00aa"), "{all}");
        assert!(!all.contains(".au"), "a name that begins with another is half replaced: {all}");
        for person in ["person-1", "person-2", "person-3"] {
            assert_eq!(all.matches(person).count(), 2, "{all}");
        }
    }
}
