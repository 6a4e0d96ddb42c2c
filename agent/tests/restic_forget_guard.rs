//! What keeps a forget from deleting too much.

mod restic_support;

use fleet_wire::{CommandRun, ForgetGroup, ForgetLimit, Kind, RetentionPolicy, Status};
use restic_support::{Ran, Sandbox, restics};
use serde_json::Value;
use std::path::Path;

fn keep_last(host: Option<&str>, keep_last: i64) -> ForgetGroup {
    let policy = RetentionPolicy { keep_last: Some(keep_last), ..RetentionPolicy::default() };
    ForgetGroup { tag: "docs".into(), policy, host: host.map(str::to_owned) }
}

/// A repository with so many snapshots of each host in the group `docs`.
fn with_snapshots(restic: &Path, hosts: &[(&str, usize)]) -> Sandbox {
    let sandbox = Sandbox::with_repository(restic);
    let file = sandbox.write("source/file", "x");
    for (host, count) in hosts {
        for _ in 0..*count {
            sandbox.restic_says(&["backup", "-q", "--tag=docs", &format!("--host={host}"), &file]);
        }
    }
    sandbox
}

fn forget(sandbox: &Sandbox, group: ForgetGroup) -> CommandRun {
    CommandRun { forget_groups: vec![group], ..sandbox.job(Kind::Forget) }
}

/// The ids of a host's snapshots, the oldest first.
fn ids(sandbox: &Sandbox, host: &str) -> Vec<String> {
    let printed = sandbox.restic_says(&["snapshots", "--json", "--no-lock", &format!("--host={host}")]);
    let list: Vec<Value> = serde_json::from_str(&printed).unwrap();
    list.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn stats(ran: &Ran) -> Value {
    serde_json::from_str(ran.outcome.stats.as_ref().expect("stats").as_str()).unwrap()
}

/// The ids that would go of the only group.
fn would_go(stats: &Value) -> Vec<String> {
    let removed = stats["groups"][0]["results"][0]["remove"].as_array().into_iter().flatten();
    let mut ids: Vec<_> = removed.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_deletes_nothing() {
    for restic in restics() {
        let sandbox = with_snapshots(&restic, &[("h1", 3)]);
        let before = ids(&sandbox, "h1");
        let run = CommandRun { dry_run: true, ..forget(&sandbox, keep_last(None, 1)) };
        let ran = sandbox.run(run).await;
        let stats = stats(ran.assert(Status::Succeeded, 0));
        assert_eq!((&stats["dry_run"], &stats["kept"], &stats["removed"]), (&true.into(), &1.into(), &2.into()));
        let mut older = before[..2].to_vec();
        older.sort();
        assert_eq!(would_go(&stats), older);
        assert_eq!(ids(&sandbox, "h1"), before);
        assert!(ran.snapshots.is_empty());
    }
}

#[tokio::test]
async fn a_forget_over_its_limit_deletes_nothing_and_one_within_it_does() {
    for restic in restics() {
        let sandbox = with_snapshots(&restic, &[("h1", 4)]);
        let before = ids(&sandbox, "h1");
        let limited = |snapshots, share| CommandRun {
            forget_limit: Some(ForgetLimit { snapshots, share }),
            ..forget(&sandbox, keep_last(None, 2))
        };
        for (run, because) in [
            (limited(Some(1), None), "2 of 4 snapshots would go, at most 1 may"),
            (limited(Some(9), Some(0.4)), "2 of 4 snapshots would go (50.0 %), at most 40.0 % may"),
        ] {
            let ran = sandbox.run(run).await;
            ran.assert(Status::Failed, -1);
            assert!(ran.error().starts_with(&format!("nothing was deleted: {because}")), "{}", ran.error());
            assert_eq!(would_go(&stats(&ran)).len(), 2);
            assert_eq!(ids(&sandbox, "h1"), before);
        }
        let ran = sandbox.run(limited(Some(2), Some(0.5))).await;
        ran.assert(Status::Succeeded, 0);
        assert_eq!(ids(&sandbox, "h1"), before[2..]);
        assert_eq!(ran.snapshots[0].snapshots.len(), 2);
    }
}

#[tokio::test]
async fn a_forget_judges_the_snapshots_of_the_host_that_it_names() {
    for restic in restics() {
        let sandbox = with_snapshots(&restic, &[("h1", 3), ("h2", 3), ("h3", 2)]);
        let (own, third) = (ids(&sandbox, "h1"), ids(&sandbox, "h3"));
        let run = CommandRun {
            forget_groups: vec![keep_last(Some("h2"), 1), keep_last(Some("nobody"), 1)],
            forget_limit: Some(ForgetLimit { snapshots: Some(2), share: Some(0.7) }),
            ..sandbox.job(Kind::Forget)
        };
        let ran = sandbox.run(run).await;
        ran.assert(Status::Succeeded, 0);
        assert_eq!((ids(&sandbox, "h2").len(), ids(&sandbox, "h1"), ids(&sandbox, "h3")), (1, own, third));
        // The agent reports its own host's list only.
        let reported = &ran.snapshots[0].snapshots;
        assert!(reported.len() == 3 && reported.iter().all(|snapshot| snapshot.hostname == "h1"), "{reported:?}");
    }
}

#[tokio::test]
async fn whatever_rule_stands_alone_the_newest_snapshot_stays() {
    for restic in restics() {
        let sandbox = with_snapshots(&restic, &[("h1", 3)]);
        let newest = ids(&sandbox, "h1").pop().unwrap();
        for rule in ["keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"] {
            let policy: RetentionPolicy = serde_json::from_str(&format!(r#"{{"{rule}":1}}"#)).unwrap();
            let group = ForgetGroup { tag: "docs".into(), policy, host: None };
            let run = CommandRun { dry_run: true, ..forget(&sandbox, group) };
            let stats = stats(sandbox.run(run).await.assert(Status::Succeeded, 0));
            assert!(stats["removed"].as_i64() >= Some(1) && !would_go(&stats).contains(&newest), "{rule}: {stats}");
        }
    }
}
