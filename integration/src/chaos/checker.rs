//! Compares what every agent did with what the coordinator says, job by job and line by line.

use super::fleet::{Fleet, Host, KEPT, SMALL};
use super::lines::compare;
use super::operator::Asked;
use super::record::{self, Run};
use super::verdict::Verdict;
use crate::{Failure, is_over};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What an agent says of a job in which it was killed.
const KILLED: &str = "agent was killed";
/// What it says of one that it ended because it stops.
const STOPPED: &str = "agent stopped";

/// All that is known from elsewhere.
struct Known<'a> {
    asked: &'a Asked,
    hosts: &'a [Host],
    runs: BTreeMap<String, Vec<Run>>,
    /// By host.
    snapshots: BTreeMap<String, Vec<Value>>,
}

/// Checks everything. `settled`: the jobs came to an end by themselves.
pub(super) fn check(fleet: &Fleet, asked: &Asked, settled: bool) -> Verdict {
    let mut verdict = Verdict::default();
    if let Err(failure) = try_check(fleet, asked, &mut verdict) {
        verdict.details.push(format!("the check could not be made: {failure}"));
    }
    if !settled && verdict.stuck == 0 {
        verdict.details.push("the fleet did not come to rest".to_owned());
    }
    verdict
}

fn try_check(fleet: &Fleet, asked: &Asked, verdict: &mut Verdict) -> Result<(), Failure> {
    let mut known = Known { asked, hosts: &fleet.hosts, runs: BTreeMap::new(), snapshots: BTreeMap::new() };
    for host in &fleet.hosts {
        for (job, runs) in record::read(&host.record)? {
            if known.runs.insert(job.clone(), runs).is_some() {
                verdict.duplicated += 1;
                verdict.details.push(format!("job {job} ran on two hosts"));
            }
        }
        let listed = host.restic.run(&["snapshots", "--json", "--no-lock", "--host", &host.name])?;
        known.snapshots.insert(host.id.clone(), serde_json::from_str(&listed)?);
    }
    let jobs = fleet.api.list("/v1/jobs")?;
    verdict.jobs = jobs.len();
    verdict.details.extend(asked.odd.iter().map(|odd| format!("REST answered {odd}")));
    verdict.notes.push(outcomes(&jobs, asked));
    existence(&jobs, &known, verdict);
    for job in &jobs {
        let said = one(job, &known, verdict);
        let runs = known.runs.get(text(job, "id")).map_or(&[][..], Vec::as_slice);
        let log = fleet.api.logs(text(job, "id"))?;
        let tally = compare(&log, runs);
        verdict.lines += tally.lines;
        verdict.missing_lines += tally.missing;
        verdict.duplicated_lines += tally.duplicated;
        let details = said.into_iter().chain(tally.details);
        verdict.details.extend(details.map(|detail| format!("{}: {detail}", named(job))));
    }
    Ok(())
}

/// Every accepted or executed job is there, and none that nobody asked for.
fn existence(jobs: &[Value], known: &Known<'_>, verdict: &mut Verdict) {
    let ids: BTreeSet<&str> = jobs.iter().map(|job| text(job, "id")).collect();
    if ids.len() < jobs.len() {
        verdict.details.push("a job is listed twice".to_owned());
    }
    let accepted: BTreeSet<&str> = known.asked.accepted.iter().map(String::as_str).collect();
    for (what, all) in [("accepted", accepted.clone()), ("run", known.runs.keys().map(String::as_str).collect())] {
        for lost in all.difference(&ids) {
            verdict.lost += 1;
            verdict.details.push(format!("job {lost} was {what}, and the coordinator does not know it"));
        }
    }
    let unasked = jobs.iter().filter(|job| job["origin"] == "operator" && !accepted.contains(text(job, "id"))).count();
    if unasked > known.asked.unknown {
        verdict.duplicated += unasked - known.asked.unknown;
        let unknown = known.asked.unknown;
        verdict.details.push(format!("{unasked} jobs are there without an answer, for {unknown} requests without one"));
    }
}

