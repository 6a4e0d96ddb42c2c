//! Maintenance of repositories that several hosts share: what is due becomes jobs of the right host, one after the other.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use support::{Host, backup, group, journalling, over, repository, until};

/// A coordinator without jitter.
fn sandbox() -> Sandbox {
    Sandbox::start_with(&[("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap()
}

/// Our own agent, which can forget for other hosts.
fn guarding(journal: &str) -> Value {
    json!({"capabilities": ["ack", "forget-guard"], "journal": journal, "jobs": []})
}

/// Maintenance that does not come due by itself while a test runs.
fn maintain(api: &Api, repository: &str, more: &Value) {
    let mut body = json!({"forget": {"cron": "0 0 1 1 *"}, "prune": {"cron": "0 0 1 1 *"}, "check": {"cron": "0 0 1 1 *", "subset": "1/7"}});
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    let path = format!("/v1/repositories/{repository}/maintenance");
    api.call("PUT", &path, Some(&body), &[]).unwrap().ok().unwrap();
}

/// These kinds are due now.
fn due(sandbox: &Sandbox, kinds: &str) {
    let sql = format!(
        "UPDATE maintenance SET next_due_at = date_trunc('second', now()) WHERE kind IN ({kinds}) RETURNING kind"
    );
    assert!(!sandbox.database.query(&sql).unwrap().is_empty());
}

/// The outcomes of the repository's runs, by kind, once nothing is open.
fn settled(api: &Api, repository: &str, count: usize) -> Vec<(String, String)> {
    let path = format!("/v1/repositories/{repository}/runs");
    let is_open = |run: &Value| run["outcome"] == "expected" || run["outcome"] == "running";
    let list = until(api, &path, |list| {
        list["items"].as_array().is_some_and(|items| items.len() == count && !items.iter().any(is_open))
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let runs = list["items"].as_array().unwrap().iter();
    let mut found: Vec<_> = runs.map(|run| (text(&run["kind"]), text(&run["outcome"]))).collect();
    found.sort();
    found
}

#[test]
fn one_forget_covers_every_host_and_prune_follows_it() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut web = Host::ready_as(&sandbox, "web-1", &repository, &guarding("a"));
    let db = Host::ready_as(&sandbox, "db-1", &repository, &journalling("b", &[]));
    group(&api, &web.id, "docs", json!({"keep_last": 3}));
    group(&api, &db.id, "docs", json!({"keep_daily": 7}));
    group(&api, &db.id, "tmp", Value::Null);
    maintain(&api, &repository, &json!({"forget_limit": {"share": 0.5}}));
    due(&sandbox, "'forget', 'prune'");

    // Only web's agent can do it for all.
    let forget = web.take("command.run");
    assert_eq!((&forget["kind"], &forget["forget_limit"]), (&json!("forget"), &json!({"share": 0.5})));
    let mut groups = forget["forget_groups"].as_array().unwrap().clone();
    groups.sort_by_key(|group| group["host"].to_string());
    assert_eq!(
        groups,
        [
            json!({"tag": "docs", "policy": {"keep_daily": 7}, "host": "db-1"}),
            json!({"tag": "docs", "policy": {"keep_last": 3}, "host": "web-1"}),
        ]
    );
    let forget = forget["job_id"].as_str().unwrap().to_owned();
    web.accept(&forget);
    web.start(&forget, "forget");
    assert_eq!(web.runs_so_far(&api), Vec::<String>::new(), "prune waits");
    let last = web.finish(&forget, "succeeded", 0);
    web.settled(last);
    // Whichever host it is, it comes after the forget.
    let prune =
        until(&api, "/v1/jobs?kind=prune", |list| list["items"].as_array().is_some_and(|items| items.len() == 1));
    let prune = &prune["items"][0];
    let (at, forgot) = (prune["created_at"].as_str().unwrap(), over(&api, &forget));
    assert!(at > forgot["dispatched_at"].as_str().unwrap(), "{prune} {forgot}");
    assert_eq!((&prune["origin"], &prune["requested_by"]), (&json!("maintenance"), &json!("maintenance")));
}

#[test]
fn the_runner_alone_gets_the_admin_credential_and_the_work() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let body = json!({
        "name": "main", "url": "/srv/repository", "password": "pw", "append_only": true,
        "admin": {"username": "admin", "credential": "secret"},
    });
    let repository = api.post("/v1/repositories", &body).unwrap()["id"].as_str().unwrap().to_owned();
    let mut runner = Host::ready_as(&sandbox, "trusted", &repository, &guarding("a"));
    let mut web = Host::ready_as(&sandbox, "web-1", &repository, &guarding("b"));
    group(&api, &web.id, "docs", json!({"keep_last": 3}));
    maintain(&api, &repository, &json!({"runner_host_id": runner.id}));

    // What web's agent had of it is taken away again.
    let admin = loop {
        let update = web.take("config.update");
        if update["slot"] == "admin" && update["clear"].is_array() {
            break update;
        }
    };
    assert!(admin["repo_credential"].is_null(), "{admin}");
    assert!(admin["clear"].as_array().unwrap().contains(&json!("repo_credential")), "{admin}");
    web.connect(&sandbox, &guarding("b"));

    for part in ["1/7", "2/7"] {
        due(&sandbox, "'check'");
        let check = runner.take("command.run");
        assert_eq!((&check["kind"], &check["args"]), (&json!("check"), &json!([part])));
        let check = check["job_id"].as_str().unwrap().to_owned();
        runner.accept(&check);
        let last = runner.finish(&check, "succeeded", 0);
        runner.settled(last);
    }
    assert_eq!(settled(&api, &repository, 2), vec![("check".to_owned(), "succeeded".to_owned()); 2]);

    // While it is away the work waits for it, and nobody else does it.
    runner.disconnect();
    due(&sandbox, "'prune'");
    let path = format!("/v1/repositories/{repository}/runs");
    until(&api, &path, |list| list["items"][0]["kind"] == "prune" && list["items"][0]["outcome"] == "expected");
    assert_eq!(web.runs_so_far(&api), Vec::<String>::new());
    runner.connect(&sandbox, &guarding("a"));
    let prune = runner.take("command.run");
    assert_eq!((&prune["kind"], &prune["requires_admin_creds"]), (&json!("prune"), &json!(true)));
}

#[test]
fn hosts_whose_agents_can_not_forget_for_others_forget_each_for_itself() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut hosts = ["web-1", "db-1"].map(|name| Host::ready(&sandbox, name, &repository));
    for host in &hosts {
        group(&api, &host.id, "docs", json!({"keep_last": 3}));
    }
    maintain(&api, &repository, &json!({}));
    due(&sandbox, "'forget'");
    for host in &mut hosts {
        let forget = host.take("command.run");
        assert_eq!(forget["forget_groups"], json!([{"tag": "docs", "policy": {"keep_last": 3}}]));
        let forget = forget["job_id"].as_str().unwrap().to_owned();
        host.finish(&forget, "succeeded", 0);
    }
    let outcomes = settled(&api, &repository, 3);
    let of = |outcome: &str| ("forget".to_owned(), outcome.to_owned());
    assert_eq!(outcomes, [of("skipped"), of("succeeded"), of("succeeded")]);
}

#[test]
fn what_waits_goes_out_with_the_settings_of_the_moment() {
    let sandbox = Sandbox::start_with(&[("FLEET_MAINTENANCE_JITTER", "0s"), ("FLEET_DRAIN_AFTER", "0s")]).unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &guarding("a"));
    group(&api, &host.id, "docs", json!({"keep_last": 3}));
    group(&api, &host.id, "etc", json!({"keep_last": 1}));
    let running = backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), running);
    // Both wait for it, the backup behind the forget.
    maintain(&api, &repository, &json!({}));
    due(&sandbox, "'forget'");
    until(&api, "/v1/jobs?kind=forget", |list| list["items"].as_array().is_some_and(|items| items.len() == 1));
    let last = backup(&api, &host.id, "docs");
    let docs = format!("/v1/hosts/{}/source-groups/docs", host.id);
    let changed = json!({"includes": ["/srv/other"], "retention": {"keep_last": 9}, "pre_hook": "true"});
    api.call("PUT", &docs, Some(&changed), &[]).unwrap().ok().unwrap();
    let etc = format!("/v1/hosts/{}/source-groups/etc", host.id);
    api.call("DELETE", &etc, None, &[]).unwrap().ok().unwrap();
    host.accept(&running);
    host.finish(&running, "succeeded", 0);
    let forget = host.take("command.run");
    assert_eq!(forget["forget_groups"], json!([{"tag": "docs", "policy": {"keep_last": 9}, "host": "web-1"}]));
    let forget = forget["job_id"].as_str().unwrap().to_owned();
    host.accept(&forget);
    host.finish(&forget, "succeeded", 0);
    let run = host.take("command.run");
    assert_eq!(
        (&run["job_id"], &run["includes"], &run["pre_hook"]),
        (&json!(last), &json!(["/srv/other"]), &json!("true"))
    );
}

