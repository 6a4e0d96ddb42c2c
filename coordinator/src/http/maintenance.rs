//! `/v1/repositories/{id}/maintenance`: when a repository is forgotten in, pruned and checked, by whom, and how much a
//! forget may delete.

use super::body::{Body, Object};
use super::check::{Check, path_id};
use super::clock::now;
use super::failures::{read, settings_changed, to_the_end, write_if};
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::problem::Problem;
use super::repositories::existing;
use super::routes::resource;
use super::schedules::timetable;
use crate::db::maintenance::{self, Entry, Put, Rules, Stored};
use crate::db::repositories::Repository;
use crate::db::tags::Thing;
use crate::services::Services;
use crate::timetable::Timetable;
use actix_web::{HttpResponse, web};
use fleet_wire::{ForgetLimit, Kind, Timestamp, is_check_subset};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// Instants that an entry shows.
const NEXT_RUNS: usize = 5;
const UTC: &str = "UTC";

/// Adds the route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/repositories/{id}/maintenance", [web::put().to(put), web::get().to(get)], "PUT, GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(put, get))]
pub(super) struct Api;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckSettings)]
struct EntryBody {
    #[schema(value_type = schemas::Cron)]
    cron: String,
    enabled: Option<bool>,
    /// What a check reads; nothing unless it is said.
    #[schema(value_type = Option<schemas::CheckSubset>)]
    subset: Option<String>,
}

/// How much a forget may delete at once; over that it deletes nothing, and fails.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ForgetLimit)]
struct LimitBody {
    #[schema(minimum = 0)]
    snapshots: Option<i64>,
    /// Of the snapshots that there are.
    #[schema(minimum = 0, maximum = 1)]
    share: Option<f64>,
}

/// What is left out is not done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MaintenanceSettings)]
pub(super) struct MaintenanceBody {
    #[schema(value_type = Option<EntrySettings>)]
    forget: Option<Object<EntryBody>>,
    #[schema(value_type = Option<EntrySettings>)]
    prune: Option<Object<EntryBody>>,
    #[schema(value_type = Option<EntryBody>)]
    check: Option<Object<EntryBody>>,
    /// UTC unless it is said.
    #[schema(value_type = Option<schemas::TimeZone>)]
    timezone: Option<String>,
    /// The one host that may delete.
    #[schema(value_type = Option<Uuid>)]
    runner_host_id: Option<String>,
    #[schema(value_type = Option<LimitBody>)]
    forget_limit: Option<Object<LimitBody>>,
}

/// When something is done that has no more to say.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only for the document")]
struct EntrySettings {
    #[schema(value_type = schemas::Cron)]
    cron: String,
    enabled: Option<bool>,
    #[schema(value_type = Option<schemas::Nothing>)]
    subset: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MaintenanceEntry)]
struct EntryView {
    cron: String,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<String>,
    next_runs: Vec<Timestamp>,
    last_success_at: Option<Timestamp>,
    /// Absent while it is not overdue.
    overdue_since: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Maintenance)]
struct MaintenanceView {
    forget: Option<EntryView>,
    prune: Option<EntryView>,
    check: Option<EntryView>,
    timezone: String,
    runner_host_id: Option<Uuid>,
    #[schema(value_type = Option<LimitBody>)]
    forget_limit: Option<ForgetLimit>,
}

impl From<&Entry> for EntryView {
    fn from(row: &Entry) -> Self {
        let timetable = Timetable::parse(&row.cron, &row.timezone).ok().filter(|_| row.enabled);
        Self {
            cron: row.cron.clone(),
            enabled: row.enabled,
            subset: row.subset.clone(),
            next_runs: timetable.iter().flat_map(|timetable| timetable.after(now()).take(NEXT_RUNS)).collect(),
            last_success_at: row.last_success_at,
            overdue_since: row.overdue_at.filter(|overdue| *overdue <= now()),
        }
    }
}

impl MaintenanceView {
    fn new(repository: &Repository, entries: &[Entry]) -> Self {
        let of = |kind: Kind| entries.iter().find(|entry| entry.kind == kind.as_str()).map(EntryView::from);
        Self {
            forget: of(Kind::Forget),
            prune: of(Kind::Prune),
            check: of(Kind::Check),
            timezone: entries.first().map_or_else(|| UTC.to_owned(), |entry| entry.timezone.clone()),
            runner_host_id: repository.runner_host_id,
            forget_limit: crate::maintenance::forget_limit(repository),
        }
    }
}