/// What is wrong with the end of one job.
fn one(job: &Value, known: &Known<'_>, verdict: &mut Verdict) -> Vec<String> {
    let mut wrong = Vec::new();
    if !is_over(job) {
        verdict.stuck += 1;
        wrong.push(format!("is not over: {job}"));
        return wrong;
    }
    let runs = known.runs.get(text(job, "id")).map_or(&[][..], Vec::as_slice);
    let main: Vec<&Run> = runs.iter().filter(|run| run.command == text(job, "kind")).collect();
    if main.len() > 1 && job["kind"] != "unlock" {
        verdict.duplicated += 1;
        wrong.push(format!("ran {} times: {:?}", main.len(), main.iter().map(|run| &run.id).collect::<Vec<_>>()));
    }
    let code = main.first().and_then(|run| run.code);
    let error = text(job, "error");
    match text(job, "status") {
        "succeeded" => wrong.extend(success(job, code, known)),
        "cancelled" if !known.asked.cancelled.contains(text(job, "id")) => wrong.push("nobody cancelled it".to_owned()),
        "failed" if error.is_empty() => wrong.push("does not say why it failed".to_owned()),
        "failed" if error.contains("lock") => {
            wrong.push(format!("met a lock of restic, where a lease was to keep it away: {error}"))
        }
        "failed" if code == Some(0) && ![KILLED, STOPPED].iter().any(|excuse| error.contains(excuse)) => {
            wrong.push(format!("failed ({error}), but restic ended with 0"));
        }
        _ => {}
    }
    wrong
}

fn success(job: &Value, code: Option<i64>, known: &Known<'_>) -> Option<String> {
    match (text(job, "kind"), code) {
        ("init", _) | ("forget" | "prune" | "check", Some(0)) => None,
        ("backup", Some(0 | 3)) => {
            let id = text(&job["stats"], "snapshot_id");
            let there = snapshot_is_there(id, job, known);
            (!there).then(|| format!("its snapshot {id:?} is not in the repository"))
        }
        _ => Some(format!("succeeded, but its restic ended with {code:?}")),
    }
}

/// It is, or it was forgotten as the retention says.
fn snapshot_is_there(id: &str, job: &Value, known: &Known<'_>) -> bool {
    let host = text(job, "host_id");
    let Some(snapshots) = known.snapshots.get(host) else { return false };
    if !id.is_empty() && snapshots.iter().any(|snapshot| text(snapshot, "id").starts_with(id)) {
        return true;
    }
    let newer = snapshots.iter().filter(|snapshot| snapshot["tags"][0] == SMALL).count();
    let started = known.runs.get(text(job, "id")).and_then(|runs| runs.first()).map_or(0, |run| run.started);
    let of_host = |run: &Run| known.hosts.iter().any(|other| other.id == host && on(other, run));
    let forgot =
        known.runs.values().flatten().any(|run| run.command == "forget" && run.started > started && of_host(run));
    !id.is_empty() && job["source_group"] == SMALL && newer >= KEPT && forgot
}

/// Whether this run was recorded on this host.
fn on(host: &Host, run: &Run) -> bool {
    host.record.join(format!("{}.out", run.id)).exists()
}

fn outcomes(jobs: &[Value], asked: &Asked) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for job in jobs {
        let mut what = format!("{} {}", text(job, "kind"), text(job, "status"));
        if job["status"] == "failed" {
            what.push_str(&format!(" ({})", text(job, "error").chars().take(70).collect::<String>()));
        }
        *counts.entry(what).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    let Asked { accepted, unknown, refused, cancelled, .. } = asked;
    format!(
        "asked: {} accepted, {refused} refused, {unknown} without an answer, {} to be cancelled; outcomes: {}",
        accepted.len(),
        cancelled.len(),
        counts.join(", ")
    )
}

