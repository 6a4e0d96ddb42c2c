//! What agents write.

use super::{instant, raw, strings};
use fleet_wire::{
    Arch, CommandResult, ErrorMessage, Heartbeat, Hello, JobFinished, JobProgress, JobStarted, Kind, LogLine,
    LogStream, Os, RepoStats, ScheduleAck, ScheduleFire, Snapshot, SnapshotsReport, Status, ToCoordinator,
};
use insta::assert_snapshot;

fn written(message: impl Into<ToCoordinator>) -> String {
    super::written::<ToCoordinator>(message)
}

#[test]
fn hello() {
    let full = Hello {
        protocol_version: 1,
        agent_version: "0.1.0".into(),
        restic_version: "0.18.0".into(),
        hostname: "web-1".into(),
        os: Os::Linux.into(),
        arch: Arch::Amd64.into(),
        boot_time: instant(),
        capabilities: strings(&["ack"]),
        journal: Some("j-1".into()),
        jobs: strings(&["job-1", "job-2"]),
    };
    assert_snapshot!(written(full), @r#"{"type":"hello","payload":{"protocol_version":1,"agent_version":"0.1.0","restic_version":"0.18.0","hostname":"web-1","os":"linux","arch":"amd64","boot_time":"2026-03-01T02:00:00.123456789Z","capabilities":["ack"],"journal":"j-1","jobs":["job-1","job-2"]},"id":"42"}"#);
    let bare = Hello { os: Os::Windows.into(), arch: Arch::Arm64.into(), ..Hello::default() };
    assert_snapshot!(written(bare), @r#"{"type":"hello","payload":{"protocol_version":0,"agent_version":"","restic_version":"","hostname":"","os":"windows","arch":"arm64"},"id":"42"}"#);
}

#[test]
fn heartbeat() {
    assert_snapshot!(written(Heartbeat { sent_at: instant() }), @r#"{"type":"heartbeat","payload":{"sent_at":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
    assert_snapshot!(written(Heartbeat::default()), @r#"{"type":"heartbeat","payload":{"sent_at":"0001-01-01T00:00:00Z"},"id":"42"}"#);
}

#[test]
fn command_result() {
    let refused = CommandResult { job_id: "job-1".into(), accepted: false, error: Some("no restic".into()) };
    assert_snapshot!(written(refused), @r#"{"type":"command.result","payload":{"job_id":"job-1","accepted":false,"error":"no restic"},"id":"42"}"#);
    let accepted = CommandResult { job_id: "job-1".into(), accepted: true, error: None };
    assert_snapshot!(written(accepted), @r#"{"type":"command.result","payload":{"job_id":"job-1","accepted":true},"id":"42"}"#);
}

#[test]
fn job_started() {
    let full = JobStarted { job_id: "job-1".into(), kind: Kind::Backup.into(), started_at: instant() };
    assert_snapshot!(written(full), @r#"{"type":"job.started","payload":{"job_id":"job-1","kind":"backup","started_at":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
    let bare = JobStarted { job_id: "job-1".into(), kind: Kind::Unlock.into(), started_at: None };
    assert_snapshot!(written(bare), @r#"{"type":"job.started","payload":{"job_id":"job-1","kind":"unlock","started_at":"0001-01-01T00:00:00Z"},"id":"42"}"#);
}

#[test]
fn job_progress() {
    let full = JobProgress {
        job_id: "job-1".into(),
        percent_done: 0.25,
        files_done: 5,
        total_files: 20,
        bytes_done: 1024,
        total_bytes: 4096,
        eta_seconds: 3,
        throughput_bps: 1_000_000,
    };
    assert_snapshot!(written(full.clone()), @r#"{"type":"job.progress","payload":{"job_id":"job-1","percent_done":0.25,"files_done":5,"total_files":20,"bytes_done":1024,"total_bytes":4096,"eta_seconds":3,"throughput_bps":1000000},"id":"42"}"#);
    let bare = JobProgress {
        percent_done: 0.0,
        files_done: 0,
        total_files: 0,
        bytes_done: 0,
        total_bytes: 0,
        eta_seconds: 0,
        throughput_bps: 0,
        ..full
    };
    assert_snapshot!(written(bare), @r#"{"type":"job.progress","payload":{"job_id":"job-1","percent_done":0.0,"files_done":0,"total_files":0,"bytes_done":0,"total_bytes":0,"eta_seconds":0,"throughput_bps":0},"id":"42"}"#);
}

#[test]
fn job_finished() {
    let full = JobFinished {
        job_id: "job-1".into(),
        status: Status::Failed,
        exit_code: 3,
        finished_at: instant(),
        stats: raw(r#"{"files_new": 1, "total_duration":0.50, "files_new":2}"#),
        error: Some("2 files could not be read".into()),
    };
    // The summary keeps its spaces, its `0.50` and even its repeated key.
    assert_snapshot!(written(full), @r#"{"type":"job.finished","payload":{"job_id":"job-1","status":"failed","exit_code":3,"finished_at":"2026-03-01T02:00:00.123456789Z","stats":{"files_new": 1, "total_duration":0.50, "files_new":2},"error":"2 files could not be read"},"id":"42"}"#);
    let bare = JobFinished {
        job_id: "job-1".into(),
        status: Status::Cancelled,
        exit_code: 0,
        finished_at: None,
        stats: None,
        error: None,
    };
    assert_snapshot!(written(bare), @r#"{"type":"job.finished","payload":{"job_id":"job-1","status":"cancelled","exit_code":0,"finished_at":"0001-01-01T00:00:00Z"},"id":"42"}"#);
}

#[test]
fn log_stream() {
    let full = LogLine {
        job_id: "job-1".into(),
        seq: 7,
        ts: instant(),
        stream: LogStream::Stderr,
        payload: "über \u{0}\u{1f600}\t\"q\"".into(),
    };
    assert_snapshot!(written(full), @r#"{"type":"log.stream","payload":{"job_id":"job-1","seq":7,"ts":"2026-03-01T02:00:00.123456789Z","stream":"stderr","payload":"über \u0000😀\t\"q\""},"id":"42"}"#);
    let bare = LogLine { job_id: "job-1".into(), seq: 0, ts: None, stream: LogStream::Event, payload: String::new() };
    assert_snapshot!(written(bare), @r#"{"type":"log.stream","payload":{"job_id":"job-1","seq":0,"ts":"0001-01-01T00:00:00Z","stream":"event","payload":""},"id":"42"}"#);
}

#[test]
fn snapshots_report() {
    let full = Snapshot {
        id: "0123abcd".into(),
        short_id: "0123".into(),
        time: instant(),
        hostname: "web-1".into(),
        paths: strings(&["/etc", "/srv"]),
        tags: strings(&["etc"]),
        size_bytes: Some(0),
        file_count: Some(12),
    };
    let report = SnapshotsReport { snapshots: vec![full, Snapshot::default()], as_of: instant() };
    assert_snapshot!(written(report), @r#"{"type":"snapshots.report","payload":{"snapshots":[{"id":"0123abcd","short_id":"0123","time":"2026-03-01T02:00:00.123456789Z","hostname":"web-1","paths":["/etc","/srv"],"tags":["etc"],"size_bytes":0,"file_count":12},{"id":"","short_id":"","time":"0001-01-01T00:00:00Z","hostname":"","paths":[]}],"as_of":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
    assert_snapshot!(written(SnapshotsReport::default()), @r#"{"type":"snapshots.report","payload":{"snapshots":[]},"id":"42"}"#);
}

#[test]
fn repo_stats() {
    let full = RepoStats {
        total_size_bytes: Some(0),
        raw_size_bytes: Some(5),
        unique_files: Some(6),
        snapshot_count: Some(7),
        last_check_at: instant(),
        last_check_status: Some("ok".into()),
        lock_present: Some(false),
        last_prune_at: instant(),
        last_prune_freed_bytes: Some(0),
        as_of: instant(),
    };
    assert_snapshot!(written(full), @r#"{"type":"repo.stats","payload":{"total_size_bytes":0,"raw_size_bytes":5,"unique_files":6,"snapshot_count":7,"last_check_at":"2026-03-01T02:00:00.123456789Z","last_check_status":"ok","lock_present":false,"last_prune_at":"2026-03-01T02:00:00.123456789Z","last_prune_freed_bytes":0,"as_of":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
    assert_snapshot!(written(RepoStats::default()), @r#"{"type":"repo.stats","payload":{},"id":"42"}"#);
}

#[test]
fn schedule_ack() {
    assert_snapshot!(written(ScheduleAck { version: 9, applied_at: instant() }), @r#"{"type":"schedule.ack","payload":{"version":9,"applied_at":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
    assert_snapshot!(written(ScheduleAck { version: 0, applied_at: None }), @r#"{"type":"schedule.ack","payload":{"version":0,"applied_at":"0001-01-01T00:00:00Z"},"id":"42"}"#);
}

#[test]
fn schedule_fire() {
    let full = ScheduleFire {
        schedule_id: "s-1".into(),
        scheduled_at: instant().expect("an instant"),
        job_ids: strings(&["job-1", "job-2"]),
        source_groups: strings(&["etc", "srv"]),
    };
    assert_snapshot!(written(full.clone()), @r#"{"type":"schedule.fire","payload":{"schedule_id":"s-1","scheduled_at":"2026-03-01T02:00:00.123456789Z","job_ids":["job-1","job-2"],"source_groups":["etc","srv"]},"id":"42"}"#);
    assert_snapshot!(written(ScheduleFire { job_ids: Vec::new(), source_groups: Vec::new(), ..full }), @r#"{"type":"schedule.fire","payload":{"schedule_id":"s-1","scheduled_at":"2026-03-01T02:00:00.123456789Z"},"id":"42"}"#);
}

#[test]
fn error() {
    assert_snapshot!(written(ErrorMessage::new("bad_slot", "no such slot")), @r#"{"type":"error","payload":{"code":"bad_slot","message":"no such slot"},"id":"42"}"#);
    assert_snapshot!(written(ErrorMessage::default()), @r#"{"type":"error","payload":{"code":"","message":""},"id":"42"}"#);
}
