//! What peers that others wrote send, Go's habits first of all, and what is said about what can't be read.

use fleet_wire::{
    Cap, CommandRun, ConfigUpdate, DecodeError, Decoded, Hello, JobFinished, JobProgress, LogLine, MaybeKnown, Message,
    Os, RepoStats, RetentionPolicy, ScheduleFire, ScheduleSet, Slot, SnapshotsReport, Timestamp, ToAgent,
    ToCoordinator, decode,
};

fn read<M: Message>(type_name: &str, payload: &str) -> M {
    let text = format!(r#"{{"type":"{type_name}","payload":{payload}}}"#);
    match decode(&text) {
        Ok(Decoded::Known { message, .. }) => message,
        Ok(Decoded::Unknown { type_name, .. }) => panic!("{type_name} is unknown"),
        Err(error) => panic!("{error}: {text}"),
    }
}

/// The payload of a message that must be of the variant named.
macro_rules! read {
    ($direction:ident::$variant:ident, $type_name:literal, $payload:expr) => {
        match read::<$direction>($type_name, $payload) {
            $direction::$variant(payload) => payload,
            other => panic!("{} was read as {other:?}", $type_name),
        }
    };
}

fn hello(payload: &str) -> Hello {
    read!(ToCoordinator::Hello, "hello", payload)
}

fn config(payload: &str) -> ConfigUpdate {
    read!(ToAgent::ConfigUpdate, "config.update", payload)
}

fn run(payload: &str) -> CommandRun {
    read!(ToAgent::CommandRun, "command.run", payload)
}

fn stats(payload: &str) -> RepoStats {
    read!(ToCoordinator::RepoStats, "repo.stats", payload)
}

fn progress(payload: &str) -> JobProgress {
    read!(ToCoordinator::JobProgress, "job.progress", payload)
}

fn error<M: Message + std::fmt::Debug>(text: &str) -> DecodeError {
    match decode::<M>(text) {
        Ok(read) => panic!("{text} was read as {read:?}"),
        Err(error) => error,
    }
}

#[test]
fn a_null_list_is_an_empty_one() {
    let report: SnapshotsReport = read!(ToCoordinator::SnapshotsReport, "snapshots.report", r#"{"snapshots":null}"#);
    assert_eq!(report.snapshots, []);
    let one = r#"{"snapshots":[{"id":"a","paths":null,"tags":null}]}"#;
    let report = read!(ToCoordinator::SnapshotsReport, "snapshots.report", one);
    assert!(report.snapshots[0].paths.is_empty() && report.snapshots[0].tags.is_empty());
    let set: ScheduleSet = read!(ToAgent::ScheduleSet, "schedule.set", r#"{"version":3,"schedules":null}"#);
    assert_eq!((set.version, set.schedules), (3, Vec::new()));
    let one = r#"{"version":3,"schedules":[{"id":"s","cron_expr":"* * * * *","source_groups":null}]}"#;
    let set = read!(ToAgent::ScheduleSet, "schedule.set", one);
    assert!(set.schedules[0].source_groups.is_empty() && !set.schedules[0].enabled);
    let nulls = r#"{"job_id":"j","kind":"backup","args":null,"includes":null,"excludes":null,"forget_groups":null,
                    "tag":null,"requires_admin_creds":null,"dry_run":null,"forget_limit":null,"bandwidth_up_kbps":null,"pre_hook":null}"#;
    assert_eq!(run(nulls), CommandRun::new("j".into(), fleet_wire::Kind::Backup));
    let hello = hello(r#"{"protocol_version":1,"capabilities":null,"jobs":null,"journal":null}"#);
    assert!(hello.capabilities.is_empty() && hello.jobs.is_empty() && hello.journal.is_none());
}

#[test]
fn what_a_go_peer_leaves_out_is_empty_or_false() {
    let bare = hello(r#"{"protocol_version":1}"#);
    assert_eq!(bare, Hello { protocol_version: 1, ..Hello::default() });
    assert_eq!(bare.os, MaybeKnown::Unknown(String::new()));
    let refused = read!(ToCoordinator::CommandResult, "command.result", r#"{"job_id":"j"}"#);
    assert!(!refused.accepted && refused.error.is_none());
    let finished: JobFinished =
        read!(ToCoordinator::JobFinished, "job.finished", r#"{"job_id":"j","status":"succeeded","stats":null}"#);
    assert_eq!((finished.exit_code, finished.stats, finished.error), (0, None, None));
    let line: LogLine = read!(ToCoordinator::LogLine, "log.stream", r#"{"job_id":"j","seq":0,"stream":"stdout"}"#);
    assert_eq!((line.payload.as_str(), line.ts), ("", None));
}

#[test]
fn an_empty_optional_string_is_absent() {
    let update = config(
        r#"{"repo_url":"","repo_password":"","repo_username":"","repo_credential":"","hook_shell":"","slot":""}"#,
    );
    assert_eq!(update, ConfigUpdate::default());
    assert_eq!(update.target(), Slot::Repo);
    assert_eq!(config(r#"{"slot":"repo"}"#).target(), Slot::Repo);
    assert_eq!(config(r#"{"slot":"admin"}"#).target(), Slot::Admin);
    let plain = run(r#"{"job_id":"j","kind":"backup","tag":"","pre_hook":"","post_hook":""}"#);
    assert_eq!((plain.tag, plain.pre_hook, plain.post_hook), (None, None, None));
    assert_eq!(stats(r#"{"last_check_status":""}"#), RepoStats::default());
}

#[test]
fn the_zero_time_is_no_time() {
    let zeros =
        ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00.000Z", "0001-01-01T01:00:00+01:00"];
    for zero in zeros {
        let payload = format!(r#"{{"protocol_version":1,"boot_time":"{zero}"}}"#);
        assert_eq!(hello(&payload).boot_time, None, "{zero}");
        assert_eq!(stats(&format!(r#"{{"last_check_at":"{zero}","last_prune_at":"{zero}"}}"#)), RepoStats::default());
    }
    assert_eq!(hello(r#"{"protocol_version":1,"boot_time":null}"#).boot_time, None);
    assert_eq!(hello(r#"{"protocol_version":1,"boot_time":""}"#).boot_time, None);
    let near = hello(r#"{"protocol_version":1,"boot_time":"0001-01-01T00:00:00.000000001Z"}"#);
    assert!(near.boot_time.is_some(), "a nanosecond later is a time");
}

#[test]
fn times_come_with_nanoseconds_and_any_offset() {
    let expected: Timestamp = "2026-03-01T02:00:00.123456789Z".parse().expect("a time");
    for time in [
        "2026-03-01T02:00:00.123456789Z",
        "2026-03-01T07:30:00.123456789+05:30",
        "2026-02-28T14:00:00.123456789-12:00",
        "2026-03-01t02:00:00.123456789z",
    ] {
        let fire: ScheduleFire = read!(
            ToCoordinator::ScheduleFire,
            "schedule.fire",
            &format!(r#"{{"schedule_id":"s","scheduled_at":"{time}"}}"#)
        );
        assert_eq!(fire.scheduled_at, expected, "{time}");
        assert!(fire.job_ids.is_empty() && fire.source_groups.is_empty());
    }
}

#[test]
fn a_present_zero_is_news_and_an_absent_one_is_not() {
    let zeros = stats(
        r#"{"total_size_bytes":0,"raw_size_bytes":0,"unique_files":0,"snapshot_count":0,"lock_present":false,
            "last_prune_freed_bytes":0}"#,
    );
    let expected = RepoStats {
        total_size_bytes: Some(0),
        raw_size_bytes: Some(0),
        unique_files: Some(0),
        snapshot_count: Some(0),
        lock_present: Some(false),
        last_prune_freed_bytes: Some(0),
        ..RepoStats::default()
    };
    assert_eq!(zeros, expected);
    assert_eq!(stats("{}"), RepoStats::default());
    assert_eq!(stats(r#"{"lock_present":null,"snapshot_count":null}"#), RepoStats::default());
}

#[test]
fn a_cap_is_absent_cleared_or_set() {
    let caps = |payload: &str| {
        let update = config(payload);
        (update.bandwidth_up_kbps, update.bandwidth_down_kbps)
    };
    assert_eq!(caps("{}"), (Cap::Unchanged, Cap::Unchanged));
    assert_eq!(caps(r#"{"bandwidth_up_kbps":0,"bandwidth_down_kbps":-1}"#), (Cap::Unlimited, Cap::Unlimited));
    assert_eq!(
        caps(r#"{"bandwidth_up_kbps":512,"bandwidth_down_kbps":null}"#),
        (Cap::KibPerSecond(512), Cap::Unchanged)
    );
    let job = run(r#"{"job_id":"j","kind":"backup","bandwidth_up_kbps":0}"#);
    assert_eq!((job.bandwidth_up_kbps.over(Some(100)), job.bandwidth_down_kbps.over(Some(100))), (None, Some(100)));
}

#[test]
fn numbers_reach_to_the_ends_of_64_bits() {
    let payload = format!(
        r#"{{"job_id":"j","percent_done":1,"files_done":{},"total_files":{},"bytes_done":9007199254740993}}"#,
        i64::MAX,
        i64::MIN
    );
    let extreme = progress(&payload);
    assert_eq!((extreme.files_done, extreme.total_files), (i64::MAX, i64::MIN));
    assert_eq!(extreme.bytes_done, 9_007_199_254_740_993, "not rounded as a float would be");
    let beyond = r#"{"type":"job.progress","payload":{"job_id":"j","files_done":9223372036854775808}}"#;
    assert!(error::<ToCoordinator>(beyond).to_string().starts_with("malformed job.progress: "));
}

#[test]
fn percent_done_may_be_written_as_a_whole_number() {
    for (written, value) in [("0", 0.0), ("1", 1.0), ("0.5", 0.5), ("1e0", 1.0), ("5E-1", 0.5), ("null", 0.0)] {
        let read = progress(&format!(r#"{{"job_id":"j","percent_done":{written}}}"#)).percent_done;
        assert!((read - value).abs() < f64::EPSILON, "{written} was read as {read}");
    }
}

#[test]
fn strings_are_any_unicode() {
    let written = r#"{"job_id":"j","seq":1,"stream":"stderr","payload":"a\u0000b\ud83d\ude00\r\n\u2028é"}"#;
    let line = read!(ToCoordinator::LogLine, "log.stream", written);
    assert_eq!(line.payload, "a\0b\u{1f600}\r\n\u{2028}é");
}

#[test]
fn raw_json_passes_through_as_it_was_written() {
    let summary = r#"{ "total_duration": 0.10, "data_added": 18446744073709551615, "x": [1e400, "\u0000"] }"#;
    let payload = format!(r#"{{"job_id":"j","status":"failed","stats":{summary}}}"#);
    let finished = read!(ToCoordinator::JobFinished, "job.finished", &payload);
    assert_eq!(finished.stats.expect("stats").as_str(), summary);
}

#[test]
fn words_of_a_newer_peer_are_kept_where_they_do_no_harm() {
    let newer = hello(r#"{"protocol_version":1,"os":"plan9","arch":"riscv64"}"#);
    assert_eq!(
        (newer.os, newer.arch),
        (MaybeKnown::<Os>::Unknown("plan9".into()), MaybeKnown::Unknown("riscv64".into()))
    );
    assert_eq!(run(r#"{"job_id":"j","kind":"copy"}"#).kind, MaybeKnown::Unknown("copy".into()));
    assert_eq!(config(r#"{"clear":["proxy"]}"#).clear, [MaybeKnown::Unknown("proxy".into())]);
}

#[test]
fn unknown_fields_and_types_are_ignored() {
    let text =
        r#"{"v":2,"type":"heartbeat","trace":{"a":[1]},"payload":{"sent_at":"2026-03-01T02:00:00Z","load":[0.1]}}"#;
    assert!(matches!(decode::<ToCoordinator>(text), Ok(Decoded::Known { message: ToCoordinator::Heartbeat(_), .. })));
    let text = r#"{"type":"job.paused","id":"7","payload":{"job_id":5}}"#;
    match decode::<ToCoordinator>(text) {
        Ok(Decoded::Unknown { id: Some(id), type_name }) => {
            assert_eq!((id.number(), type_name.as_str()), (Some(7), "job.paused"));
        }
        other => panic!("{other:?}"),
    }
    let theirs = r#"{"type":"command.run","payload":{"job_id":"j","kind":"backup"}}"#;
    assert!(matches!(decode::<ToCoordinator>(theirs), Ok(Decoded::Unknown { .. })), "the other direction's type");
}

#[test]
fn an_absent_payload_is_an_empty_one() {
    for text in
        [r#"{"type":"heartbeat"}"#, r#"{"type":"heartbeat","payload":null}"#, r#"{"type":"heartbeat","payload":{}}"#]
    {
        assert!(matches!(decode::<ToCoordinator>(text), Ok(Decoded::Known { .. })), "{text}");
    }
    let error = error::<ToCoordinator>(r#"{"type":"job.started"}"#).to_string();
    assert_eq!(error, "malformed job.started: missing field `job_id` at line 1 column 2");
}

#[test]
fn the_id_is_opaque_and_optional() {
    let id = |text: &str| match decode::<ToCoordinator>(text) {
        Ok(Decoded::Known { id, .. }) => id.map(|id| id.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(id(r#"{"type":"heartbeat"}"#), None);
    assert_eq!(id(r#"{"type":"heartbeat","id":null}"#), None);
    assert_eq!(id(r#"{"type":"heartbeat","id":""}"#), None);
    assert_eq!(id(r#"{"id":"7f-\u00fc","type":"heartbeat"}"#), Some("7f-ü".into()));
}

#[test]
fn a_retention_policy_may_be_null_partial_or_newer() {
    let groups = run(r#"{"job_id":"j","kind":"forget","forget_groups":[{"tag":"a","policy":null},{"tag":"b"},
            {"tag":"c","policy":{"keep_daily":7,"keep_weekly":null,"keep_forever":true}}]}"#)
    .forget_groups;
    let policies: Vec<RetentionPolicy> = groups.iter().map(|group| group.policy).collect();
    let daily = RetentionPolicy { keep_daily: Some(7), ..RetentionPolicy::default() };
    assert_eq!(policies, [RetentionPolicy::default(), RetentionPolicy::default(), daily]);
}

#[test]
fn what_is_no_envelope_is_said_to_be_none() {
    for text in [
        "",
        "{",
        "null",
        "[]",
        "7",
        r#""hello""#,
        "{}",
        r#"{"type":7}"#,
        r#"{"payload":{}}"#,
        r#" ["heartbeat","1",{}]"#,
        r#"{"type":"heartbeat"} x"#,
    ] {
        assert!(matches!(error::<ToCoordinator>(text), DecodeError::Envelope(_)), "{text}");
    }
}

#[test]
fn a_malformed_payload_is_named_by_its_type_and_id() {
    for (type_name, payload, said) in [
        ("hello", "{}", "missing field `protocol_version`"),
        ("hello", r#"{"protocol_version":"1"}"#, "invalid type: string"),
        ("hello", r#"{"protocol_version":1,"boot_time":"yesterday"}"#, r#""yesterday" is no RFC 3339 time"#),
        ("command.result", "{}", "missing field `job_id`"),
        ("job.started", r#"{"job_id":"j"}"#, "missing field `kind`"),
        ("job.progress", r#"{"job_id":"j","percent_done":"half"}"#, "invalid type: string"),
        ("job.finished", r#"{"job_id":"j","status":"running"}"#, "running is not a terminal status"),
        ("job.finished", r#"{"job_id":"j","status":"canceled"}"#, "unknown variant `canceled`"),
        ("log.stream", r#"{"job_id":"j","stream":"stdout"}"#, "missing field `seq`"),
        ("log.stream", r#"{"job_id":"j","seq":1,"stream":"syslog"}"#, "unknown variant `syslog`"),
        ("snapshots.report", r#"{"snapshots":[{}]}"#, "missing field `id`"),
        ("repo.stats", r#"{"snapshot_count":"7"}"#, "invalid type: string"),
        ("schedule.ack", "{}", "missing field `version`"),
        ("schedule.fire", r#"{"schedule_id":"s"}"#, "missing field `scheduled_at`"),
        ("schedule.fire", r#"{"schedule_id":"s","scheduled_at":"0001-01-01T00:00:00Z"}"#, "never set"),
        ("heartbeat", r#"["2026-03-01T02:00:00Z"]"#, "a list where an object should be"),
    ] {
        let text = format!(r#"{{"type":"{type_name}","id":"9","payload":{payload}}}"#);
        match error::<ToCoordinator>(&text) {
            DecodeError::Payload { type_name: named, id, source } => {
                assert_eq!((named.as_str(), id.and_then(|id| id.number())), (type_name, Some(9)), "{text}");
                assert!(source.to_string().contains(said), "{text}: {source}");
            }
            DecodeError::Envelope(source) => panic!("{text}: {source}"),
        }
    }
    let slot = error::<ToAgent>(r#"{"type":"config.update","payload":{"slot":"root"}}"#).to_string();
    assert!(slot.starts_with(r#"malformed config.update: "root" is none of repo, admin"#), "{slot}");
}

#[test]
fn an_error_never_shows_a_secret() {
    let text = r#"{"type":"config.update","payload":{"repo_password":["hunter2"],"slot":"admin"}}"#;
    let error = error::<ToAgent>(text);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    let update = config(r#"{"repo_password":"hunter2","repo_credential":"hunter3"}"#);
    assert!(!format!("{update:?}").contains("hunter"), "{update:?}");
}

#[test]
fn deep_nesting_is_an_error_or_ignored_and_never_a_crash() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let unknown = format!(r#"{{"type":"newer","payload":{deep}}}"#);
    assert!(matches!(decode::<ToCoordinator>(&unknown), Ok(Decoded::Unknown { .. })));
    let text = format!(r#"{{"type":"heartbeat","payload":{deep}}}"#);
    assert!(error::<ToCoordinator>(&text).to_string().starts_with("malformed heartbeat: "));
}