fn named(job: &Value) -> String {
    format!("job {} ({} of host {}, {})", text(job, "id"), text(job, "kind"), text(job, "host_id"), text(job, "status"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(command: &str, code: Option<i64>) -> Run {
        Run { job: "j".into(), command: command.into(), code, ..Run::default() }
    }

    fn known(asked: &Asked, runs: Vec<Run>) -> Known<'_> {
        let snapshots = BTreeMap::from([("h".to_owned(), vec![json!({"id": "abcdef", "tags": ["slow"]})])]);
        let runs = if runs.is_empty() { BTreeMap::new() } else { BTreeMap::from([("j".to_owned(), runs)]) };
        Known { asked, hosts: &[], runs, snapshots }
    }

    fn job(status: &str, error: &str, snapshot: &str) -> Value {
        let stats = json!({"snapshot_id": snapshot});
        json!({"id": "j", "host_id": "h", "kind": "backup", "status": status, "error": error, "stats": stats})
    }

    fn judged(job: &Value, runs: Vec<Run>) -> (Vec<String>, Verdict) {
        let (asked, mut verdict) = (Asked::default(), Verdict::default());
        (one(job, &known(&asked, runs), &mut verdict), verdict)
    }

    #[test]
    fn what_agrees_is_right() {
        assert_eq!(judged(&job("succeeded", "", "abc"), vec![run("backup", Some(0))]).0, Vec::<String>::new());
        assert_eq!(judged(&job("failed", "no space", ""), vec![run("backup", Some(1))]).0, Vec::<String>::new());
        let killed = job("failed", "agent was killed while the job ran", "");
        assert_eq!(judged(&killed, vec![run("backup", Some(0)), run("unlock", Some(0))]).0, Vec::<String>::new());
    }

    #[test]
    fn every_disagreement_is_told() {
        for (job, runs, told) in [
            (job("succeeded", "", "999"), vec![run("backup", Some(0))], "is not in the repository"),
            (job("succeeded", "", ""), vec![run("backup", Some(0))], "is not in the repository"),
            (job("succeeded", "", "abc"), vec![run("backup", Some(1))], "ended with Some(1)"),
            (job("succeeded", "", "abc"), vec![], "ended with None"),
            (job("failed", "", ""), vec![run("backup", Some(1))], "does not say why"),
            (job("failed", "the repository is locked", ""), vec![run("backup", Some(1))], "met a lock"),
            (job("failed", "expired", ""), vec![run("backup", Some(0))], "but restic ended with 0"),
            (job("cancelled", "cancelled", ""), vec![run("backup", Some(130))], "nobody cancelled"),
        ] {
            let (wrong, _) = judged(&job, runs);
            assert!(wrong.len() == 1 && wrong[0].contains(told), "{told}: {wrong:?}");
        }
        assert_eq!(judged(&job("running", "", ""), vec![]).1.stuck, 1);
        assert_eq!(
            judged(&job("failed", "x", ""), vec![run("backup", Some(1)), run("backup", Some(1))]).1.duplicated,
            1
        );
    }

    #[test]
    fn jobs_that_are_lost_or_that_nobody_asked_for_are_counted() {
        let asked = Asked { accepted: vec!["a".into(), "b".into()], unknown: 1, ..Asked::default() };
        let known = known(&asked, vec![run("backup", Some(0))]);
        let job = |id: &str| json!({"id": id, "origin": "operator"});
        let counted = |ids: &[&str]| {
            let mut verdict = Verdict::default();
            existence(&ids.iter().map(|id| job(id)).collect::<Vec<_>>(), &known, &mut verdict);
            (verdict.lost, verdict.duplicated)
        };
        assert_eq!(counted(&["a", "b", "j"]), (0, 0), "j is the one without an answer");
        assert_eq!(counted(&["a", "j"]), (1, 0));
        assert_eq!(counted(&["a", "b"]), (1, 0), "an agent ran j");
        assert_eq!(counted(&["a", "b", "j", "k"]), (0, 1));
    }
}