impl MaintenanceBody {
    fn into_put(self, repository_id: Uuid) -> Result<Put, Problem> {
        let mut check = Check::default();
        let put = self.checked(&mut check, repository_id);
        check.done()?;
        Ok(put)
    }

    /// What is to be stored, with what is wrong in it noted.
    pub(super) fn checked(self, check: &mut Check, repository_id: Uuid) -> Put {
        let at = now();
        let timezone = self.timezone.unwrap_or_else(|| UTC.to_owned());
        let mut entries = Vec::new();
        for (kind, body) in [(Kind::Forget, self.forget), (Kind::Prune, self.prune), (Kind::Check, self.check)] {
            let Some(Object(body)) = body else { continue };
            let timetable = timetable(check, &format!("/{kind}"), &body.cron, &timezone);
            check_subset(check, kind, body.subset.as_deref());
            let enabled = body.enabled.unwrap_or(true);
            entries.push(Entry {
                repository_id,
                kind: kind.as_str().to_owned(),
                cron: body.cron,
                timezone: timezone.clone(),
                enabled,
                subset: body.subset,
                interval_seconds: timetable.as_ref().map_or(0, |timetable| timetable.interval_seconds(at)),
                next_due_at: timetable.filter(|_| enabled).and_then(|timetable| timetable.next_after(at)),
                last_success_at: None,
                last_subset: None,
                overdue_at: None,
                created_at: at,
                updated_at: at,
            });
        }
        let runner_host_id = self.runner_host_id.and_then(|id| check.id("/runner_host_id", "host", &id));
        let limit =
            self.forget_limit.map(|Object(limit)| ForgetLimit { snapshots: limit.snapshots, share: limit.share });
        let limit = limit.unwrap_or_default();
        if let Err(why) = limit.check() {
            check.wrong("/forget_limit", why);
        }
        let (forget_max_snapshots, forget_max_share) = (limit.snapshots, limit.share);
        Put { repository_id, entries, rules: Rules { runner_host_id, forget_max_snapshots, forget_max_share }, at }
    }
}

fn check_subset(check: &mut Check, kind: Kind, subset: Option<&str>) {
    match subset {
        None => {}
        Some(_) if kind != Kind::Check => check.wrong(&format!("/{kind}/subset"), "only a check has a subset"),
        Some(subset) if is_check_subset(subset) => {}
        Some(_) => {
            check.wrong("/check/subset", "give a part (1/7: another each time), a percentage (5%) or a size (500M)")
        }
    }
}

/// Sets all of a repository's maintenance
#[utoipa::path(
    put,
    path = "/v1/repositories/{id}/maintenance",
    request_body = MaintenanceBody,
    responses((status = 412), (status = 200, body = MaintenanceView, headers(("ETag" = String))), (status = 409, description = "The runner uses another repository."))
)]
async fn put(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
    Body(body): Body<MaintenanceBody>,
) -> Result<HttpResponse, Problem> {
    let put = body.into_put(path_id("repository", &id)?)?;
    to_the_end(async move {
        let thing = Thing::Maintenance(put.repository_id);
        match write_if(&services, if_match, thing, put).await?? {
            // The admin credential goes to others, or to no others any more.
            Stored::Done(hosts) => settings_changed(&services, hosts).await,
            Stored::NotFound => return Err(super::check::no("repository")),
            Stored::NoRunner => {
                return Err(Problem::conflicting_field("/runner_host_id", "must be a host that uses this repository"));
            }
        }
        show(&services, &id).await
    })
    .await
}

/// A repository's maintenance
#[utoipa::path(get, path = "/v1/repositories/{id}/maintenance", responses((status = 200, body = MaintenanceView, headers(("ETag" = String)))))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    show(&services, &id).await
}

async fn show(services: &Services, id: &str) -> Result<HttpResponse, Problem> {
    let repository = existing(services, id).await?;
    let entries = async |reader: &mut _| maintenance::of_repositories(reader, &[repository.id]).await;
    let entries = read(services, entries).await?;
    let tag = etag(&(&repository, &entries[..]));
    Ok(HttpResponse::Ok().insert_header(tag).json(MaintenanceView::new(&repository, &entries)))
}
