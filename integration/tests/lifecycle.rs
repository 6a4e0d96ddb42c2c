//! The life of a job, from the REST call to its end, told to a coordinator by agents that say what a test
//! wants. The agents speak the contract's core only, unless a test is about `ack`.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};
use support::{Host, backup, core, group, job_when, journalling, line, log_of, over, repository, until};

fn post_job(api: &Api, host: &str, body: &Value) -> fleet_integration::Reply {
    api.call("POST", &format!("/v1/hosts/{host}/jobs"), Some(body), &[]).unwrap()
}

fn cancel(api: &Api, job: &str) -> Value {
    let reply = api.call("POST", &format!("/v1/jobs/{job}/cancel"), None, &[]).unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text);
    reply.json
}

#[test]
fn a_backup_from_the_call_to_its_outcome() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    let reply = post_job(&api, &host.id, &json!({"kind": "backup", "source_group": "docs"}));
    assert_eq!(reply.status, 202, "{}", reply.text);
    let job = reply.json["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), Some(format!("/v1/jobs/{job}").as_str()));
    for (field, value) in [("kind", "backup"), ("status", "queued"), ("origin", "operator"), ("source_group", "docs")] {
        assert_eq!(reply.json[field], value, "{field}");
    }

    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    job_when(&api, &job, |job| job["accepted_at"].is_string() && job["status"] == "queued");
    host.start(&job, "backup");
    job_when(&api, &job, |job| job["status"] == "running" && job["started_at"] == "2026-03-01T02:00:00Z");
    let progress = json!({
        "job_id": job, "percent_done": 0.25, "files_done": 50, "total_files": 200, "bytes_done": 1_048_576,
        "total_bytes": 4_194_304, "eta_seconds": 3, "throughput_bps": 7,
    });
    host.say("job.progress", progress.clone());
    let seen = job_when(&api, &job, |job| job["progress"]["files_done"] == 50);
    for (field, value) in progress.as_object().unwrap().iter().filter(|(field, _)| *field != "job_id") {
        assert_eq!(&seen["progress"][field], value, "{field}");
    }
    host.log(&job, 0, "one");
    host.log(&job, 1, "two");
    let stats = r#"{"message_type":"summary","z":1,"a":9007199254740993,"data_added":1e3}"#;
    let report = format!(
        r#"{{"type":"job.finished","payload":{{"job_id":"{job}","status":"succeeded","exit_code":0,
            "finished_at":"2026-03-01T04:00:09.123456789+02:00","stats":{stats}}}}}"#
    );
    host.agent().send_text(report).unwrap();
    let job = over(&api, &job);
    assert_eq!((&job["status"], &job["exit_code"], &job["partial"]), (&json!("succeeded"), &json!(0), &json!(false)));
    assert!(job["finished_at"].as_str().unwrap().starts_with("2026-03-01T02:00:09.123456"), "{job}");
    assert_eq!((&job["error"], &job["waiting_for"]), (&Value::Null, &Value::Null));
    let id = job["id"].as_str().unwrap();
    let raw = api.call("GET", &format!("/v1/jobs/{id}"), None, &[]).unwrap().text;
    assert!(raw.contains(stats), "restic's summary is kept as it is: {raw}");
    assert_eq!(log_of(&api, id), [(0, "one".to_owned()), (1, "two".to_owned())]);
}

