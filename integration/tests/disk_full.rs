//! The disk of the database is full: nothing that was acknowledged is lost, and all flows in when there is room again.

mod support;

use fleet_integration::{Database, Failure, SmallDisk, eventually};
use serde_json::json;
use std::thread;
use std::time::Duration;
use support::{job_when, running_on};

/// A fresh cluster takes about 40 MiB.
const DISK_MIB: u32 = 128;
/// The server may end, start again and replay its log several times.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn nothing_is_lost_and_all_flows_in_when_there_is_room_again() {
    const LINES: i64 = 20_000;
    let Some(mut disk) = SmallDisk::start(DISK_MIB).unwrap() else {
        eprintln!("SKIPPED: this system allows no mount namespace of our own, so no disk can be filled");
        return;
    };
    let (mut sandbox, mut host, job) = running_on(Database::at(disk.url()).unwrap());
    let api = sandbox.api();
    disk.fill().unwrap();
    let flood = thread::spawn({
        let job = job.clone();
        move || {
            // Nothing that could be packed: the log needs room.
            let noise = || (0..12).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect::<String>();
            for seq in 0..LINES {
                host.log(&job, seq, &noise());
            }
            let last = host.finish(&job, "succeeded", 0);
            (host, last)
        }
    });
    let mut made = Vec::new();
    eventually("the coordinator to notice", LONG, || {
        // Some are promised before there is no room for them.
        let name = format!("r{}", made.len());
        let reply = api.call(
            "POST",
            "/v1/repositories",
            Some(&json!({"name": name, "url": format!("/srv/{name}"), "password": "pw"})),
            &[],
        )?;
        match reply.status {
            201 => made.push(name),
            503 => {}
            _ => panic!("{}", reply.problem()),
        }
        let output = sandbox.coordinator.process().output();
        if output.contains("can't write to the database") { Ok(()) } else { Err(Failure::new("it writes")) }
    })
    .unwrap();
    assert_eq!(api.call("GET", "/healthz", None, &[]).unwrap().status, 200);
    assert!(disk.output().contains("No space left on device"), "{}", disk.output());
    disk.make_room();
    let (mut host, last) = flood.join().unwrap();
    host.settled(last);
    job_when(&api, &job, |job| job["status"] == "succeeded");
    let log = api.logs(&job).unwrap();
    assert!(
        log.len() == usize::try_from(LINES).unwrap()
            && log.iter().zip(0..).all(|(line, seq)| line["seq"] == json!(seq))
    );
    let there = api.list("/v1/repositories").unwrap();
    for name in made {
        assert!(there.iter().any(|repository| repository["name"] == name.as_str()), "{name} was promised");
    }
    assert!(sandbox.coordinator.process().output().contains("writing to the database works again"));
}
