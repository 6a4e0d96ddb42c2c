//! What the coordinator writes.

use super::{raw, strings};
use fleet_wire::{
    Ack, AgentUpdateAvailable, Cap, CommandCancel, CommandRun, ConfigField, ConfigUpdate, ErrorMessage, ForgetGroup,
    ForgetLimit, Kind, RetentionPolicy, Schedule, ScheduleSet, ScheduledGroup, Secret, Slot, ToAgent,
};
use insta::assert_snapshot;

fn written(message: impl Into<ToAgent>) -> String {
    super::written::<ToAgent>(message)
}

fn policy() -> RetentionPolicy {
    RetentionPolicy {
        keep_last: Some(0),
        keep_hourly: Some(1),
        keep_daily: Some(7),
        keep_weekly: Some(4),
        keep_monthly: Some(12),
        keep_yearly: Some(3),
    }
}

#[test]
fn command_run() {
    let full = CommandRun {
        args: strings(&["5%"]),
        includes: strings(&["/etc"]),
        excludes: strings(&["*.tmp"]),
        tag: Some("etc".into()),
        forget_groups: vec![ForgetGroup { tag: "etc".into(), policy: policy(), host: Some("web-1".into()) }],
        dry_run: true,
        forget_limit: Some(ForgetLimit { snapshots: Some(20), share: Some(0.25) }),
        requires_admin_creds: true,
        bandwidth_up_kbps: Cap::KibPerSecond(512),
        bandwidth_down_kbps: Cap::Unlimited,
        pre_hook: Some("sync".into()),
        post_hook: Some("true".into()),
        ..CommandRun::new("job-1".into(), Kind::Forget)
    };
    assert_snapshot!(written(full), @r#"{"type":"command.run","payload":{"job_id":"job-1","kind":"forget","args":["5%"],"includes":["/etc"],"excludes":["*.tmp"],"tag":"etc","forget_groups":[{"tag":"etc","policy":{"keep_last":0,"keep_hourly":1,"keep_daily":7,"keep_weekly":4,"keep_monthly":12,"keep_yearly":3},"host":"web-1"}],"dry_run":true,"forget_limit":{"snapshots":20,"share":0.25},"requires_admin_creds":true,"bandwidth_up_kbps":512,"bandwidth_down_kbps":0,"pre_hook":"sync","post_hook":"true"},"id":"42"}"#);
    assert_snapshot!(written(CommandRun::new("job-1".into(), Kind::Init)), @r#"{"type":"command.run","payload":{"job_id":"job-1","kind":"init"},"id":"42"}"#);
    let empty = ForgetGroup { tag: "etc".into(), policy: RetentionPolicy::default(), host: None };
    let bare = CommandRun { forget_groups: vec![empty], ..CommandRun::new("job-1".into(), Kind::Forget) };
    assert_snapshot!(written(bare), @r#"{"type":"command.run","payload":{"job_id":"job-1","kind":"forget","forget_groups":[{"tag":"etc","policy":{}}]},"id":"42"}"#);
    let unlimited =
        CommandRun { forget_limit: Some(ForgetLimit::default()), ..CommandRun::new("j".into(), Kind::Forget) };
    assert_snapshot!(written(unlimited), @r#"{"type":"command.run","payload":{"job_id":"j","kind":"forget","forget_limit":{}},"id":"42"}"#);
}

#[test]
fn every_kind_has_its_word() {
    let words: Vec<String> = Kind::ALL.iter().map(|kind| written(CommandRun::new("j".into(), *kind))).collect();
    let expected = ["backup", "init", "forget", "prune", "check", "unlock"]
        .map(|kind| format!(r#"{{"type":"command.run","payload":{{"job_id":"j","kind":"{kind}"}},"id":"42"}}"#));
    assert_eq!(words, expected);
}

#[test]
fn command_cancel() {
    assert_snapshot!(written(CommandCancel { job_id: "job-1".into() }), @r#"{"type":"command.cancel","payload":{"job_id":"job-1"},"id":"42"}"#);
}

#[test]
fn config_update() {
    use ConfigField::{HookShell, RepoCredential, RepoPassword, RepoUrl, RepoUsername};
    let full = ConfigUpdate {
        repo_url: Some("rest:https://backup.example/web-1".into()),
        repo_password: Some(Secret::new("p")),
        repo_username: Some("web-1".into()),
        repo_credential: Some(Secret::new("c")),
        hook_shell: Some("/bin/sh".into()),
        slot: Some(Slot::Admin),
        bandwidth_up_kbps: Cap::Unlimited,
        bandwidth_down_kbps: Cap::KibPerSecond(1),
        clear: [RepoUrl, RepoPassword, RepoUsername, RepoCredential, HookShell].map(Into::into).to_vec(),
    };
    assert_snapshot!(written(full), @r#"{"type":"config.update","payload":{"repo_url":"rest:https://backup.example/web-1","repo_password":"p","repo_username":"web-1","repo_credential":"c","hook_shell":"/bin/sh","slot":"admin","bandwidth_up_kbps":0,"bandwidth_down_kbps":1,"clear":["repo_url","repo_password","repo_username","repo_credential","hook_shell"]},"id":"42"}"#);
    assert_snapshot!(written(ConfigUpdate::default()), @r#"{"type":"config.update","payload":{},"id":"42"}"#);
}

fn schedule() -> Schedule {
    Schedule {
        id: "s-1".into(),
        cron_expr: "0 2 * * *".into(),
        enabled: true,
        source_groups: vec![
            ScheduledGroup {
                name: "etc".into(),
                includes: strings(&["/etc"]),
                excludes: strings(&["*.tmp"]),
                retention_policy: raw(r#"{"keep_last": 3}"#),
                retry_max: Some(0),
                retry_backoff_seconds: Some(60),
                pre_hook: Some("sync".into()),
                post_hook: Some("true".into()),
            },
            bare_group(),
        ],
        timezone: Some("Europe/Zurich".into()),
        catch_up_seconds: Some(0),
        bandwidth_up_kbps: Cap::KibPerSecond(512),
        bandwidth_down_kbps: Cap::Unlimited,
    }
}

fn bare_group() -> ScheduledGroup {
    ScheduledGroup {
        name: "srv".into(),
        includes: Vec::new(),
        excludes: Vec::new(),
        retention_policy: None,
        retry_max: None,
        retry_backoff_seconds: None,
        pre_hook: None,
        post_hook: None,
    }
}

fn bare_schedule() -> Schedule {
    Schedule {
        id: "s-2".into(),
        cron_expr: String::new(),
        enabled: false,
        source_groups: Vec::new(),
        timezone: None,
        catch_up_seconds: None,
        bandwidth_up_kbps: Cap::Unchanged,
        bandwidth_down_kbps: Cap::Unchanged,
    }
}

#[test]
fn schedule_set() {
    let full = ScheduleSet { version: 9, schedules: vec![schedule(), bare_schedule()] };
    assert_snapshot!(written(full), @r#"{"type":"schedule.set","payload":{"version":9,"schedules":[{"id":"s-1","cron_expr":"0 2 * * *","enabled":true,"source_groups":[{"name":"etc","includes":["/etc"],"excludes":["*.tmp"],"retention_policy":{"keep_last": 3},"retry_max":0,"retry_backoff_seconds":60,"pre_hook":"sync","post_hook":"true"},{"name":"srv"}],"timezone":"Europe/Zurich","catch_up_seconds":0,"bandwidth_up_kbps":512,"bandwidth_down_kbps":0},{"id":"s-2","cron_expr":"","enabled":false}]},"id":"42"}"#);
    assert_snapshot!(written(ScheduleSet::default()), @r#"{"type":"schedule.set","payload":{"version":0,"schedules":[]},"id":"42"}"#);
}

#[test]
fn agent_update_available() {
    let full = AgentUpdateAvailable {
        latest_version: "0.2.0".into(),
        package_url: "https://fleet.example/agent".into(),
        changelog: Some("Faster.".into()),
    };
    assert_snapshot!(written(full), @r#"{"type":"agent.update.available","payload":{"latest_version":"0.2.0","package_url":"https://fleet.example/agent","changelog":"Faster."},"id":"42"}"#);
    assert_snapshot!(written(AgentUpdateAvailable::default()), @r#"{"type":"agent.update.available","payload":{"latest_version":"","package_url":""},"id":"42"}"#);
}

#[test]
fn ack() {
    assert_snapshot!(written(Ack { up_to: 17.into() }), @r#"{"type":"ack","payload":{"up_to":"17"},"id":"42"}"#);
}

#[test]
fn error() {
    assert_snapshot!(written(ErrorMessage::new("unknown_job", "no job of that id")), @r#"{"type":"error","payload":{"code":"unknown_job","message":"no job of that id"},"id":"42"}"#);
    assert_snapshot!(written(ErrorMessage::default()), @r#"{"type":"error","payload":{"code":"","message":""},"id":"42"}"#);
}
