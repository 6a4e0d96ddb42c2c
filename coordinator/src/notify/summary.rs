//! What people read of a notice. Pure.

use crate::db::deliveries::Due;
use serde_json::Value;

/// The longest line, in characters.
const LONGEST: usize = 300;
/// How many are listed in one mail.
const LISTED: usize = 100;

/// The subject of a mail about all of these.
pub(super) fn subject(shipment: &[Due]) -> String {
    let [only] = shipment else {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for due in shipment {
            match counts.iter_mut().find(|(event, _)| *event == due.event) {
                Some((_, count)) => *count += 1,
                None => counts.push((due.event.as_str(), 1)),
            }
        }
        let counts: Vec<String> = counts.iter().map(|(event, count)| format!("{count} {event}")).collect();
        return format!("[restic-fleet] {}", counts.join(", "));
    };
    format!("[restic-fleet] {}", line(only))
}

/// Its text.
pub(super) fn text(shipment: &[Due]) -> String {
    let mut text = String::new();
    for due in shipment.iter().take(LISTED) {
        let at = due.at.format("%Y-%m-%d %H:%M:%S UTC");
        text.push_str(&format!("{at}  {}\n    notification {}\n", line(due), due.notice_id));
    }
    if shipment.len() > LISTED {
        text.push_str(&format!("\nand {} more: the channel's deliveries have all of them\n", shipment.len() - LISTED));
    }
    text
}

/// One notice in one line: what, where, why.
fn line(due: &Due) -> String {
    let data = &due.data.0;
    let word = |path: &str| data.pointer(path).and_then(Value::as_str).filter(|word| !word.is_empty());
    let place = word("/host/hostname").or(word("/repository/name")).or(word("/channel/name"));
    let mut line = due.event.clone();
    let mut add = |before: &str, part: Option<&str>| {
        if let Some(part) = part {
            line.push_str(before);
            line.push_str(part);
        }
    };
    add(": ", place);
    add(" ", word("/job/kind").or(word("/kind")));
    add(" of ", word("/job/source_group").or(word("/source_group")));
    add(" since ", word("/since"));
    add(": ", word("/job/error").or(word("/problems/0/detail")));
    if let Some(id) = word("/job/id") {
        add(" (job ", Some(id));
        add(")", Some(""));
    }
    // What agents and restic say may hold anything.
    let line: String = line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::Json;
    use serde_json::json;
    use uuid::Uuid;

    fn due(event: &str, data: Value) -> Due {
        Due {
            event: event.to_owned(),
            data: Json(data),
            ..Due::sample(Uuid::from_u128(1), Uuid::from_u128(2), "email")
        }
    }

    #[test]
    fn a_line_says_what_and_where_and_why_and_stays_a_line() {
        let failed = json!({"host": {"hostname": "web-1"},
            "job": {"id": "7", "kind": "backup", "source_group": "docs", "error": "no space\r\nBcc: x"}});
        assert_eq!(line(&due("job.failed", failed)), "job.failed: web-1 backup of docs: no space  Bcc: x (job 7)");
        let overdue = json!({"repository": {"name": "main"}, "kind": "prune", "since": "2026-01-01T00:00:00Z"});
        assert_eq!(
            line(&due("maintenance.overdue", overdue)),
            "maintenance.overdue: main prune since 2026-01-01T00:00:00Z"
        );
        let long = json!({"job": {"error": "ä".repeat(1000)}});
        assert_eq!(line(&due("job.failed", long)).chars().count(), LONGEST + 1);
        assert_eq!(line(&due("test", json!([]))), "test");
    }

    #[test]
    fn many_are_summed_up() {
        let lost = |name: usize| due("agent.lost", json!({"host": {"hostname": format!("web-{name}")}}));
        let many: Vec<Due> = (0..500).map(lost).chain([due("job.failed", json!({}))]).collect();
        assert_eq!(subject(&many), "[restic-fleet] 500 agent.lost, 1 job.failed");
        assert_eq!(subject(&many[..1]), "[restic-fleet] agent.lost: web-0");
        let text = text(&many);
        assert!(text.contains("web-99") && !text.contains("web-100") && text.contains("and 401 more"), "{text}");
    }
}