#[test]
fn what_waits_for_a_host_that_went_offline_is_given_to_another() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut web = Host::ready_as(&sandbox, "web-1", &repository, &guarding("a"));
    let mut db = Host::ready_as(&sandbox, "db-1", &repository, &guarding("b"));
    group(&api, &web.id, "docs", Value::Null);
    let running = backup(&api, &web.id, "docs");
    assert_eq!(web.run("backup"), running);
    web.accept(&running);
    maintain(&api, &repository, &json!({}));
    due(&sandbox, "'check'");
    let list =
        until(&api, "/v1/jobs?kind=check", |list| list["items"].as_array().is_some_and(|items| items.len() == 1));
    let first = list["items"][0].clone();
    let (gone, left) = if first["host_id"] == web.id.as_str() { (&mut web, &mut db) } else { (&mut db, &mut web) };
    gone.disconnect();
    // It counts as offline when it has been silent for a minute and a half.
    let silent = format!("UPDATE hosts SET online = false WHERE id = '{}' RETURNING id", gone.id);
    let list = until(&api, "/v1/jobs?kind=check", |list| {
        sandbox.database.query(&silent).unwrap();
        list["items"].as_array().is_some_and(|items| items.len() == 2)
    });
    let second = list["items"].as_array().unwrap().iter().find(|job| job["id"] != first["id"]).unwrap().clone();
    assert_eq!(second["host_id"], left.id.as_str());
    let withdrawn = over(&api, first["id"].as_str().unwrap());
    assert_eq!(withdrawn["status"], "cancelled");
    assert!(withdrawn["error"].as_str().unwrap().contains("went offline"), "{withdrawn}");
    if first["host_id"] == web.id.as_str() {
        web.connect(&sandbox, &json!({"capabilities": ["ack", "forget-guard"], "journal": "a", "jobs": [running]}));
    }
    let last = web.finish(&running, "succeeded", 0);
    web.settled(last);
    let host = if second["host_id"] == web.id.as_str() { &mut web } else { &mut db };
    let check = host.run("check");
    assert_eq!(second["id"], check.as_str());
    host.accept(&check);
    let end = host.finish(&check, "succeeded", 0);
    host.settled(end);
    assert_eq!(settled(&api, &repository, 1), [("check".to_owned(), "succeeded".to_owned())]);
}

