//! `/healthz`, `/readyz` and `/metrics`: for machines that watch the coordinator. No token is needed.

use super::problem::Problem;
use super::routes::resource;
use crate::clock;
use crate::db::runs::{self, Outcome};
use crate::db::{DatabaseError, hosts, overdue};
use crate::services::Services;
use actix_web::{HttpResponse, web};
use chrono::{TimeDelta, Utc};
use fleet_wire::Status;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;
use utoipa::{OpenApi, ToSchema};

/// How long the database may take to answer before it counts as away.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// How long counting may take.
const COUNT_LIMIT: Duration = Duration::from_secs(5);

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/healthz", [web::get().to(alive)], "GET"));
    config.service(resource("/readyz", [web::get().to(ready)], "GET"));
    config.service(resource("/metrics", [web::get().to(metrics)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(alive, ready, metrics))]
pub(super) struct Api;

/// Adds what can be told before there is a database.
pub(super) fn configure_without_database(config: &mut web::ServiceConfig) {
    config.service(resource("/healthz", [web::get().to(alive)], "GET"));
    config.service(resource("/metrics", [web::get().to(async || samples(None))], "GET"));
}

#[derive(Serialize, ToSchema)]
#[schema(as = State)]
struct Health {
    status: &'static str,
}

/// Whether the coordinator runs
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, body = Health)))]
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Whether it can serve
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    responses((status = 200, body = Health), (status = 503, description = "The database does not answer."))
)]
async fn ready(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    match tokio::time::timeout(PING_LIMIT, services.database.ping()).await {
        Ok(Ok(())) => Ok(HttpResponse::Ok().json(Health { status: "ready" })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unavailable("the database does not answer")),
    }
}

/// What is counted in the database.
#[derive(Debug, Default)]
struct Counts {
    online: i64,
    offline: i64,
    open: Vec<(String, i64)>,
    ended: Vec<(String, i64)>,
    runs: Vec<(String, i64)>,
    /// Backups, and maintenance.
    overdue: (i64, i64),
}

async fn count(services: &Services) -> Result<Counts, DatabaseError> {
    let counting = services.database.read(async |reader| {
        let (online, offline) = hosts::count(reader).await?;
        let open = crate::db::stats::count_open_jobs(reader).await?;
        let ended = crate::db::stats::count_jobs_of_last_day(reader).await?;
        let now = Utc::now();
        let runs = runs::count_since(reader, now - TimeDelta::days(1)).await?;
        let overdue = overdue::count(reader, now).await?;
        Ok(Counts { online, offline, open, ended, runs, overdue })
    });
    counting.await
}

/// Counts, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    security(()),
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"))
)]
async fn metrics(services: web::Data<Services>) -> HttpResponse {
    let counts = match tokio::time::timeout(COUNT_LIMIT, count(&services)).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            log::warn!("can't count for /metrics: {error}");
            None
        }
        Err(_) => None,
    };
    samples(counts.as_ref())
}

fn samples(counts: Option<&Counts>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text(counts))
}

/// Prometheus' text format. While the database is away there are no counts, and `fleet_database_up` says why.
fn text(counts: Option<&Counts>) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: &[(String, i64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge"); // a String takes everything
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    family("fleet_up", "The coordinator runs.", &[(String::new(), 1)]);
    let in_doubt = i64::from(clock::certain().is_none());
    family("fleet_clock_in_doubt", "It is not certain what time it is.", &[(String::new(), in_doubt)]);
    family("fleet_database_up", "The database answers.", &[(String::new(), i64::from(counts.is_some()))]);
    let Some(counts) = counts else { return text };
    let status = |status: &str| format!("{{status=\"{status}\"}}");
    family(
        "fleet_hosts",
        "Hosts in service.",
        &[(status("online"), counts.online), (status("offline"), counts.offline)],
    );
    let all = |terminal: bool, counts: &[(String, i64)]| -> Vec<(String, i64)> {
        let named = Status::ALL.iter().filter(|status| status.is_terminal() == terminal).map(|status| status.as_str());
        named
            .map(|name| {
                let found = counts.iter().find(|(status, _)| status == name);
                (status(name), found.map_or(0, |(_, count)| *count))
            })
            .collect()
    };
    family("fleet_jobs", "Jobs that are not over.", &all(false, &counts.open));
    family("fleet_jobs_ended_last_day", "Jobs made in the last 24 hours that are over.", &all(true, &counts.ended));
    let of_outcome = |outcome: Outcome| {
        let found = counts.runs.iter().find(|(name, _)| name == outcome.as_str());
        (format!("{{outcome=\"{outcome}\"}}"), found.map_or(0, |(_, count)| *count))
    };
    family("fleet_runs_last_day", "Runs that were due in the last 24 hours.", &Outcome::ALL.map(of_outcome));
    let of_what = |what: &str, count: i64| (format!("{{what=\"{what}\"}}"), count);
    let (backups, maintenance) = counts.overdue;
    family(
        "fleet_overdue",
        "What has not succeeded within its time.",
        &[of_what("backup", backups), of_what("maintenance", maintenance)],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_there_even_with_no_jobs() {
        let open = vec![("running".to_owned(), 3)];
        let counts = Counts { online: 2, open, overdue: (4, 0), ..Counts::default() };
        let text = text(Some(&counts));
        for line in [
            "fleet_up 1",
            "fleet_clock_in_doubt 0",
            "fleet_database_up 1",
            "fleet_hosts{status=\"online\"} 2",
            "fleet_hosts{status=\"offline\"} 0",
            "fleet_jobs{status=\"queued\"} 0",
            "fleet_jobs{status=\"running\"} 3",
            "fleet_jobs_ended_last_day{status=\"cancelled\"} 0",
            "fleet_runs_last_day{outcome=\"missed\"} 0",
            "fleet_overdue{what=\"backup\"} 4",
            "fleet_overdue{what=\"maintenance\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), 8);
    }

    #[test]
    fn without_a_database_the_rest_is_still_told() {
        assert!(super::text(None).contains("fleet_database_up 0\n"));
    }
}