#[test]
fn a_run_carries_what_its_kind_needs() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    let hooks = json!({"pre_hook": "host before", "post_hook": "host after"});
    api.call("PATCH", &format!("/v1/hosts/{}", host.id), Some(&hooks), &[]).unwrap().ok().unwrap();
    let docs = json!({
        "name": "docs", "includes": ["/srv/a", "/srv/b c"], "excludes": ["*.tmp"], "pre_hook": "group before",
        "retention": {"keep_last": 3, "keep_daily": 7},
    });
    api.create_source_group(&host.id, &docs).unwrap();
    group(&api, &host.id, "etc", json!({"keep_yearly": 1}));
    group(&api, &host.id, "for-ever", Value::Null);
    let mut run = |body: Value| {
        let job = api.run_job(&host.id, &body).unwrap();
        let run = host.take("command.run");
        assert_eq!((&run["job_id"], &run["kind"]), (&json!(job), &body["kind"]));
        host.finish(&job, "succeeded", 0);
        over(&api, &job);
        run
    };
    let absent = |run: &Value, fields: &[&str]| {
        let there: Vec<_> = fields
            .iter()
            .filter(|field| !matches!(&run[**field], Value::Null | Value::Bool(false)) && run[**field] != json!([]))
            .collect();
        assert!(there.is_empty(), "{there:?} in {run}");
    };
    let caps = ["bandwidth_up_kbps", "bandwidth_down_kbps"];

    let plain = run(json!({"kind": "backup", "source_group": "docs"}));
    assert_eq!((&plain["includes"], &plain["excludes"]), (&json!(["/srv/a", "/srv/b c"]), &json!(["*.tmp"])));
    assert_eq!(
        (&plain["tag"], &plain["pre_hook"], &plain["post_hook"]),
        (&json!("docs"), &json!("group before"), &json!("host after"))
    );
    absent(&plain, &["args", "forget_groups", "requires_admin_creds", caps[0], caps[1]]);
    assert!(plain.get(caps[0]).is_none() && plain.get(caps[1]).is_none(), "absent is the host's caps: {plain}");
    let capped = json!({"kind": "backup", "source_group": "etc", "bandwidth_up_kbps": 64, "bandwidth_down_kbps": 0});
    let capped = run(capped);
    assert_eq!((&capped[caps[0]], &capped[caps[1]]), (&json!(64), &json!(0)), "a present 0 is no cap");
    assert_eq!(capped["pre_hook"], "host before");

    let forget = run(json!({"kind": "forget"}));
    let groups = json!([
        {"tag": "docs", "policy": {"keep_last": 3, "keep_daily": 7}}, {"tag": "etc", "policy": {"keep_yearly": 1}},
    ]);
    assert_eq!(forget["forget_groups"], groups);
    absent(&forget, &["includes", "tag", "pre_hook", "post_hook", "requires_admin_creds"]);
    let one = run(json!({"kind": "forget", "source_group": "etc"}));
    assert_eq!(one["forget_groups"], json!([{"tag": "etc", "policy": {"keep_yearly": 1}}]));

    let prune = run(json!({"kind": "prune"}));
    assert_eq!(prune["requires_admin_creds"], true);
    absent(&prune, &["includes", "forget_groups", "pre_hook"]);
    let check = run(json!({"kind": "check", "args": ["5%"]}));
    assert_eq!(check["args"], json!(["5%"]));
    absent(&run(json!({"kind": "check"})), &["args", "requires_admin_creds"]);
    absent(&run(json!({"kind": "unlock"})), &["args", "requires_admin_creds", "includes"]);
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_by_its_field() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let host = Host::enroll(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    for (body, pointer) in [
        (json!({"kind": "backup"}), "/source_group"),
        (json!({"kind": "backup", "source_group": "nope"}), "/source_group"),
        (json!({"kind": "prune", "args": ["--dry-run"]}), "/args"),
        (json!({"kind": "check", "args": ["1%", "2%"]}), "/args"),
        (json!({"kind": "forget"}), "/kind"),
        (json!({"kind": "defragment"}), "/kind"),
    ] {
        let reply = post_job(&api, &host.id, &body);
        assert!([409, 422].contains(&reply.status), "{body}: {}", reply.text);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.json["errors"][0]["pointer"], pointer, "{}", reply.text);
    }
    assert_eq!(post_job(&api, "nobody", &json!({"kind": "check"})).status, 404);
    assert_eq!(api.list("/v1/jobs").unwrap(), Vec::<Value>::new(), "nothing of that was stored");
}

#[test]
fn who_waits_for_a_job_is_answered_when_it_ends() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    let job = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    let began = Instant::now();
    assert_eq!(api.get(&format!("/v1/jobs/{job}?wait=1")).unwrap()["status"], "queued");
    assert!(began.elapsed() >= Duration::from_secs(1), "it waits");
    host.run("check");
    let (waiting, path) = (api.clone(), format!("/v1/jobs/{job}?wait=60"));
    let waiter = thread::spawn(move || waiting.get(&path).unwrap());
    host.start(&job, "check");
    job_when(&api, &job, |job| job["status"] == "running");
    let finished = Instant::now();
    host.finish(&job, "failed", 1);
    assert_eq!(waiter.join().unwrap()["status"], "failed");
    assert!(finished.elapsed() < Duration::from_secs(10), "not only when the time is over");
    assert_eq!(api.get(&format!("/v1/jobs/{job}?wait=60")).unwrap()["status"], "failed");
    for wait in ["61", "-1", "x"] {
        let reply = api.call("GET", &format!("/v1/jobs/{job}?wait={wait}"), None, &[]).unwrap();
        assert!([400, 422].contains(&reply.status), "{wait}: {}", reply.text);
    }
}

