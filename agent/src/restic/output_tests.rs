//! The parsers, on output that was recorded from the real versions (`tests/data/<version>/`).

use super::*;

macro_rules! recorded {
    ($name:literal) => {
        [
            ("0.14", include_str!(concat!("../../tests/data/0.14/", $name))),
            ("0.18", include_str!(concat!("../../tests/data/0.18/", $name))),
        ]
    };
}

fn events(text: &str) -> Vec<Event> {
    text.lines().filter_map(read_event).collect()
}

#[test]
fn a_backup_gives_status_and_a_summary_last() {
    for (version, text) in recorded!("backup2.stdout") {
        let events = events(text);
        assert_eq!(events.len(), text.lines().count(), "{version}");
        assert_eq!(events.last(), Some(&Event::Summary), "{version}");
        let done = Progress {
            percent_done: 1.0,
            total_files: 8,
            files_done: 8,
            total_bytes: 3_150_002,
            bytes_done: 3_150_002,
            seconds_remaining: 0,
        };
        assert!(events.contains(&Event::Status(done)), "{version}: {events:?}");
        let summary: BackupSummary = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(summary.total_files_processed, 8);
        assert_eq!(summary.snapshot_id.len(), if version == "0.14" { 8 } else { 64 });
    }
}

#[test]
fn unreadable_items_are_named_even_where_restic_gives_no_reason() {
    for (version, text) in recorded!("backup-unreadable.stderr") {
        let errors: Vec<_> = events(text)
            .into_iter()
            .filter_map(|event| if let Event::Error(error) = event { Some(error) } else { None })
            .collect();
        assert!(errors.iter().any(|error| error.item.as_deref().is_some_and(|item| item.ends_with("/unreadable"))));
        assert_eq!(errors.iter().all(|error| error.message.is_some()), version == "0.18", "{errors:?}");
    }
}