/// A check that waits for a backup on a host of the repository which goes offline, and another host that could do it.
fn strand(sandbox: &Sandbox, repository: &str, name: &str) -> ([Host; 2], String) {
    let api = sandbox.api();
    let hosts = ["web", "db"].map(|role| format!("{role}-{name}"));
    let [mut web, mut db] = hosts.map(|host| Host::ready_as(sandbox, &host, repository, &guarding(&host)));
    db.disconnect();
    let gone = format!("UPDATE hosts SET online = false WHERE id = '{}' RETURNING id", db.id);
    sandbox.database.query(&gone).unwrap();
    group(&api, &web.id, "docs", Value::Null);
    let running = backup(&api, &web.id, "docs");
    assert_eq!(web.run("backup"), running);
    maintain(&api, repository, &json!({}));
    let due = format!(
        "UPDATE maintenance SET next_due_at = date_trunc('second', now()) WHERE kind = 'check' AND repository_id = '{repository}' RETURNING kind"
    );
    sandbox.database.query(&due).unwrap();
    let path = format!("/v1/jobs?kind=check&host_id={}", web.id);
    let list = until(&api, &path, |list| list["items"].as_array().is_some_and(|items| items.len() == 1));
    web.disconnect();
    let journal = db.name.clone();
    db.connect(sandbox, &guarding(&journal));
    ([web, db], list["items"][0]["id"].as_str().unwrap().to_owned())
}