#[test]
fn refused_partial_failed_and_late_reports() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);

    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    host.say("command.result", json!({"job_id": job, "accepted": false, "error": "no restic here"}));
    let refused = over(&api, &job);
    assert_eq!(refused["status"], "failed");
    assert!(refused["error"].as_str().unwrap().contains("no restic here"), "{refused}");
    assert_eq!(refused["started_at"], Value::Null);

    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    host.start(&job, "backup");
    host.finish(&job, "succeeded", 3);
    let partial = over(&api, &job);
    assert_eq!(
        (&partial["status"], &partial["partial"], &partial["exit_code"]),
        (&json!("succeeded"), &json!(true), &json!(3))
    );
    assert!(partial["error"].as_str().is_some_and(|error| !error.is_empty()), "never hidden: {partial}");
    assert!(partial["accepted_at"].is_string(), "a start says that it was accepted: {partial}");

    // A second outcome changes nothing and disturbs nobody; lines still come in.
    host.finish(&job, "failed", 1);
    host.say("command.result", json!({"job_id": job, "accepted": false, "error": "too late"}));
    host.start(&job, "backup");
    host.log(&job, 0, "late");
    job_when(&api, &job, |_| log_of(&api, &job).len() == 1);
    let after = api.job(&job).unwrap();
    for field in ["status", "exit_code", "error", "started_at", "finished_at", "ended_at"] {
        assert_eq!(after[field], partial[field], "{field}");
    }

    // The outcome may come before the start, and without a word of acceptance.
    let job = backup(&api, &host.id, "docs");
    host.run("backup");
    let report = json!({"job_id": job, "status": "failed", "exit_code": 1, "finished_at": "0001-01-01T00:00:00Z",
                        "error": "wrong password"});
    host.say("job.finished", report);
    let failed = over(&api, &job);
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("wrong password")));
    assert!(failed["finished_at"].as_str().unwrap() > "2026-03", "the zero time is no time: {failed}");
    host.start(&job, "backup");
    job_when(&api, &job, |job| job["started_at"] == "2026-03-01T02:00:00Z" && job["status"] == "failed");
}

#[test]
fn what_concerns_others_is_refused_by_its_number_and_nothing_else_happens() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut victim = Host::ready(&sandbox, "victim", &repository);
    let mut meddler = Host::ready_as(&sandbox, "meddler", &repository, &journalling("j", &[]));
    group(&api, &victim.id, "docs", Value::Null);
    let job = backup(&api, &victim.id, "docs");
    victim.run("backup");
    victim.start(&job, "backup");
    job_when(&api, &job, |job| job["status"] == "running");

    let unknown = uuid::Uuid::now_v7().to_string();
    let mut refused = vec![meddler.finish(&job, "failed", 1), meddler.log(&job, 0, "mischief")];
    refused.extend([meddler.finish(&unknown, "failed", 1), meddler.finish("42", "succeeded", 0)]);
    refused.push(meddler.say("job.progress", json!({"job_id": job, "percent_done": 0.99, "files_done": 9})));
    let schedule = json!({"schedule_id": "none", "scheduled_at": "2026-03-01T02:00:00Z"});
    refused.push(meddler.say("schedule.fire", schedule));
    let last = meddler.say("repo.stats", json!({"snapshot_count": 5}));
    meddler.settled(last);
    let mut errors: Vec<u64> = Vec::new();
    for _ in &refused {
        let error = meddler.next("error");
        assert!(!error["payload"]["code"].as_str().unwrap().is_empty(), "{error}");
        assert!(!error["payload"]["message"].as_str().unwrap().is_empty(), "{error}");
        errors.push(error["id"].as_str().unwrap().parse().unwrap());
    }
    errors.sort_unstable();
    assert_eq!(errors, refused);
    assert_eq!(meddler.sent_so_far(&api), Vec::<Value>::new(), "the connection stays");

    let untouched = api.job(&job).unwrap();
    assert_eq!((&untouched["status"], &untouched["progress"]), (&json!("running"), &Value::Null));
    victim.finish(&job, "succeeded", 0);
    assert_eq!(over(&api, &job)["status"], "succeeded");
    assert!(log_of(&api, &job).is_empty());
    assert_eq!(api.get(&format!("/v1/repositories/{repository}/stats")).unwrap()["snapshot_count"], 5);
}

