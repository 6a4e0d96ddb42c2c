//! What tests of the coordinator from outside share: hosts whose agents say whatever a test wants.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this and uses a part of it")]

pub mod blocker;

use fleet_integration::{
    Api, Database, Failure, FakeAgent, Host as Enrolled, Received, Reply, Sandbox, Server, eventually,
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Everything here happens within this time or the test fails.
pub const LIMIT: Duration = Duration::from_secs(30);

/// An agent that speaks the contract's core only, such as one in Go.
pub fn core() -> Value {
    json!({})
}

/// An agent that keeps a journal.
pub fn journalling(journal: &str, jobs: &[&str]) -> Value {
    json!({"capabilities": ["ack"], "journal": journal, "jobs": jobs})
}

/// A host with an agent that is connected or can be.
pub struct Host {
    pub id: String,
    pub name: String,
    pub token: String,
    agent: Option<FakeAgent>,
    /// Came while something else was waited for.
    passed: VecDeque<Value>,
    numbered: bool,
    last_id: u64,
}

impl Host {
    /// Enrols a host. Its agent is not connected yet.
    pub fn enroll(sandbox: &Sandbox, name: &str, repository: &str) -> Self {
        let (id, token) = sandbox.enroll(name, Some(repository)).unwrap();
        let name = name.to_owned();
        Self { id, name, token, agent: None, passed: VecDeque::new(), numbered: false, last_id: 0 }
    }

    /// A host whose agent has just said a core hello and has its settings, and whose init has succeeded.
    pub fn ready(sandbox: &Sandbox, name: &str, repository: &str) -> Self {
        Self::ready_as(sandbox, name, repository, &core())
    }

    /// The same with further fields in its hello.
    pub fn ready_as(sandbox: &Sandbox, name: &str, repository: &str, hello: &Value) -> Self {
        let mut host = Self::enroll(sandbox, name, repository);
        host.connect(sandbox, hello);
        let init = host.run("init");
        host.finish(&init, "succeeded", 0);
        let path = format!("/v1/hosts/{}", host.id);
        until(&sandbox.api(), &path, |host| host["repository_initialized"] == true);
        host
    }

    /// Connects, says hello and takes the settings.
    pub fn connect(&mut self, sandbox: &Sandbox, hello: &Value) {
        self.open(sandbox);
        self.hello(hello);
        self.next("schedule.set");
        // The burst itself is a test of its own.
        self.passed.clear();
    }

    /// Connects and says nothing.
    pub fn open(&mut self, sandbox: &Sandbox) {
        self.agent = Some(FakeAgent::connect(sandbox.coordinator.address(), &self.token).unwrap());
        self.passed.clear();
        self.last_id = 0;
    }

    /// Says hello.
    pub fn hello(&mut self, hello: &Value) {
        self.numbered = hello["capabilities"][0] == "ack";
        let name = self.name.clone();
        self.agent().hello(&name, hello).unwrap();
    }

    /// The connection just ends, without a goodbye.
    pub fn disconnect(&mut self) {
        self.agent = None;
    }

    pub fn agent(&mut self) -> &mut FakeAgent {
        self.agent.as_mut().expect("connected")
    }

    /// Sends a message, numbered if this agent keeps a journal. Gives the number.
    pub fn say(&mut self, kind: &str, payload: Value) -> u64 {
        self.last_id += 1;
        let (id, numbered) = (self.last_id, self.numbered);
        let sent = match numbered {
            true => self.agent().send_numbered(id, kind, payload),
            false => self.agent().send(kind, payload),
        };
        sent.unwrap();
        id
    }

    /// Sends a message under a number of the test's choice.
    pub fn say_as(&mut self, id: u64, kind: &str, payload: Value) {
        self.last_id = self.last_id.max(id);
        self.agent().send_numbered(id, kind, payload).unwrap();
    }

    /// The next envelope of this type, whole; others are kept for later.
    pub fn next(&mut self, kind: &str) -> Value {
        if let Some(at) = self.passed.iter().position(|envelope| envelope["type"] == kind) {
            return self.passed.remove(at).unwrap();
        }
        loop {
            let seen: Vec<_> = self.passed.iter().map(|envelope| envelope["type"].to_string()).collect();
            match self.agent().receive() {
                Ok(Received::Envelope(envelope)) if envelope["type"] == kind => return envelope,
                Ok(Received::Envelope(envelope)) => self.passed.push_back(envelope),
                end => panic!("{}: waiting for {kind}, seen {seen:?}, then {end:?}", self.name),
            }
        }
    }

    /// The payload of the next envelope of this type.
    pub fn take(&mut self, kind: &str) -> Value {
        self.next(kind)["payload"].clone()
    }

    /// Whatever comes next.
    pub fn receive(&mut self) -> Received {
        match self.passed.pop_front() {
            Some(envelope) => Received::Envelope(envelope),
            None => self.agent().receive().unwrap(),
        }
    }

    /// The id of the next job, which must be of this kind.
    pub fn run(&mut self, kind: &str) -> String {
        let run = self.take("command.run");
        assert_eq!(run["kind"], kind, "{run}");
        run["job_id"].as_str().unwrap().to_owned()
    }

    pub fn accept(&mut self, job: &str) -> u64 {
        self.say("command.result", json!({"job_id": job, "accepted": true}))
    }

    pub fn start(&mut self, job: &str, kind: &str) -> u64 {
        self.say("job.started", json!({"job_id": job, "kind": kind, "started_at": "2026-03-01T02:00:00Z"}))
    }

    pub fn finish(&mut self, job: &str, status: &str, exit_code: i64) -> u64 {
        let at = "2026-03-01T02:00:09.123456789Z";
        let report = json!({"job_id": job, "status": status, "exit_code": exit_code, "finished_at": at});
        self.say("job.finished", report)
    }

    pub fn log(&mut self, job: &str, seq: i64, payload: &str) -> u64 {
        self.say("log.stream", line(job, seq, payload))
    }

    /// Waits until an `ack` has settled this envelope; the `error`s that came meanwhile stay readable.
    pub fn settled(&mut self, id: u64) {
        loop {
            let up_to = self.take("ack")["up_to"].as_str().unwrap().parse::<u64>().unwrap();
            assert!(up_to <= self.last_id, "ack of {up_to}, which was not sent; the last was {}", self.last_id);
            if up_to >= id {
                return;
            }
        }
    }

    /// All that was sent to this agent so far has come: a change of the host's settings, whose `config.update` goes
    /// the same way, is the marker. Gives what came before it, but settings.
    pub fn sent_so_far(&mut self, api: &Api) -> Vec<Value> {
        let marker = format!("/bin/marker-{}", uuid::Uuid::new_v4());
        let reply = api.call("PATCH", &format!("/v1/hosts/{}", self.id), Some(&json!({"hook_shell": marker})), &[]);
        reply.unwrap().ok().unwrap();
        let mut before: Vec<Value> = Vec::new();
        loop {
            match self.receive() {
                Received::Envelope(envelope) if envelope["payload"]["hook_shell"] == marker.as_str() => {
                    return before;
                }
                Received::Envelope(envelope) if envelope["type"] == "config.update" => {}
                Received::Envelope(envelope) if envelope["type"] == "schedule.set" => {}
                Received::Envelope(envelope) => before.push(envelope),
                end => panic!("{}: {end:?} after {before:?}", self.name),
            }
        }
    }

    /// The command.runs among what was sent so far.
    pub fn runs_so_far(&mut self, api: &Api) -> Vec<String> {
        let sent = self.sent_so_far(api).into_iter().filter(|envelope| envelope["type"] == "command.run");
        sent.map(|envelope| envelope["payload"]["job_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// A coordinator whose database can be stopped and made to hang, and a host with a running backup. The server goes last.
pub fn running_on_own_server() -> (Sandbox, Server, Host, String) {
    let server = Server::start().unwrap();
    let (sandbox, host, job) = running_on(Database::on(&server).unwrap());
    (sandbox, server, host, job)
}

/// A coordinator with that database, and a host with a running backup.
pub fn running_on(database: Database) -> (Sandbox, Host, String) {
    let sandbox = Sandbox::start_on(database, &[]).unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    let last = host.start(&job, "backup");
    host.settled(last);
    (sandbox, host, job)
}

/// Enrols `count` hosts, ten to a repository, with several clients at once.
pub fn enroll_many(sandbox: &Sandbox, count: usize) -> Vec<Enrolled> {
    const CLIENTS: usize = 8;
    let next = AtomicUsize::new(0);
    let client = || {
        let mut enrolled = Vec::new();
        loop {
            let group = next.fetch_add(10, Ordering::Relaxed);
            if group >= count {
                return enrolled;
            }
            let url = format!("/nowhere/{group}");
            let repository = sandbox.api().create_repository(&format!("r{group}"), &url, "password").unwrap();
            for number in group..count.min(group + 10) {
                let name = format!("host-{number}");
                let (id, token) = sandbox.enroll(&name, Some(&repository)).unwrap();
                enrolled.push(Enrolled { id, name, token });
            }
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The payload of a `log.stream`.
pub fn line(job: &str, seq: i64, payload: &str) -> Value {
    json!({"job_id": job, "seq": seq, "ts": "2026-03-01T02:00:01Z", "stream": "stdout", "payload": payload})
}

/// A repository that nobody ever opens.
pub fn repository(sandbox: &Sandbox) -> String {
    sandbox.api().create_repository("main", "/srv/repository", "the password").unwrap()
}

/// A source group of a host, with one path and this retention.
pub fn group(api: &Api, host: &str, name: &str, retention: Value) {
    let mut group = json!({"name": name, "includes": [format!("/srv/{name}")]});
    if !retention.is_null() {
        group["retention"] = retention;
    }
    api.create_source_group(host, &group).unwrap();
}

/// Asks for a backup of a group.
pub fn backup(api: &Api, host: &str, group: &str) -> String {
    api.run_job(host, &json!({"kind": "backup", "source_group": group})).unwrap()
}

/// Reads `path` until it is as it should be.
pub fn until(api: &Api, path: &str, good: impl Fn(&Value) -> bool) -> Value {
    let look = || {
        let found = api.get(path)?;
        if good(&found) { Ok(found) } else { Err(Failure::new(found.to_string())) }
    };
    eventually(path, LIMIT, look).unwrap()
}

/// A job once it is as it should be.
pub fn job_when(api: &Api, job: &str, good: impl Fn(&Value) -> bool) -> Value {
    until(api, &format!("/v1/jobs/{job}"), good)
}

/// A job once it is over.
pub fn over(api: &Api, job: &str) -> Value {
    api.finished_job(job, LIMIT).unwrap()
}

/// (seq, payload) of each line of a job's log.
pub fn log_of(api: &Api, job: &str) -> Vec<(i64, String)> {
    let lines = api.logs(job).unwrap();
    lines.iter().map(|line| (line["seq"].as_i64().unwrap(), line["payload"].as_str().unwrap().to_owned())).collect()
}

/// One request, whatever its answer; a body of null is none.
pub fn ask(api: &Api, method: &str, path: &str, body: &Value) -> Reply {
    api.call(method, path, Some(body).filter(|body| !body.is_null()), &[]).unwrap()
}

/// One POST under an `Idempotency-Key`.
pub fn keyed(api: &Api, path: &str, body: &Value, key: &str) -> Reply {
    api.call("POST", path, Some(body), &[("Idempotency-Key", key)]).unwrap()
}

/// A client with a token of its own; and the token's id.
pub fn client(api: &Api, token: &Value) -> (Api, String) {
    let made = api.post("/v1/tokens", token).unwrap();
    (api.with_token(made["token"].as_str().unwrap()), made["id"].as_str().unwrap().to_owned())
}

/// A host with these labels, and no agent.
pub fn labelled(sandbox: &Sandbox, name: &str, repository: &str, labels: Value) -> String {
    let (id, _) = sandbox.enroll(name, Some(repository)).unwrap();
    let patch = ask(&sandbox.api(), "PATCH", &format!("/v1/hosts/{id}"), &json!({"labels": labels}));
    patch.ok().unwrap();
    id
}