#[test]
fn text_beside_json_is_no_event() {
    for (_, text) in recorded!("backup-missing.stderr") {
        assert_eq!(events(text), []);
    }
    assert_eq!(read_event("{not json"), None);
    assert_eq!(read_event(r#"{"time":"2026-11-24T02:10:11Z","pid":1}"#), None);
    assert_eq!(read_event(r#"{"message_type":"brand_new","x":1}"#), Some(Event::Other));
    assert_eq!(
        read_event(r#"{"message_type":"status","percent_done":"odd"}"#),
        Some(Event::Status(Progress::default()))
    );
}

#[test]
fn last_words_are_read() {
    let [_, (_, new)] = recorded!("check-locked.stderr");
    let Some(Event::ExitError(message)) = events(new).pop() else { panic!("no exit_error in {new}") };
    assert!(message.starts_with("unable to create lock in backend: repository is already locked by PID"));
}

#[test]
fn snapshots_are_mapped_to_the_wire() {
    for (version, text) in recorded!("snapshots.stdout") {
        let snapshots = read_snapshots(text.as_bytes()).unwrap();
        assert_eq!(snapshots.len(), 5, "{version}");
        let first = &snapshots[0];
        assert_eq!((first.id.len(), first.short_id.as_str()), (64, &first.id[..8]));
        assert_eq!((first.hostname.as_str(), first.tags.as_slice()), ("h1", ["docs".to_owned()].as_slice()));
        assert!(first.time.is_some() && first.paths[0].ends_with("/src"));
        let expected = if version == "0.14" { (Some(0), Some(0)) } else { (Some(150_002), Some(7)) };
        assert_eq!((first.size_bytes, first.file_count), expected, "{version}");
    }
    for (_, text) in recorded!("snapshots-empty.stdout") {
        assert_eq!(read_snapshots(text.as_bytes()).unwrap(), []);
    }
}

#[test]
fn times_with_an_offset_become_utc() {
    let text = br#"[{"time":"2026-11-24T03:10:11.5+01:00","id":"ab","paths":null}]"#;
    let snapshots = read_snapshots(text).unwrap();
    assert_eq!(snapshots[0].time.unwrap().to_rfc3339(), "2026-11-24T02:10:11.500+00:00");
    assert_eq!((snapshots[0].short_id.as_str(), snapshots[0].paths.len()), ("ab", 0));
}

#[test]
fn a_forget_says_what_it_keeps_and_removes() {
    for (version, text) in recorded!("forget.stdout") {
        let forgotten = read_forgotten(text.as_bytes()).unwrap();
        assert_eq!(forgotten.len(), 1, "{version}");
        assert_eq!(forgotten[0].keep.as_ref().unwrap().len(), 1);
        let removed = forgotten[0].remove.as_ref().unwrap();
        assert!(removed.len() == 4 && removed.iter().all(|snapshot| snapshot.id.len() == 64), "{removed:?}");
    }
    for (_, text) in recorded!("forget-nothing.stdout") {
        assert_eq!((text, read_forgotten(text.as_bytes()).unwrap()), ("", Vec::new()));
    }
    let null = br#"[{"keep":[{"id":"a"}],"remove":null}]"#;
    assert_eq!(read_forgotten(null).unwrap()[0].remove, None);
}

#[test]
fn a_prune_says_what_it_frees() {
    for (version, text) in recorded!("prune.stdout") {
        let freed: Vec<_> = text.lines().filter_map(read_pruned).collect();
        let blobs = if version == "0.14" { 18 } else { 20 };
        assert_eq!(freed, [Pruned { blobs, bytes: 3_004_170 }], "{version}");
        let remaining: Vec<_> = text.lines().filter_map(read_remaining).collect();
        assert_eq!((remaining.len(), remaining[0].blobs), (1, 12), "{version}");
    }
    assert_eq!(read_pruned("total prune: 0 blobs / 0 B"), Some(Pruned::default()));
    assert_eq!(read_pruned("total prune: 1 blobs / 1.500 TiB").unwrap().bytes, 3 << 39);
    assert_eq!(read_pruned("total prune: 1 blobs / 1.5 XiB"), None);
}

#[test]
fn progress_in_words_is_a_fraction() {
    assert_eq!(read_text_progress("[0:01] 25.00%  13 / 52 packs"), Some(0.25));
    assert_eq!(read_text_progress("[1:02:03] 100.00%  1 / 1 snapshots"), Some(1.0));
    for none in ["", "done", "[br] 5%", "[0:01] packs", "[0:01] 200% x"] {
        assert_eq!(read_text_progress(none), None, "{none}");
    }
    for (version, text) in recorded!("prune.stdout") {
        assert!(text.lines().filter_map(read_text_progress).count() >= 4, "{version}");
    }
}

#[test]
fn statistics_are_read_where_zeros_are_left_out() {
    for (version, text) in recorded!("stats-raw.stdout") {
        let stats: Stats = serde_json::from_str(text).unwrap();
        assert!(stats.total_size > 3_000_000 && stats.snapshots_count == Some(5), "{version}: {stats:?}");
    }
    for (version, text) in recorded!("stats-files.stdout") {
        assert_eq!(serde_json::from_str::<Stats>(text).unwrap().total_file_count, 8, "{version}");
    }
    for (version, text) in recorded!("stats-restore.stdout") {
        assert_eq!(serde_json::from_str::<Stats>(text).unwrap().total_size, 3_600_008, "{version}");
    }
    let empty: Stats = serde_json::from_str(r#"{"total_size":0,"snapshots_count":0}"#).unwrap();
    assert_eq!((empty.total_file_count, empty.snapshots_count), (0, Some(0)));
}

#[test]
fn locks_are_listed_by_id() {
    for (_, text) in recorded!("list-locks.stdout") {
        assert_eq!(read_ids(text.as_bytes()).len(), 1);
    }
    assert_eq!(read_ids(b""), Vec::<String>::new());
    assert_eq!(read_ids(b"some warning\n"), Vec::<String>::new());
}
