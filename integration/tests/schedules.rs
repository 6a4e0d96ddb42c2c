//! Schedules: what the agents are told, and what comes of what they fire.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use support::{Host, backup, core, group, journalling, log_of, over, repository, until};

fn schedule(api: &Api, host: &str, body: &Value) -> Value {
    api.post(&format!("/v1/hosts/{host}/schedules"), body).unwrap()
}

#[test]
fn an_agent_is_told_the_whole_list_with_every_change_and_says_what_it_has() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", json!({"keep_daily": 7}));
    let patch = json!({"post_hook": "echo done"});
    api.call("PATCH", &format!("/v1/hosts/{}", host.id), Some(&patch), &[]).unwrap().ok().unwrap();
    let made =
        schedule(&api, &host.id, &json!({"cron": "0 2 * * *", "timezone": "Europe/Paris", "source_groups": ["docs"]}));

    let told = loop {
        let told = host.take("schedule.set");
        if told["version"] == made["version"] {
            break told;
        }
    };
    let entry = json!({
        "id": made["id"], "cron_expr": "0 2 * * *", "enabled": true, "timezone": "Europe/Paris", "catch_up_seconds": 86400,
        "source_groups": [{
            "name": "docs", "includes": ["/srv/docs"], "retention_policy": {"keep_daily": 7}, "retry_max": 0,
            "retry_backoff_seconds": 60, "post_hook": "echo done",
        }],
    });
    assert_eq!(told["schedules"], json!([entry]));
    host.say("schedule.ack", json!({"version": told["version"], "applied_at": "2026-03-01T02:00:00Z"}));
    let path = format!("/v1/hosts/{}", host.id);
    until(&api, &path, |host| host["applied_schedule_version"] == host["schedule_version"]);

    // While the agent is away its version is behind, which everybody sees; it gets the list when it is back.
    host.disconnect();
    let path_of_schedule = format!("{path}/schedules/{}", made["id"].as_str().unwrap());
    api.call("DELETE", &path_of_schedule, None, &[]).unwrap().ok().unwrap();
    let behind = api.get(&path).unwrap();
    assert!(behind["applied_schedule_version"].as_i64() < behind["schedule_version"].as_i64(), "{behind}");
    host.open(&sandbox);
    host.hello(&core());
    let told = host.take("schedule.set");
    assert_eq!((&told["version"], &told["schedules"]), (&behind["schedule_version"], &json!([])));
}

/// A schedule of these groups that does not fire by itself while a test runs.
fn yearly(api: &Api, host: &str, groups: &[&str]) -> String {
    let made = schedule(api, host, &json!({"cron": "0 0 1 1 *", "source_groups": groups}));
    made["id"].as_str().unwrap().to_owned()
}

fn runs(api: &Api, host: &str) -> Vec<Value> {
    api.list(&format!("/v1/hosts/{host}/runs")).unwrap()
}

/// The one run of the host, once its outcome is this.
fn run_when(api: &Api, host: &str, outcome: &str) -> Value {
    let path = format!("/v1/hosts/{host}/runs");
    let list = until(api, &path, |list| {
        list["items"].as_array().is_some_and(|items| items.len() == 1 && items[0]["outcome"] == outcome)
    });
    list["items"][0].clone()
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339()
}

fn ago(hours: i64) -> String {
    (chrono::Utc::now() - chrono::TimeDelta::hours(hours)).to_rfc3339()
}

fn id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Runs a job to its end, as its agent.
fn complete(host: &mut Host, job: &str) -> u64 {
    host.accept(job);
    host.start(job, "backup");
    host.log(job, 0, "a line");
    host.finish(job, "succeeded", 0)
}

#[test]
fn a_firing_makes_a_job_for_each_group_once_for_agents_that_keep_no_journal() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "web-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    group(&api, &host.id, "etc", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs", "etc"]);
    let fire = json!({"schedule_id": schedule, "scheduled_at": now()});
    host.say("schedule.fire", fire.clone());
    let jobs = [host.run("backup"), host.run("backup")];
    host.say("schedule.fire", fire);
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    for job in &jobs {
        complete(&mut host, job);
        let job = over(&api, job);
        assert_eq!((&job["origin"], &job["schedule_id"]), (&json!("schedule"), &json!(schedule)));
    }
    let runs = runs(&api, &host.id);
    let outcomes: Vec<_> = runs.iter().map(|run| run["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["succeeded", "succeeded"], "{runs:?}");
}

#[test]
fn the_ids_that_an_agent_makes_are_its_jobs_however_often_it_tells() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let hello = journalling("j", &[]);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &hello);
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs"]);
    let job = id();
    let fire = json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [job]});
    let first = host.say("schedule.fire", fire.clone());
    assert_eq!(host.run("backup"), job);
    host.settled(first);
    let again = host.say("schedule.fire", fire.clone());
    host.settled(again);
    let last = complete(&mut host, &job);
    host.settled(last);
    // Also once it is over, over another connection.
    host.connect(&sandbox, &hello);
    let again = host.say("schedule.fire", fire);
    host.settled(again);
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    assert_eq!(api.job(&job).unwrap()["status"], "succeeded");
    assert_eq!(run_when(&api, &host.id, "succeeded")["job_id"], json!(job));
}

