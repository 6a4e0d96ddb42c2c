//! Whatever a message holds, it reads back as what was written.

use chrono::{DateTime, Utc};
use fleet_wire::{
    Ack, AgentUpdateAvailable, Cap, CommandCancel, CommandResult, CommandRun, ConfigField, ConfigUpdate, Decoded,
    EnvelopeId, ErrorMessage, ForgetGroup, ForgetLimit, Heartbeat, Hello, JobFinished, JobProgress, JobStarted, Kind,
    LogLine, LogStream, MaybeKnown, Message, Os, RawJson, RepoStats, RetentionPolicy, Schedule, ScheduleAck,
    ScheduleFire, ScheduleSet, ScheduledGroup, Secret, Slot, Snapshot, SnapshotsReport, Status, Timestamp, ToAgent,
    ToCoordinator, decode, encode,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Debug;
use std::str::FromStr;

/// Any Unicode, NUL and line ends included.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

/// What may stand in an optional string: an empty one means that there is none.
fn filled<T: From<String> + Debug>() -> impl Strategy<Value = T> {
    vec(any::<char>(), 1..12).prop_map(|chars| T::from(String::from_iter(chars)))
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn id<T: From<String> + Debug>() -> impl Strategy<Value = T> {
    text().prop_map(T::from)
}

/// Four-digit years, as RFC 3339 has them, and never the zero time, which means that there is none.
fn instant() -> impl Strategy<Value = Timestamp> {
    const SECOND_OF_YEAR_ONE: i64 = -62_135_596_799;
    const LAST_OF_9999: i64 = 253_402_300_799;
    (SECOND_OF_YEAR_ONE..=LAST_OF_9999, 0..1_000_000_000_u32)
        .prop_map(|(second, nanos)| DateTime::<Utc>::from_timestamp(second, nanos).expect("within chrono's range"))
}

/// A word of ours, or one of a newer peer; never one of ours taken for a newer peer's.
fn word<T: FromStr + Clone + Debug + 'static>(ours: &'static [T]) -> impl Strategy<Value = MaybeKnown<T>> {
    let newer = text().prop_filter("one of ours", |text| T::from_str(text).is_err()).prop_map(MaybeKnown::Unknown);
    prop_oneof![select(ours).prop_map(MaybeKnown::Known), newer]
}

/// Any JSON value but `null`, which in an optional field means that there is none.
fn raw() -> impl Strategy<Value = RawJson> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (any::<i32>(), 0..999_u32).prop_map(|(whole, part)| format!("{whole}.{part:03}e+07")),
        text().prop_map(|text| serde_json::to_string(&text).expect("a string")),
    ];
    let json = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| format!("[ {} ]", values.join(" ,\n"))),
            vec((text(), inner), 0..4).prop_map(|pairs| {
                let pair = |(key, value): &(String, String)| format!("{}:{value}", serde_json::json!(key));
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
            }),
        ]
    });
    json.prop_map(|json| RawJson::new(json).expect("JSON"))
}

fn cap() -> impl Strategy<Value = Cap> {
    prop_oneof![Just(Cap::Unchanged), Just(Cap::Unlimited), (1..=i64::MAX).prop_map(Cap::KibPerSecond)]
}

fn hello() -> impl Strategy<Value = Hello> {
    let names = (text(), text(), text(), word(Os::ALL), word(fleet_wire::Arch::ALL));
    let ours = (texts(), of(filled()), vec(id(), 0..4));
    (any::<i64>(), names, of(instant()), ours).prop_map(|(protocol_version, names, boot_time, ours)| {
        let (agent_version, restic_version, hostname, os, arch) = names;
        let (capabilities, journal, jobs) = ours;
        Hello {
            protocol_version,
            agent_version,
            restic_version,
            hostname,
            os,
            arch,
            boot_time,
            capabilities,
            journal,
            jobs,
        }
    })
}

fn job_progress() -> impl Strategy<Value = JobProgress> {
    let numbers = (any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>());
    (id(), 0..=1_000_000_u32, numbers).prop_map(|(job_id, parts, numbers)| {
        let (files_done, total_files, bytes_done, total_bytes, eta_seconds, throughput_bps) = numbers;
        let percent_done = f64::from(parts) / 1e6;
        JobProgress {
            job_id,
            percent_done,
            files_done,
            total_files,
            bytes_done,
            total_bytes,
            eta_seconds,
            throughput_bps,
        }
    })
}