#[test]
fn only_agents_that_keep_a_journal_get_acknowledgements() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    let job = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    host.run("check");
    host.say_as(1, "command.result", json!({"job_id": job, "accepted": true}));
    host.say_as(2, "log.stream", line(&job, 0, "one"));
    host.say_as(3, "job.finished", json!({"job_id": job, "status": "succeeded", "exit_code": 0}));
    over(&api, &job);
    assert_eq!(host.sent_so_far(&api), Vec::<Value>::new());
    // Ids are opaque to the receiver: one that is no number is none of its business.
    host.agent().send_text(r#"{"type": "heartbeat", "id": "not a number", "payload": {}}"#).unwrap();
    assert_eq!(host.sent_so_far(&api), Vec::<Value>::new());
}

#[test]
fn a_cancel_before_during_and_after() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);

    // Sent, not answered: the agent is told, and its report decides.
    let running = backup(&api, &host.id, "docs");
    host.run("backup");
    let queued = api.run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    let asked = cancel(&api, &running);
    assert_eq!((&asked["id"], &asked["status"]), (&json!(running), &json!("queued")));
    assert!(asked["cancel_requested_at"].is_string(), "{asked}");
    assert_eq!(host.take("command.cancel")["job_id"], running.as_str());
    // Queued behind it: over at once, and never sent.
    assert_eq!(cancel(&api, &queued)["status"], "cancelled");
    assert_eq!(cancel(&api, &queued)["status"], "cancelled");
    host.start(&running, "backup");
    job_when(&api, &running, |job| job["status"] == "running");
    assert_eq!(cancel(&api, &running)["status"], "running", "asked again, answered again");
    host.finish(&running, "cancelled", 130);
    let ended = over(&api, &running);
    assert_eq!((&ended["status"], &ended["exit_code"]), (&json!("cancelled"), &json!(130)));
    assert_eq!(cancel(&api, &running)["status"], "cancelled");

    // A cancel and a finish that cross: what the agent reported stands.
    let crossed = backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), crossed, "the cancelled prune never came");
    host.start(&crossed, "backup");
    job_when(&api, &crossed, |job| job["status"] == "running");
    cancel(&api, &crossed);
    host.finish(&crossed, "succeeded", 0);
    assert_eq!(over(&api, &crossed)["status"], "succeeded");
    let missing = api.call("POST", &format!("/v1/jobs/{}/cancel", uuid::Uuid::now_v7()), None, &[]).unwrap();
    assert_eq!(missing.status, 404);
}

#[test]
fn a_job_waits_for_its_host_and_says_so() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut away = Host::ready(&sandbox, "away", &repository);
    let mut here = Host::ready(&sandbox, "here", &repository);
    group(&api, &away.id, "docs", Value::Null);
    group(&api, &here.id, "docs", Value::Null);
    away.disconnect();
    let waits = |job: &Value| job["waiting_for"].as_str().is_some_and(|text| text.contains("offline"));
    let waiting = backup(&api, &away.id, "docs");
    // A prune of a host that is away holds up nobody.
    let prune = api.run_job(&away.id, &json!({"kind": "prune"})).unwrap();
    job_when(&api, &waiting, waits);
    job_when(&api, &prune, waits);
    let other = backup(&api, &here.id, "docs");
    assert_eq!(here.run("backup"), other);
    here.finish(&other, "succeeded", 0);
    over(&api, &other);

    away.connect(&sandbox, &core());
    assert_eq!(away.run("backup"), waiting);
    let sent = api.job(&waiting).unwrap();
    assert!(sent["dispatched_at"].is_string() && !waits(&sent), "{sent}");
    away.finish(&waiting, "succeeded", 0);
    assert_eq!(away.run("prune"), prune);
}