#[test]
fn an_id_that_is_another_hosts_job_takes_nothing_from_it() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut thief = Host::ready_as(&sandbox, "web-2", &repository, &journalling("k", &[]));
    let mut victim = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    group(&api, &victim.id, "docs", Value::Null);
    let running = backup(&api, &victim.id, "docs");
    assert_eq!(victim.run("backup"), running);
    let done = backup(&api, &victim.id, "docs");
    assert_eq!(victim.run("backup"), done);
    let last = complete(&mut victim, &done);
    victim.settled(last);

    group(&api, &thief.id, "docs", Value::Null);
    let schedule = yearly(&api, &thief.id, &["docs"]);
    for (hours, job) in [&running, &done].into_iter().enumerate() {
        let at = ago(i64::try_from(hours).unwrap());
        let fire = thief.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": at, "job_ids": [job]}));
        thief.settled(fire);
        let finished = thief.finish(job, "failed", 1);
        thief.settled(finished);
        assert_eq!(thief.take("error")["code"], "not_your_job");
    }
    assert_eq!(api.job(&done).unwrap()["status"], "succeeded");
    assert_eq!(api.job(&running).unwrap()["host_id"], json!(victim.id));
    let last = complete(&mut victim, &running);
    victim.settled(last);
    assert_eq!(api.job(&running).unwrap()["status"], "succeeded");
}

#[test]
fn a_group_whose_last_job_is_not_over_is_skipped_and_the_ledger_says_so() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs"]);
    let running = backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), running);
    host.accept(&running);
    host.start(&running, "backup");
    let fire = host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [id()]}));
    host.settled(fire);
    let run = run_when(&api, &host.id, "skipped");
    assert!(run["reason"].as_str().unwrap().contains(&running), "{run}");
    assert_eq!((&run["job_id"], &run["attempts"]), (&Value::Null, &json!(0)));
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
}

#[test]
fn what_an_agent_has_run_by_itself_is_adopted_with_everything_in_it() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let hello = journalling("j", &[]);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &hello);
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs"]);
    // Three days later: each firing, and all that came of it, in the order in which it happened.
    host.connect(&sandbox, &hello);
    let mut jobs = Vec::new();
    let mut last = 0;
    for hours in [72, 48, 24] {
        let job = id();
        host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": ago(hours), "job_ids": [job]}));
        last = complete(&mut host, &job);
        jobs.push(job);
    }
    host.settled(last);
    for job in &jobs {
        let found = api.job(job).unwrap();
        assert_eq!((&found["status"], &found["origin"]), (&json!("succeeded"), &json!("schedule")), "{found}");
        assert_eq!(found["source_group"], "docs");
        assert_eq!(log_of(&api, job), [(0, "a line".to_owned())]);
    }
    let found = runs(&api, &host.id);
    let pairs: Vec<_> = found.iter().map(|run| (run["outcome"].as_str().unwrap(), run["job_id"].clone())).collect();
    let expected: Vec<_> = jobs.iter().rev().map(|job| ("succeeded", json!(job))).collect();
    assert_eq!(pairs, expected);
    // None of them was sent to be run again.
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
}

#[test]
fn a_job_that_an_agent_is_still_at_when_it_comes_back_holds_its_repository() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs"]);
    let job = id();
    host.connect(&sandbox, &journalling("j", &[&job]));
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": ago(30), "job_ids": [job]}));
    host.accept(&job);
    let started = host.start(&job, "backup");
    host.settled(started);
    assert_eq!(api.job(&job).unwrap()["status"], "running");
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    let waiting = api.job(&check).unwrap();
    assert!(waiting["waiting_for"].as_str().is_some_and(|text| text.contains(&job)), "{waiting}");
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    assert_eq!(host.run("check"), check);
}