#[test]
fn what_can_not_be_given_to_another_host_keeps_nobody_from_it() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let [paused, stuck, free] =
        ["paused", "stuck", "free"].map(|name| api.create_repository(name, &format!("/srv/{name}"), "pw").unwrap());
    let ([gone, _there], kept) = strand(&sandbox, &paused, "one");
    let pause = json!({"reason": "new disks"});
    api.call("PUT", &format!("/v1/repositories/{paused}/pause"), Some(&pause), &[]).unwrap().ok().unwrap();
    // Many that wait for the one host of their repository, more than are looked at together.
    let (old, _) = sandbox.enroll("old", Some(&stuck)).unwrap();
    let many = format!(
        "WITH made AS (
             INSERT INTO jobs (id, host_id, repository_id, kind, status, origin, command, created_at, run_id)
             SELECT gen_random_uuid(), '{old}', '{stuck}', 'check', 'queued', 'maintenance', '{{\"job_id\": \"x\", \"kind\": \"check\"}}',
                 now(), gen_random_uuid()
             FROM generate_series(1, 600) RETURNING id, run_id
         )
         INSERT INTO runs (id, kind, repository_id, due_at, outcome, job_id, changed_at)
         SELECT run_id, 'check', '{stuck}', now(), 'running', id, now() FROM made RETURNING id"
    );
    assert_eq!(sandbox.database.query(&many).unwrap().len(), 600);
    let (_hosts, first) = strand(&sandbox, &free, "two");
    let silent = "UPDATE hosts SET online = false WHERE hostname LIKE 'web-%' RETURNING id";
    let given_on = |repository: &str, before: &str| {
        let path = format!("/v1/repositories/{repository}/runs");
        until(&api, &path, |list| {
            sandbox.database.query(silent).unwrap();
            list["items"][0]["outcome"] == "running" && list["items"][0]["job_id"] != before
        })
    };
    given_on(&free, &first);
    assert_eq!(over(&api, &first)["status"], "cancelled");
    // What is paused was looked at before: it keeps its place, and is given to another once the pause is over.
    let waiting = api.job(&kept).unwrap();
    assert_eq!((&waiting["status"], &waiting["host_id"]), (&json!("queued"), &json!(gone.id)), "{waiting}");
    api.call("DELETE", &format!("/v1/repositories/{paused}/pause"), None, &[]).unwrap().ok().unwrap();
    given_on(&paused, &kept);
}

#[test]
fn a_job_whose_settings_can_not_be_read_gives_its_repository_back_and_says_so() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &guarding("a"));
    group(&api, &host.id, "docs", Value::Null);
    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(host.run("check"), check);
    let waiting = backup(&api, &host.id, "docs");
    let last = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    // The ledger takes writes, and gives everything but this.
    sandbox.database.query("ALTER TABLE source_groups RENAME COLUMN includes TO gone").unwrap();
    host.accept(&check);
    let end = host.finish(&check, "succeeded", 0);
    host.settled(end);
    let failed = over(&api, &waiting);
    assert_eq!(failed["status"], "failed");
    assert!(failed["error"].as_str().unwrap().contains("can't be read"), "{failed}");
    assert_eq!(host.run("check"), last, "its lease is free");
}

