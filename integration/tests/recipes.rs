//! docs/api.md is true: its ten things are run as they stand there, all `curl` lines in one shell and all `fleet` lines in
//! another, each against a coordinator of its own, with a real agent and real restic.

use fleet_integration::{Process, Sandbox, command, program, restics};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// All ten, with half a dozen backups.
const LIMIT: Duration = Duration::from_secs(240);
/// How many things people do.
const THINGS: usize = 10;

/// A piece of shell in the document, the heading above it, and who runs it.
struct Block {
    heading: String,
    of: Vec<String>,
    text: String,
}

fn blocks() -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let document = fs::read_to_string(&path).unwrap();
    let (mut blocks, mut heading, mut open) = (Vec::new(), String::new(), None);
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                open = Some(Block {
                    heading: heading.clone(),
                    of: info.split(' ').map(str::to_owned).collect(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {
                if let Some(text) = line.strip_prefix("## ") {
                    text.clone_into(&mut heading);
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// The script of all that `who` runs.
fn script(who: &str) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks().iter().filter(|block| block.of.iter().any(|of| of == who)) {
        script += &format!("echo '== {}'\n{}", block.heading, block.text);
    }
    script
}

fn run(who: &str) {
    let sandbox = Sandbox::start().unwrap();
    let folder = sandbox.path("recipes");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("script");
    fs::write(&file, script(who)).unwrap();
    let programs = program("fleet").unwrap().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut bash = command("bash".as_ref(), None);
    bash.arg(&file).current_dir(&folder).env("PATH", path);
    bash.env("FLEET_URL", sandbox.coordinator.url()).env("FLEET_TOKEN", sandbox.coordinator.admin_token());
    bash.env("FLEET_HOSTNAME", "web1").env("FLEET_AGENT_DATA_DIR", folder.join("agent"));
    bash.env("FLEET_RESTIC", restics().unwrap().remove(0)).env("HOME", &folder);
    let mut shell = Process::start(who, bash, folder.join("output")).unwrap();
    let _group = Group(Pid::from_raw(shell.id().cast_signed()));
    let ended = shell.wait(LIMIT);
    let output = fs::read_to_string(folder.join("output")).unwrap();
    assert!(ended.as_ref().is_ok_and(std::process::ExitStatus::success), "{ended:?}:\n{output}");
    came_about(&sandbox, &output);
}

/// What a shell has started in the background is of its group, also when the shell has ended.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGTERM);
    }
}

/// What the ten leave behind.
fn came_about(sandbox: &Sandbox, output: &str) {
    let api = sandbox.api();
    let hosts = api.list("/v1/hosts?label=site%3Dulm").unwrap();
    assert_eq!((hosts.len(), &hosts[0]["hostname"]), (1, &json!("web1")), "{output}");
    let host = hosts[0]["id"].as_str().unwrap();
    let of = |what: &str| api.list(&format!("/v1/hosts/{host}/{what}")).unwrap();
    assert_eq!(of("schedules")[0]["cron"], "30 2 * * *");
    assert_eq!(of("source-groups")[0]["rpo_seconds"], 129_600);
    let jobs = |kind: &str| api.list(&format!("/v1/jobs?kind={kind}")).unwrap();
    let ended = |jobs: &[Value], status: &str| jobs.iter().filter(|job| job["status"] == status).count();
    let (backups, checks, forgets) = (jobs("backup"), jobs("check"), jobs("forget"));
    assert_eq!((backups.len(), ended(&backups, "succeeded")), (4, 4), "{output}");
    assert_eq!((checks.len(), ended(&checks, "succeeded")), (2, 2), "{output}");
    assert_eq!((forgets.len(), ended(&forgets, "succeeded"), ended(&forgets, "failed")), (3, 2, 1), "{output}");
    assert!(api.list("/v1/pauses").unwrap().is_empty() && api.list("/v1/tokens").unwrap().is_empty());
    assert!(checks.iter().any(|job| job["requested_by"] == "ulm"));
}

#[test]
fn there_are_ten_things_each_told_both_ways() {
    let blocks = blocks();
    for number in 1..=THINGS {
        for who in ["curl", "fleet"] {
            let told = |block: &Block| {
                block.heading.starts_with(&format!("{number}. "))
                    && block.of.first().is_some_and(|first| first == "sh")
                    && block.of.iter().any(|of| of == who)
            };
            assert!(blocks.iter().any(told), "the {number}th thing has no lines of {who}");
        }
    }
    assert!(!blocks.iter().any(|block| block.heading.starts_with(&format!("{}. ", THINGS + 1))));
}

#[test]
fn the_lines_of_curl_run_as_written() {
    run("curl");
}

#[test]
fn the_lines_of_fleet_run_as_written() {
    run("fleet");
}
