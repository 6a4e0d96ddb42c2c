//! Logs of jobs, from an agent's lines to what REST shows: every line once and in order, whatever it holds.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, backup, group, journalling, log_of, repository};

#[test]
fn every_line_is_there_once_and_in_order() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    let job = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    host.run("check");
    host.start(&job, "check");
    let text = |seq: i64| match seq {
        3 => "a\0b\u{feff}\u{2028}\"\\\r".to_owned(),
        4 => "\u{1f980}é".repeat(200_000),
        5 => String::new(),
        seq => format!("line {seq}"),
    };
    // Backwards, with a gap, everything twice, some after the end.
    for seq in (0..40).rev().filter(|seq| *seq != 20).chain([7, 0, 39, 4]) {
        host.log(&job, seq, &text(seq));
    }
    let before_end = host.finish(&job, "succeeded", 0);
    host.settled(before_end);
    assert_eq!(log_of(&api, &job).len(), 39, "acknowledged is stored");
    for seq in [40, 20, 41, 40, 0] {
        host.log(&job, seq, &text(seq));
    }
    let unusual = json!({"job_id": job, "seq": 50, "ts": "0001-01-01T00:00:00Z", "stream": "event", "payload": "{}"});
    let last = host.say("log.stream", unusual);
    host.settled(last);

    let expected: Vec<(i64, String)> = (0..42).map(|seq| (seq, text(seq))).chain([(50, "{}".to_owned())]).collect();
    let stored = log_of(&api, &job);
    assert_eq!(
        stored.iter().map(|line| line.0).collect::<Vec<_>>(),
        expected.iter().map(|line| line.0).collect::<Vec<_>>()
    );
    assert!(stored == expected, "the texts differ");
    let page = |query: &str| api.call("GET", &format!("/v1/jobs/{job}/logs?{query}"), None, &[]).unwrap();
    let seqs = |query: &str| -> Vec<i64> {
        let text = page(query).text;
        text.split_terminator('\n')
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(seqs("limit=2"), [0, 1]);
    assert_eq!(seqs("after_seq=-1&limit=1"), [0]);
    assert_eq!(seqs("after_seq=18&limit=4"), [19, 20, 21, 22]);
    assert_eq!(seqs("after_seq=41"), [50]);
    assert_eq!(seqs("after_seq=50"), [] as [i64; 0]);
    let one = page("after_seq=49");
    assert_eq!(one.header("content-type"), Some("application/x-ndjson"));
    let one: Value = serde_json::from_str(one.text.trim_end()).unwrap();
    assert_eq!((&one["stream"], &one["payload"]), (&json!("event"), &json!("{}")));
    assert!(one["ts"].as_str().unwrap() > "2026-03", "{one}");
    assert!([400, 422].contains(&page("limit=0").status));
}

#[test]
fn large_logs_come_in_from_several_jobs_at_once() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    group(&api, &host.id, "a", Value::Null);
    group(&api, &host.id, "b", Value::Null);
    let jobs = [backup(&api, &host.id, "a"), backup(&api, &host.id, "b")];
    host.run("backup");
    host.run("backup");
    let long = "x".repeat(1024 * 1024);
    let mut last = 0;
    for seq in 0..3000 {
        let payload = if seq % 1000 == 999 { &long } else { "a line of the usual kind" };
        for job in &jobs {
            last = host.log(job, seq, payload);
        }
    }
    host.settled(last);
    for job in &jobs {
        let lines = log_of(&api, job);
        assert!(lines.iter().map(|line| line.0).eq(0..3000), "{} lines", lines.len());
        assert_eq!(lines[1999].1.len(), long.len());
    }
}
