//! The forms of an event for chats, whose texts show names that others chose: markup in them must
//! stay text.

use serde_json::{Value, json};

use super::{Event, EventState};

impl Event {
    /// Returns the event as a message of Slack's incoming webhooks.
    pub(in crate::alerts) fn to_slack(&self) -> Vec<u8> {
        let mut text = format!("*{}* {}", self.state.as_str(), escape_slack(&self.summary));
        for line in self.further_lines() {
            text += &format!("\n{}", escape_slack(&line));
        }
        encode(&json!({ "text": text }))
    }

    /// Returns the event as an Adaptive Card, as the workflow "Send webhook alerts to a channel" of
    /// Teams takes it. All texts are text runs, in which nothing is markup (a text block would read
    /// Markdown).
    pub(in crate::alerts) fn to_teams(&self) -> Vec<u8> {
        let color = match self.state {
            EventState::Raised => "Attention",
            EventState::Resolved => "Good",
        };
        let head = [
            json!({ "type": "TextRun", "text": self.state.as_str(), "weight": "Bolder", "color": color }),
            text_run(&format!(" {}", self.summary)),
        ];
        let further = self.further_lines().into_iter().map(|line| text_block(&[text_run(&line)]));
        let body: Vec<Value> = [text_block(&head)].into_iter().chain(further).collect();
        let card = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.2",
            "msteams": { "width": "Full" },
            "body": body,
        });
        let attachment = json!({
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": card,
        });
        encode(&json!({ "type": "message", "attachments": [attachment] }))
    }

    /// Returns the lines below the first.
    fn further_lines(&self) -> Vec<String> {
        let action = (self.state == EventState::Raised).then(|| format!("What to do: {}", self.action));
        let node = self.node.as_ref().map(|node| format!(" ({node})")).unwrap_or_default();
        let place = format!("{} on {}{node}", self.kind, self.gateway);
        let missed = (self.missed > 0)
            .then(|| format!("{} more came and went while this webhook did not answer", self.missed));
        action.into_iter().chain([place]).chain(missed).collect()
    }
}

fn text_block(inlines: &[Value]) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

fn text_run(text: &str) -> Value {
    json!({ "type": "TextRun", "text": text })
}

fn encode(message: &Value) -> Vec<u8> {
    serde_json::to_vec(message).expect("a message is plain data")
}

/// Slack reads three characters as markup.
fn escape_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::alerts::condition::{Condition, ConditionKey, Subject};
    use crate::alerts::event::EventContext;
    use crate::spec::AlertKind;

    const HOSTILE: &str = "<!channel> & <http://evil.example|x> [log in](http://evil.example) **x** <at>all</at> \
                           {{DATE(2026-11-27T00:00:00Z)}} \"},{\"type\":\"Action.OpenUrl\"";

    fn event(missed: u64) -> Event {
        let key = ConditionKey { kind: AlertKind::TenantRejected, id: "x".to_owned() };
        let condition = Condition::new(Subject::tenant(HOSTILE), HOSTILE, HOSTILE);
        let gateway = "https://mcp.example.com".to_owned();
        let context = EventContext { at: Timestamp::UNIX_EPOCH, gateway, node: None, missed };
        Event::raised(AlertKind::TenantRejected, &[(&key, &condition)], context)
    }

    fn parse(body: Vec<u8>) -> Value {
        serde_json::from_slice(&body).expect("JSON")
    }

    #[test]
    fn markup_in_a_name_is_text_in_slack() {
        let message = parse(event(0).to_slack());
        let text = message["text"].as_str().expect("a text");
        assert!(text.contains("&lt;!channel&gt; &amp; &lt;http"), "{text}");
        assert!(!text.contains('<') && !text.contains('>'), "{text}");
    }

    #[test]
    fn markup_in_a_name_is_text_in_teams() {
        let message = parse(event(2).to_teams());
        let card = &message["attachments"][0]["content"];
        assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.2".into()));
        let blocks = card["body"].as_array().expect("blocks");
        // Only text runs: every other element reads markup, or does something.
        let runs: Vec<&Value> = blocks
            .iter()
            .flat_map(|block| {
                assert_eq!(block["type"], "RichTextBlock", "{block}");
                block["inlines"].as_array().expect("inlines")
            })
            .collect();
        assert!(runs.iter().all(|run| run["type"] == "TextRun" && run.get("selectAction").is_none()));
        let texts: Vec<&str> = runs.iter().map(|run| run["text"].as_str().expect("a text")).collect();
        assert_eq!(texts[0], "raised");
        assert_eq!(texts[1..3], [format!(" {HOSTILE}"), format!("What to do: {HOSTILE}")]);
        assert!(texts[3].starts_with("tenant-rejected on https://") && texts[4].starts_with("2 more"));
        assert!(card.get("actions").is_none());
    }
}
