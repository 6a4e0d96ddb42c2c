//! SIGTERM while the database can't be written: the end comes in time, agents hear why, and what was acknowledged is
//! there afterwards.

mod support;

use fleet_integration::{Coordinator, CoordinatorSettings, Server, leak_free_dir, pause_postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;
use support::{job_when, journalling, log_of, running_on_own_server};

/// What is promised.
const END_LIMIT: Duration = Duration::from_secs(10);

/// SIGTERM; gives what the coordinator had to say about it.
fn end(coordinator: &mut Coordinator) -> String {
    coordinator.process().signal(Signal::SIGTERM);
    let status = coordinator.process().wait(END_LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", coordinator.process().tail(5));
    coordinator.process().output()
}

/// `take_away` the database under a coordinator with a running backup, stop it, `give_back` and look.
fn stop_without_database(take_away: fn(&mut Server), give_back: fn(&mut Server)) {
    let (mut sandbox, mut server, mut host, job) = running_on_own_server();
    let acknowledged = (0..50).map(|seq| host.log(&job, seq, "before")).last().unwrap();
    host.settled(acknowledged);
    take_away(&mut server);
    for seq in 50..100 {
        host.log(&job, seq, "after");
    }
    // Requests that wait for the database don't hold up the end.
    let (api, path) = (sandbox.api(), format!("/v1/jobs/{job}?wait=60"));
    let waiter = std::thread::spawn(move || api.get(&path).map(drop));
    let output = end(&mut sandbox.coordinator);
    assert!(output.contains("not everything could be written; agents keep it"), "{output}");
    let (code, reason) = host.agent().expect_close().unwrap();
    assert_eq!((code, reason.is_empty()), (Some(1001), false), "{reason}");
    waiter.join().unwrap().unwrap_err();

    give_back(&mut server);
    let settings = CoordinatorSettings { database_url: Some(sandbox.database.url()), ..CoordinatorSettings::default() };
    sandbox.coordinator = Coordinator::start(&sandbox.path("coordinator"), &settings).unwrap();
    let api = sandbox.api();
    let stored = log_of(&api, &job);
    assert!(stored.len() >= 50 && stored[..50].iter().all(|(_, text)| text == "before"), "{stored:?}");
    // The agent says again what was not acknowledged.
    host.connect(&sandbox, &journalling("j", &[&job]));
    for seq in 50..100 {
        host.log(&job, seq, "after");
    }
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    job_when(&api, &job, |job| job["status"] == "succeeded");
    assert!(log_of(&api, &job).iter().map(|(seq, _)| *seq).eq(0..100));
}

#[test]
fn a_stop_while_the_database_is_away() {
    stop_without_database(|server| server.stop().unwrap(), |server| server.start_again().unwrap());
}

#[test]
fn a_stop_while_the_database_hangs() {
    stop_without_database(Server::pause, Server::resume);
}

#[test]
fn a_stop_while_the_embedded_database_hangs() {
    let dir = leak_free_dir("fleet-stopping.").unwrap();
    let data_dir = dir.path().join("data");
    let mut coordinator = Coordinator::start(&data_dir, &CoordinatorSettings::default()).unwrap();
    let repository = coordinator.api().create_repository("main", "/srv/r", "pw").unwrap();
    let postmaster = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let postmaster: u32 = postmaster.lines().next().unwrap().parse().unwrap();
    pause_postgres(postmaster);
    let output = end(&mut coordinator);
    assert!(output.contains("the embedded PostgreSQL is stopped"), "{output}");
    assert!(kill(Pid::from_raw(postmaster.cast_signed()), None).is_err(), "the server is gone too");
    // And nothing of it is in the way of the next.
    let coordinator = Coordinator::start(&data_dir, &CoordinatorSettings::default()).unwrap();
    let found = coordinator.api().get(&format!("/v1/repositories/{repository}")).unwrap();
    assert_eq!(found["name"], "main");
}