#[test]
fn a_failed_backup_is_tried_again_and_each_attempt_is_a_job() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    let docs = json!({"name": "docs", "includes": ["/srv"], "retry_max": 2, "retry_backoff_seconds": 0});
    api.create_source_group(&host.id, &docs).unwrap();
    let schedule = yearly(&api, &host.id, &["docs"]);
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [id()]}));
    let (mut before, mut due_at) = (Value::Null, Value::Null);
    for attempt in 1..=3 {
        let job = host.run("backup");
        host.accept(&job);
        host.start(&job, "backup");
        let last = host.finish(&job, "failed", 1);
        host.settled(last);
        let job = over(&api, &job);
        assert_eq!((&job["attempt"], &job["retry_of"]), (&json!(attempt), &before), "{job}");
        assert_eq!(job["origin"], if attempt == 1 { "schedule" } else { "retry" });
        if attempt == 1 {
            due_at = job["scheduled_at"].clone();
        }
        assert!(due_at.is_string() && job["scheduled_at"] == due_at, "each attempt is for what was due: {job}");
        before = job["id"].clone();
    }
    let run = run_when(&api, &host.id, "failed");
    assert_eq!((&run["attempts"], &run["job_id"], &run["due_at"]), (&json!(3), &before, &due_at), "{run}");
}

#[test]
fn each_pause_before_an_attempt_is_twice_as_long() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    let docs = json!({"name": "docs", "includes": ["/srv"], "retry_max": 3, "retry_backoff_seconds": 100});
    api.create_source_group(&host.id, &docs).unwrap();
    let schedule = yearly(&api, &host.id, &["docs"]);
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [id()]}));
    for seconds in [100.0, 200.0, 400.0] {
        let job = host.run("backup");
        host.accept(&job);
        let last = host.finish(&job, "failed", 1);
        host.settled(last);
        run_when(&api, &host.id, "retrying");
        let pause = "SELECT extract(epoch FROM retry_at - changed_at) FROM runs";
        let pause: f64 = sandbox.database.query(pause).unwrap()[0][0].as_deref().unwrap().parse().unwrap();
        assert!((0.8 * seconds..=1.2 * seconds).contains(&pause), "{pause} for {seconds}");
        assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
        sandbox.database.query("UPDATE runs SET retry_at = now() RETURNING id").unwrap();
    }
    host.run("backup");
}

#[test]
fn what_was_refused_or_cancelled_is_not_tried_again() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    let docs = json!({"name": "docs", "includes": ["/srv"], "retry_max": 2, "retry_backoff_seconds": 0});
    api.create_source_group(&host.id, &docs).unwrap();
    let schedule = yearly(&api, &host.id, &["docs"]);
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [id()]}));
    let refused = host.run("backup");
    let last = host.say("command.result", json!({"job_id": refused, "accepted": false, "error": "no restic"}));
    host.settled(last);
    let run = run_when(&api, &host.id, "failed");
    assert!(run["reason"].as_str().unwrap().contains("no restic"), "{run}");
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": ago(1), "job_ids": [id()]}));
    let cancelled = host.run("backup");
    host.accept(&cancelled);
    let last = host.finish(&cancelled, "cancelled", 130);
    host.settled(last);
    let outcomes: Vec<_> = runs(&api, &host.id).iter().map(|run| run["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["failed", "cancelled"]);
}

#[test]
fn a_firing_before_its_time_makes_no_job_but_what_was_run_is_believed() {
    let mut sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["docs"]);
    let (early, alone) = (id(), id());
    for (hours, job) in [(2, &early), (3, &alone)] {
        let fire = json!({"schedule_id": schedule, "scheduled_at": ago(-hours), "job_ids": [job]});
        let fired = host.say("schedule.fire", fire.clone());
        let refused = host.next("error");
        assert_eq!((&refused["id"], &refused["payload"]["code"]), (&json!(fired.to_string()), &json!("clock_ahead")));
        let told = &refused["payload"]["early_firing"];
        assert_eq!(
            (&told["schedule_id"], told["in_seconds"].as_i64().unwrap() / 60),
            (&json!(schedule), hours * 60 - 1)
        );
        host.settled(fired);
    }
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    let outcomes = |host: &Host| runs(&api, &host.id).into_iter().map(|run| run["outcome"].clone()).collect::<Vec<_>>();
    assert_eq!(outcomes(&host), ["missed", "missed"]);
    assert!(runs(&api, &host.id)[0]["reason"].as_str().unwrap().contains("clock of its agent is ahead"));
    // What it has run by itself with such a clock is believed.
    let last = complete(&mut host, &alone);
    host.settled(last);
    assert_eq!(outcomes(&host), ["succeeded", "missed"]);
    let log = sandbox.coordinator.process().output();
    assert_eq!(log.matches("its firings are not run until its clock is right").count(), 1, "{log}");
}

