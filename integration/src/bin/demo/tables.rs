//! What came of it: hosts, jobs, snapshots, repositories; and what to try next.

use crate::fleet::Fleet;
use crate::scenario::seconds;
use crate::screen::{Screen, bytes, table};
use fleet_integration::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// Prints the tables.
pub(crate) fn show(fleet: &Fleet, screen: &Screen) -> Result<(), Failure> {
    screen.heading("Hosts and their snapshots");
    let head = ["host", "status", "repository", "group", "snapshot", "taken (UTC)", "of"];
    print(screen, &table(&head, &snapshots(fleet)?, &[]));
    screen.heading("Jobs");
    print(screen, &table(&["kind", "jobs", "succeeded", "of them partial", "slowest"], &jobs(fleet)?, &[1, 2, 3, 4]));
    screen.heading("Repositories");
    let head = ["repository", "snapshots", "as restored", "stored", "last check", "locked"];
    print(screen, &table(&head, &repositories(fleet)?, &[1, 2, 3]));
    Ok(())
}

fn print(screen: &Screen, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        screen.line(&if index == 0 { screen.paint("2", line) } else { line.clone() });
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

fn snapshots(fleet: &Fleet) -> Result<Vec<Vec<String>>, Failure> {
    let mut rows = Vec::new();
    for host in &fleet.hosts {
        let status = text(&fleet.api.get(&format!("/v1/hosts/{}", host.id))?["status"]);
        for snapshot in fleet.api.list(&format!("/v1/hosts/{}/snapshots", host.id))? {
            rows.push(vec![
                host.name.to_owned(),
                status.clone(),
                fleet.repositories[host.repository].name.to_owned(),
                text(&snapshot["tags"][0]),
                text(&snapshot["short_id"]),
                text(&snapshot["time"]).chars().skip(11).take(8).collect(),
                shortened(&text(&snapshot["paths"][0]), 24),
            ]);
        }
    }
    Ok(rows)
}

/// The end of a long path, which is what tells it from others.
fn shortened(path: &str, width: usize) -> String {
    let length = path.chars().count();
    if length <= width {
        return path.to_owned();
    }
    format!("...{}", path.chars().skip(length + 3 - width).collect::<String>())
}

fn jobs(fleet: &Fleet) -> Result<Vec<Vec<String>>, Failure> {
    let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for job in fleet.api.list("/v1/jobs")? {
        kinds.entry(text(&job["kind"])).or_default().push(job);
    }
    let order = ["init", "backup", "forget", "prune", "check", "unlock"];
    let row = |kind: &str| {
        let jobs = kinds.get(kind)?;
        let number = |fits: &dyn Fn(&Value) -> bool| jobs.iter().filter(|job| fits(job)).count().to_string();
        let slowest = jobs.iter().map(seconds).max_by(|a, b| a.len().cmp(&b.len()).then(a.cmp(b)));
        Some(vec![
            kind.to_owned(),
            jobs.len().to_string(),
            number(&|job| job["status"] == "succeeded"),
            number(&|job| job["partial"] == true),
            slowest.unwrap_or_default(),
        ])
    };
    Ok(order.iter().filter_map(|kind| row(kind)).collect())
}

fn repositories(fleet: &Fleet) -> Result<Vec<Vec<String>>, Failure> {
    let size = |value: &Value| value.as_i64().map_or_else(|| "-".to_owned(), bytes);
    let row = |repository: &crate::fleet::Repository| {
        let stats = fleet.api.get(&format!("/v1/repositories/{}/stats", repository.id))?;
        let locked = match stats["lock_present"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        Ok(vec![
            repository.name.to_owned(),
            text(&stats["snapshot_count"]),
            size(&stats["total_size_bytes"]),
            size(&stats["raw_size_bytes"]),
            text(&stats["last_check_status"]),
            locked.to_owned(),
        ])
    };
    fleet.repositories.iter().map(row).collect()
}

/// Prints lines to try, while the fleet stays up.
pub(crate) fn suggest(fleet: &Fleet, screen: &Screen) {
    let host = fleet.hosts.last().map_or("", |host| host.id.as_str());
    screen.heading("It stays up until Ctrl-C. To try, in another terminal:");
    screen.line(&format!(
        "
  FLEET={url}
  AUTH='Authorization: Bearer {token}'
  HOST={host}

  curl -sH \"$AUTH\" $FLEET/v1/hosts
  curl -sH \"$AUTH\" $FLEET/v1/hosts/$HOST/snapshots
  curl -sH \"$AUTH\" \"$FLEET/v1/jobs?kind=backup\"
  curl -sH \"$AUTH\" -X POST $FLEET/v1/hosts/$HOST/jobs \\
       -H 'Content-Type: application/json' \\
       -d '{{\"kind\": \"backup\", \"source_group\": \"sparse\"}}'
  curl -sH \"$AUTH\" \"$FLEET/v1/jobs/ID?wait=60\"        # its id from the answer
  curl -sH \"$AUTH\" $FLEET/v1/jobs/ID/logs
  curl -s $FLEET/metrics                              # for Prometheus",
        url = fleet.coordinator.url(),
        token = fleet.coordinator.admin_token(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_end() {
        assert_eq!(shortened("/usr/share/doc", 24), "/usr/share/doc");
        assert_eq!(shortened("/tmp/fleet-demo.abc/odd names", 15), "...bc/odd names");
    }
}