fn job_finished() -> impl Strategy<Value = JobFinished> {
    let terminal = select(&[Status::Succeeded, Status::Failed, Status::Cancelled][..]);
    (id(), terminal, any::<i64>(), of(instant()), of(raw()), of(filled())).prop_map(
        |(job_id, status, exit_code, finished_at, stats, error)| JobFinished {
            job_id,
            status,
            exit_code,
            finished_at,
            stats,
            error,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let lists = (texts(), texts(), of(any::<i64>()), of(any::<i64>()));
    (text(), text(), of(instant()), text(), lists).prop_map(|(id, short_id, time, hostname, lists)| {
        let (paths, tags, size_bytes, file_count) = lists;
        Snapshot { id, short_id, time, hostname, paths, tags, size_bytes, file_count }
    })
}

fn repo_stats() -> impl Strategy<Value = RepoStats> {
    let number = || of(any::<i64>());
    let check = (of(instant()), of(filled()), of(any::<bool>()));
    let sizes = (number(), number(), number(), number());
    (sizes, check, of(instant()), number(), of(instant())).prop_map(|(sizes, check, pruned, freed, as_of)| RepoStats {
        total_size_bytes: sizes.0,
        raw_size_bytes: sizes.1,
        unique_files: sizes.2,
        snapshot_count: sizes.3,
        last_check_at: check.0,
        last_check_status: check.1,
        lock_present: check.2,
        last_prune_at: pruned,
        last_prune_freed_bytes: freed,
        as_of,
    })
}

fn error() -> impl Strategy<Value = ErrorMessage> {
    (text(), text()).prop_map(|(code, message)| ErrorMessage::new(&code, message))
}

fn to_coordinator() -> impl Strategy<Value = ToCoordinator> {
    let streams = select(LogStream::ALL);
    prop_oneof![
        hello().prop_map(Into::into),
        of(instant()).prop_map(|sent_at| Heartbeat { sent_at }.into()),
        (id(), any::<bool>(), of(filled())).prop_map(|(job_id, accepted, error)| CommandResult {
            job_id,
            accepted,
            error
        }
        .into()),
        (id(), word(Kind::ALL), of(instant())).prop_map(|(job_id, kind, started_at)| JobStarted {
            job_id,
            kind,
            started_at
        }
        .into()),
        job_progress().prop_map(Into::into),
        job_finished().prop_map(Into::into),
        (id(), any::<i64>(), of(instant()), streams, text()).prop_map(|(job_id, seq, ts, stream, payload)| LogLine {
            job_id,
            seq,
            ts,
            stream,
            payload
        }
        .into()),
        (vec(snapshot(), 0..4), of(instant()))
            .prop_map(|(snapshots, as_of)| SnapshotsReport { snapshots, as_of }.into()),
        repo_stats().prop_map(Into::into),
        (any::<i64>(), of(instant())).prop_map(|(version, applied_at)| ScheduleAck { version, applied_at }.into()),
        (id(), instant(), vec(id(), 0..4), vec(text(), 0..4)).prop_map(
            |(schedule_id, scheduled_at, job_ids, source_groups)| {
                ScheduleFire { schedule_id, scheduled_at, job_ids, source_groups }.into()
            }
        ),
        error().prop_map(Into::into),
    ]
}

fn policy() -> impl Strategy<Value = RetentionPolicy> {
    proptest::array::uniform6(of(any::<i64>())).prop_map(|rules| RetentionPolicy {
        keep_last: rules[0],
        keep_hourly: rules[1],
        keep_daily: rules[2],
        keep_weekly: rules[3],
        keep_monthly: rules[4],
        keep_yearly: rules[5],
    })
}

fn command_run() -> impl Strategy<Value = CommandRun> {
    let groups =
        vec((text(), policy(), of(filled())).prop_map(|(tag, policy, host)| ForgetGroup { tag, policy, host }), 0..3);
    let sources = (texts(), texts(), texts(), of(filled()));
    let hooks = (of(filled()), of(filled()));
    // Shares as JSON can write them exactly.
    let limit = (of(any::<i64>()), of((0..=1024_u32).prop_map(|part| f64::from(part) / 1024.0)))
        .prop_map(|(snapshots, share)| ForgetLimit { snapshots, share });
    let forget = (groups, any::<bool>(), of(limit));
    (id(), word(Kind::ALL), sources, forget, any::<bool>(), (cap(), cap()), hooks).prop_map(
        |(job_id, kind, sources, forget, requires_admin_creds, caps, hooks)| {
            let (args, includes, excludes, tag) = sources;
            let (forget_groups, dry_run, forget_limit) = forget;
            CommandRun {
                job_id,
                kind,
                args,
                includes,
                excludes,
                tag,
                forget_groups,
                dry_run,
                forget_limit,
                requires_admin_creds,
                bandwidth_up_kbps: caps.0,
                bandwidth_down_kbps: caps.1,
                pre_hook: hooks.0,
                post_hook: hooks.1,
            }
        },
    )
}

fn config_update() -> impl Strategy<Value = ConfigUpdate> {
    use ConfigField::{HookShell, RepoCredential, RepoPassword, RepoUrl, RepoUsername};
    let secret = || filled::<String>().prop_map(Secret::new);
    let fields = select(&[RepoUrl, RepoPassword, RepoUsername, RepoCredential, HookShell][..]);
    let newer = Just(MaybeKnown::Unknown("proxy".to_owned()));
    let clear = vec(prop_oneof![fields.prop_map(MaybeKnown::Known), newer], 0..4);
    let repo = (of(filled()), of(secret()), of(filled()), of(secret()));
    (repo, of(filled()), of(select(Slot::ALL)), cap(), cap(), clear).prop_map(
        |(repo, hook_shell, slot, bandwidth_up_kbps, bandwidth_down_kbps, clear)| {
            let (repo_url, repo_password, repo_username, repo_credential) = repo;
            ConfigUpdate {
                repo_url,
                repo_password,
                repo_username,
                repo_credential,
                hook_shell,
                slot,
                bandwidth_up_kbps,
                bandwidth_down_kbps,
                clear,
            }
        },
    )
}

fn group() -> impl Strategy<Value = ScheduledGroup> {
    let retries = (of(any::<i64>()), of(any::<i64>()));
    (text(), texts(), texts(), of(raw()), retries, of(filled()), of(filled())).prop_map(
        |(name, includes, excludes, retention_policy, retries, pre_hook, post_hook)| ScheduledGroup {
            name,
            includes,
            excludes,
            retention_policy,
            retry_max: retries.0,
            retry_backoff_seconds: retries.1,
            pre_hook,
            post_hook,
        },
    )
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let times = (text(), of(filled()), of(any::<i64>()));
    (id(), times, any::<bool>(), vec(group(), 0..3), cap(), cap()).prop_map(
        |(id, times, enabled, source_groups, bandwidth_up_kbps, bandwidth_down_kbps)| {
            let (cron_expr, timezone, catch_up_seconds) = times;
            Schedule {
                id,
                cron_expr,
                enabled,
                source_groups,
                timezone,
                catch_up_seconds,
                bandwidth_up_kbps,
                bandwidth_down_kbps,
            }
        },
    )
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    prop_oneof![
        command_run().prop_map(Into::into),
        id().prop_map(|job_id| CommandCancel { job_id }.into()),
        config_update().prop_map(Into::into),
        (any::<i64>(), vec(schedule(), 0..3))
            .prop_map(|(version, schedules)| ScheduleSet { version, schedules }.into()),
        (text(), text(), of(filled())).prop_map(|(latest_version, package_url, changelog)| {
            AgentUpdateAvailable { latest_version, package_url, changelog }.into()
        }),
        id().prop_map(|up_to| Ack { up_to }.into()),
        error().prop_map(Into::into),
    ]
}

/// What `text` holds, read as one direction; the type is named so that a failure shows the text.
fn read<M: Message>(text: &str) -> Result<Decoded<M>, TestCaseError> {
    decode(text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_agents_say_reads_back_the_same(id in of(filled::<EnvelopeId>()), message in to_coordinator()) {
        let text = encode(id.as_ref(), &message);
        prop_assert_eq!(read::<ToCoordinator>(&text)?, Decoded::Known { id, message });
    }

    #[test]
    fn what_the_coordinator_says_reads_back_the_same(id in of(filled::<EnvelopeId>()), message in to_agent()) {
        let text = encode(id.as_ref(), &message);
        prop_assert_eq!(read::<ToAgent>(&text)?, Decoded::Known { id, message });
    }

    #[test]
    fn fields_of_a_newer_peer_change_nothing(message in to_agent(), name in "new_[a-z]{1,8}", value in raw()) {
        let text = encode(None, &message);
        let comma = if text.contains(r#""payload":{}"#) { "" } else { "," };
        let inner = format!(r#""payload":{{"{name}":{}{comma}"#, value.as_str());
        let newer = text.replacen(r#""payload":{"#, &inner, 1);
        let newer = newer.replacen('{', &format!(r#"{{"{name}":{},"#, value.as_str()), 1);
        prop_assert_eq!(read::<ToAgent>(&newer)?, Decoded::Known { id: None, message });
    }

    #[test]
    fn no_text_makes_reading_panic(text in text(), json in raw(), kind in select(&["hello", "job.finished", "repo.stats"][..])) {
        let _ = decode::<ToCoordinator>(&text);
        let _ = decode::<ToCoordinator>(json.as_str());
        let envelope = format!(r#"{{"type":"{kind}","payload":{}}}"#, json.as_str());
        let outcome = decode::<ToCoordinator>(&envelope);
        if let Err(error) = outcome {
            prop_assert!(error.to_string().contains(kind), "{} does not name {}", error, kind);
        }
    }
}