#[test]
fn init_comes_first_alone_and_until_it_has_succeeded() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut first = Host::enroll(&sandbox, "first", &repository);
    let mut second = Host::enroll(&sandbox, "second", &repository);
    group(&api, &first.id, "docs", Value::Null);
    group(&api, &second.id, "docs", Value::Null);
    let early = backup(&api, &first.id, "docs");
    first.connect(&sandbox, &core());
    let init = first.run("init");
    assert_eq!(api.job(&init).unwrap()["origin"], "first_connect");
    second.connect(&sandbox, &core());
    let unlock = api.run_job(&second.id, &json!({"kind": "unlock"})).unwrap();
    let inits = format!("/v1/jobs?kind=init&host_id={}", second.id);
    let inits = until(&api, &inits, |list| list["items"].as_array().is_some_and(|items| !items.is_empty()));
    for job in [&unlock, &early, &inits["items"][0]["id"].as_str().unwrap().to_owned()] {
        job_when(&api, job, |job| job["waiting_for"].as_str().is_some_and(|text| text.contains("init")));
    }
    assert_eq!(first.runs_so_far(&api), [] as [String; 0]);
    assert_eq!(second.runs_so_far(&api), [] as [String; 0]);

    // A failed init is tried again when the host connects next; meanwhile the second host has its turn.
    first.finish(&init, "failed", 1);
    let second_init = second.run("init");
    first.connect(&sandbox, &core());
    job_when(&api, &second_init, |job| job["status"] == "queued");
    assert_eq!(first.runs_so_far(&api), [] as [String; 0], "never two at once");
    second.finish(&second_init, "succeeded", 0);
    let again = first.run("init");
    assert_ne!(again, init);
    first.finish(&again, "succeeded", 0);
    assert_eq!(first.run("backup"), early);
    assert_eq!(second.run("unlock"), unlock);
    first.finish(&early, "succeeded", 0);
    over(&api, &early);

    // Once is enough.
    first.connect(&sandbox, &core());
    assert_eq!(first.runs_so_far(&api), [] as [String; 0]);
    assert_eq!(api.list(&format!("/v1/jobs?kind=init&host_id={}", first.id)).unwrap().len(), 2);
    assert_eq!(api.list(&format!("/v1/jobs?kind=init&host_id={}", second.id)).unwrap().len(), 1);
}

#[test]
fn backups_share_a_repository_and_a_prune_has_it_alone() {
    let sandbox = Sandbox::start_with(&[("FLEET_DRAIN_AFTER", "0s")]).unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut one = Host::ready(&sandbox, "one", &repository);
    let mut two = Host::ready(&sandbox, "two", &repository);
    group(&api, &one.id, "docs", Value::Null);
    group(&api, &two.id, "docs", Value::Null);
    let (a, b) = (backup(&api, &one.id, "docs"), backup(&api, &two.id, "docs"));
    assert_eq!((one.run("backup"), two.run("backup")), (a.clone(), b.clone()));
    let prune = api.run_job(&two.id, &json!({"kind": "prune"})).unwrap();
    let later = backup(&api, &one.id, "docs");
    one.finish(&a, "succeeded", 0);
    over(&api, &a);
    let held = api.job(&prune).unwrap();
    assert!(held["waiting_for"].as_str().is_some_and(|text| text.contains(&b)), "{held}");
    let behind = api.job(&later).unwrap();
    assert!(behind["waiting_for"].as_str().is_some_and(|text| text.contains(&prune)), "{behind}");
    assert_eq!(one.runs_so_far(&api), [] as [String; 0], "a later backup does not starve the prune");
    two.finish(&b, "succeeded", 0);
    assert_eq!(two.run("prune"), prune);
    job_when(&api, &later, |job| job["waiting_for"].as_str().is_some_and(|text| text.contains(&prune)));
    assert_eq!(one.runs_so_far(&api), [] as [String; 0]);
    two.say("command.result", json!({"job_id": prune, "accepted": false, "error": "not today"}));
    assert_eq!(one.run("backup"), later, "a refusal frees the repository too");
}

#[test]
fn the_list_of_jobs_is_filtered_and_newest_first() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    let made: Vec<String> = (0..5).map(|_| api.run_job(&host.id, &json!({"kind": "unlock"})).unwrap()).collect();
    let id = |job: &Value| job["id"].as_str().unwrap().to_owned();
    let newest_first: Vec<String> = made.iter().rev().cloned().collect();
    let listed =
        |query: &str| -> Vec<String> { api.list(&format!("/v1/jobs?{query}")).unwrap().iter().map(id).collect() };
    assert_eq!(listed("kind=unlock&limit=2"), newest_first, "page after page");
    assert_eq!(listed("origin=first_connect&status=succeeded").len(), 1);
    host.run("unlock");
    host.finish(&made[0], "failed", 1);
    over(&api, &made[0]);
    assert_eq!(listed("status=failed"), made[..1]);
    assert_eq!(listed(&format!("host_id={}", uuid::Uuid::nil())), [] as [String; 0]);
    let bad = api.call("GET", "/v1/jobs?status=done", None, &[]).unwrap();
    assert!([400, 422].contains(&bad.status), "{}", bad.text);
}