/// Puts other groups into a schedule.
fn regroup(api: &Api, host: &str, schedule: &str, groups: &[&str]) {
    let body = json!({"cron": "0 0 1 1 *", "source_groups": groups});
    api.call("PUT", &format!("/v1/hosts/{host}/schedules/{schedule}"), Some(&body), &[]).unwrap().ok().unwrap();
}

/// The run of a group, once its outcome is this.
fn run_of(api: &Api, host: &str, group: &str, outcome: &str) -> Value {
    let is_it = |run: &&Value| run["source_group"] == group && run["outcome"] == outcome;
    let list = until(api, &format!("/v1/hosts/{host}/runs"), |list| {
        list["items"].as_array().is_some_and(|items| items.iter().any(|run| is_it(&run)))
    });
    list["items"].as_array().unwrap().iter().find(is_it).unwrap().clone()
}

#[test]
fn the_jobs_of_a_firing_are_of_the_groups_that_it_names_whatever_the_schedule_says_by_now() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    for name in ["db", "docs", "etc"] {
        group(&api, &host.id, name, Value::Null);
    }
    let schedule = yearly(&api, &host.id, &["docs", "etc"]);
    // While the agent was cut off it has fired and run both; meanwhile one has come to the front, and the last has gone.
    regroup(&api, &host.id, &schedule, &["db", "docs"]);
    let (docs, etc) = (id(), id());
    let named = json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [docs, etc], "source_groups": ["docs", "etc"]});
    let fire = host.say("schedule.fire", named);
    host.settled(fire);
    let why = run_of(&api, &host.id, "etc", "skipped")["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("no longer has this group"), "{why}");
    for job in [&docs, &etc] {
        let last = complete(&mut host, job);
        host.settled(last);
        assert_eq!(api.job(job).unwrap()["status"], "succeeded");
    }
    assert_eq!(run_of(&api, &host.id, "docs", "succeeded")["job_id"], json!(docs));
    assert_eq!(run_of(&api, &host.id, "etc", "succeeded")["job_id"], json!(etc));
    // Nobody has backed up the third yet: it has a job of its own.
    let db = run_of(&api, &host.id, "db", "running")["job_id"].as_str().unwrap().to_owned();
    let sent = [host.run("backup"), host.run("backup")];
    assert!(db != docs && db != etc && sent.contains(&db) && sent.contains(&docs), "{db} {sent:?}");
    let last = complete(&mut host, &db);
    host.settled(last);
    run_of(&api, &host.id, "db", "succeeded");
}

#[test]
fn ids_without_names_count_only_if_there_is_one_for_each_group() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "db", Value::Null);
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["db", "docs"]);
    let job = id();
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": [job]}));
    for sent in [host.run("backup"), host.run("backup")] {
        assert_ne!(sent, job);
        let last = complete(&mut host, &sent);
        host.settled(last);
    }
    let both = [id(), id()];
    host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": ago(1), "job_ids": both}));
    let sent = [host.run("backup"), host.run("backup")];
    assert!(both.iter().all(|job| sent.contains(job)), "{both:?} {sent:?}");
    assert_eq!(api.job(&both[1]).unwrap()["source_group"], "docs");
}

#[test]
fn a_firing_whose_ids_or_names_contradict_each_other_is_refused() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&api, &host.id, "db", Value::Null);
    group(&api, &host.id, "docs", Value::Null);
    let schedule = yearly(&api, &host.id, &["db", "docs"]);
    let (one, other) = (id(), id());
    let many: Vec<_> = (0..5000).map(|_| id()).collect();
    let none: [&str; 0] = [];
    for (ids, names, code) in [
        (json!([one, one]), json!(none), "bad_job_id"),
        (json!([one, one.to_uppercase()]), json!(["db", "docs"]), "bad_job_id"),
        (json!([one, other]), json!(["docs"]), "bad_source_groups"),
        (json!([one, other]), json!(["docs", "docs"]), "bad_source_groups"),
        (json!([one]), json!(["x".repeat(256)]), "bad_source_groups"),
        (json!(many), json!(many), "bad_source_groups"),
    ] {
        let fire = json!({"schedule_id": schedule, "scheduled_at": now(), "job_ids": ids, "source_groups": names});
        let refused = host.say("schedule.fire", fire);
        host.settled(refused);
        assert_eq!(host.take("error")["code"], code);
    }
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    assert_eq!(runs(&api, &host.id), Vec::<Value>::new());
}