#[test]
fn a_stale_lock_is_offered_for_an_unlock_that_a_person_asks_for() {
    let sandbox = sandbox();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut web = Host::ready_as(&sandbox, "web-1", &repository, &guarding("a"));
    let mut db = Host::ready_as(&sandbox, "db-1", &repository, &guarding("b"));
    let path = format!("/v1/repositories/{repository}");
    let locks = || {
        let health = api.get(&path).unwrap()["health"].clone();
        let problems = health["problems"].as_array().unwrap().iter().filter(|problem| problem["type"] == "stale_lock");
        problems.cloned().collect::<Vec<_>>()
    };
    let mut met = |lock: Value| {
        let prune = api.run_job(&web.id, &json!({"kind": "prune"})).unwrap();
        assert_eq!(web.run("prune"), prune);
        let stats = json!({"lock": lock, "waited_seconds": 0});
        let report = json!({"job_id": prune, "status": "failed", "exit_code": 11, "finished_at": "2026-03-01T02:00:09Z", "stats": stats, "error": "locked"});
        let last = web.say("job.finished", report);
        web.settled(last);
        prune
    };
    let lock = |id: &str, hostname: &str, standing: &str| json!({"exclusive": false, "pid": 7, "hostname": hostname, "username": "root", "since": "2026-03-01T02:00:00Z", "id": id, "standing": standing});
    // Of a host that is none of the fleet, and runs for all that is known.
    met(lock("aaaa", "laptop", "held"));
    assert_eq!(locks(), Vec::<Value>::new());
    let job = met(lock("bbbb", "web-1", "dead"));
    met(lock("cccc", "db-1", "held"));
    met(lock("cccc", "db-1", "held"));
    let found = locks();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0]["met_by_job_id"], &found[0]["lock"]["standing"]), (&json!(job), &json!("dead")));
    let detail = found[0]["detail"].as_str().unwrap();
    for part in ["process 7", "web-1", "root", "2026-03-01 02:00:00", "not running any more", "unlock", job.as_str()] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert_eq!((&found[0]["unlock_host_id"], &found[1]["unlock_host_id"]), (&json!(web.id), &json!(db.id)));
    // Nobody removes them but who is asked to, and a failure removes nothing.
    assert!(web.runs_so_far(&api).is_empty() && db.runs_so_far(&api).is_empty());
    for (status, left) in [("failed", 2), ("succeeded", 1)] {
        let unlock = api.run_job(&web.id, &json!({"kind": "unlock"})).unwrap();
        assert_eq!(web.run("unlock"), unlock);
        let last = web.finish(&unlock, status, i64::from(status == "failed"));
        web.settled(last);
        assert_eq!(locks().len(), left);
    }
    // Who has had the repository for himself has found none.
    let check = api.run_job(&db.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(db.run("check"), check);
    let last = db.finish(&check, "succeeded", 0);
    db.settled(last);
    assert_eq!(locks(), Vec::<Value>::new());
    assert_eq!(api.get(&path).unwrap()["health"]["status"], "ok");
}

#[test]
fn a_restart_neither_forgets_nor_repeats_what_is_due() {
    let mut sandbox = sandbox();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &guarding("a"));
    maintain(&api, &repository, &json!({}));
    host.disconnect();
    due(&sandbox, "'check'");
    let path = format!("/v1/repositories/{repository}/runs");
    until(&api, &path, |list| list["items"][0]["outcome"] == "expected");
    sandbox.restart_with(&[("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap();
    host.connect(&sandbox, &guarding("a"));
    let check = host.run("check");
    host.accept(&check);
    sandbox.restart_with(&[("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap();
    host.connect(&sandbox, &json!({"capabilities": ["ack", "forget-guard"], "journal": "a", "jobs": [check]}));
    let last = host.finish(&check, "succeeded", 0);
    host.settled(last);
    assert_eq!(settled(&sandbox.api(), &repository, 1), [("check".to_owned(), "succeeded".to_owned())]);
    assert_eq!(host.runs_so_far(&sandbox.api()), Vec::<String>::new());
}
