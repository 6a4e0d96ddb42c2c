//! `/v1/hosts`.

use super::body::Body;
use super::check::{Check, HOOK, LINE, no, path_id};
use super::clock::now;
use super::failures::{evict, read, settings_changed, to_the_end, write_if};
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::{Params, bad_param};
use super::patch::Patch;
use super::problem::Problem;
use super::routes::resource;
use crate::access::covers;
use crate::db::hosts::{self, Change, Changed, Changes, Decommission, Decommissioned, Filter, Host, Wanted};
use crate::db::json::Json;
use crate::db::pauses::Target;
use crate::db::tags::Thing;
use crate::dispatcher::HostRemoved;
use crate::pauses::Pause;
use crate::request;
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, OpenApi, ToSchema};
use uuid::Uuid;

/// Without its runner any host could maintain the repository.
const RUNNER: &str = "the host is the runner of a repository: name another one in its maintenance (or null) first";

/// By which status hosts are listed: those out of service are in no other list.
pub(super) const LISTED: [&str; 3] = ["online", "offline", "decommissioned"];

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/hosts", [web::get().to(list)], "GET"));
    config.service(resource(
        "/hosts/{id}",
        [web::get().to(get), web::patch().to(change), web::delete().to(decommission)],
        "GET, PATCH, DELETE",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(list, get, change, decommission))]
pub(super) struct Api;

#[derive(Serialize, ToSchema)]
#[schema(as = Host)]
struct HostView {
    id: Uuid,
    hostname: String,
    os: String,
    arch: String,
    #[schema(value_type = schemas::HostStatus)]
    status: &'static str,
    last_seen_at: Option<Timestamp>,
    agent_version: Option<String>,
    restic_version: Option<String>,
    protocol_version: Option<i64>,
    capabilities: Vec<String>,
    boot_time: Option<Timestamp>,
    labels: BTreeMap<String, String>,
    repository_id: Option<Uuid>,
    /// Whether `init` has succeeded for this host and its repository.
    repository_initialized: bool,
    /// Since when two agents are known to share this host's token: enrol one of them anew.
    cloned_at: Option<Timestamp>,
    schedule_version: i64,
    applied_schedule_version: Option<i64>,
    hook_shell: Option<String>,
    pre_hook: Option<String>,
    post_hook: Option<String>,
    bandwidth_up_kbps: Option<i64>,
    bandwidth_down_kbps: Option<i64>,
    /// By whom and why nothing new is started here.
    paused: Option<Pause>,
    created_at: Timestamp,
    /// Since when it is out of service.
    decommissioned_at: Option<Timestamp>,
}

fn view(services: &Services, host: Host) -> HostView {
    let known = |text: Option<String>| text.filter(|text| !text.is_empty());
    HostView {
        id: host.id,
        status: if host.online { "online" } else { "offline" },
        // The row is written now and then; the board has every sign of life.
        last_seen_at: host.last_seen_at.max(services.board.last_seen(host.id)),
        hostname: host.hostname,
        os: host.os,
        arch: host.arch,
        agent_version: known(host.agent_version),
        restic_version: known(host.restic_version),
        protocol_version: host.protocol_version,
        capabilities: host.capabilities.0,
        boot_time: host.boot_time,
        labels: host.labels.0,
        cloned_at: host.cloned_at,
        repository_initialized: host.repository_id.is_some() && host.repository_id == host.initialized_repository_id,
        repository_id: host.repository_id,
        schedule_version: host.schedule_version,
        applied_schedule_version: host.applied_schedule_version,
        hook_shell: host.hook_shell,
        pre_hook: host.pre_hook,
        post_hook: host.post_hook,
        bandwidth_up_kbps: host.bandwidth_up_kbps,
        bandwidth_down_kbps: host.bandwidth_down_kbps,
        paused: services.pauses.get(Target::Host(host.id)),
        created_at: host.created_at,
        decommissioned_at: host.decommissioned_at,
    }
}

/// The host of a path that is in service.
///
/// # Errors
/// 404, or what reading can come to.
pub async fn in_service(services: &Services, id: &str) -> Result<Host, Problem> {
    let id = path_id("host", id)?;
    let host = read(services, async |reader| hosts::find(reader, id).await).await?;
    host.filter(|host| host.decommissioned_at.is_none()).ok_or_else(|| no("host"))
}

/// Which hosts a list has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only for the document")]
struct HostFilter {
    /// Without it those in service.
    #[param(value_type = Option<schemas::ListedStatus>)]
    status: Option<String>,
    #[param(value_type = Option<schemas::AnyText>)]
    hostname: Option<String>,
    #[param(value_type = Option<schemas::AnyText>)]
    repository_id: Option<String>,
    /// Labels that it carries, all of them: `name=value`.
    #[param(value_type = Option<Vec<schemas::LabelFilter>>, style = Form, explode = true)]
    label: Option<Vec<String>>,
}

/// The labels that a list is filtered by.
///
/// # Errors
/// 400 if one has no value.
pub(super) fn labels(params: &Params) -> Result<Vec<(String, String)>, Problem> {
    let label = |label: &str| label.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let labels: Option<Vec<_>> = params.all("label").map(label).collect();
    labels.ok_or_else(|| bad_param("label", "must be name=value"))
}

/// The host that the parameter `host_id` names, in service or not: its history stays.
///
/// # Errors
/// 400 without one, 404, or what reading can come to.
pub(super) async fn of_history(services: &Services, params: &Params) -> Result<Host, Problem> {
    let id = params.one("host_id")?.ok_or_else(|| bad_param("host_id", "is missing"))?;
    let id = path_id("host", id)?;
    let host = read(services, async |reader| hosts::find(reader, id).await).await?;
    let limit = request::host_limit().unwrap_or_default();
    host.filter(|host| covers(&limit, &host.labels.0)).ok_or_else(|| no("host"))
}

fn filter(params: &Params, after: Option<(Timestamp, Uuid)>) -> Result<Filter, Problem> {
    params.only(&[LIMIT, CURSOR, "status", "label", "hostname", "repository_id"])?;
    let status = params.one("status")?;
    if status.is_some_and(|status| !LISTED.contains(&status)) {
        return Err(bad_param("status", format!("must be one of {}", LISTED.join(", "))));
    }
    let mut labels = labels(params)?;
    labels.extend(request::host_limit().unwrap_or_default());
    Ok(Filter {
        online: match status {
            Some("online") => Some(true),
            Some("offline") => Some(false),
            _ => None,
        },
        decommissioned: status == Some("decommissioned"),
        // What is no id is nobody's.
        repository_id: params.one("repository_id")?.map(|id| id.parse().unwrap_or(Uuid::nil())),
        wanted: Wanted { hostname: params.one("hostname")?.map(str::to_owned), labels },
        after,
    })
}

/// Hosts in service, the oldest first
#[utoipa::path(
    get,
    path = "/v1/hosts",
    params(PageOfTimes, HostFilter),
    responses((status = 200, body = List<HostView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    let page = Page::of(&params)?;
    let filter = filter(&params, page.after)?;
    let rows = read(&services, async |reader| hosts::list(reader, &filter, page.rows()).await).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |host| (host.created_at, host.id), |host| view(&services, host))))
}

/// A host
#[utoipa::path(get, path = "/v1/hosts/{id}", responses((status = 200, body = HostView, headers(("ETag" = String)))))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let host = in_service(&services, &id).await?;
    Ok(show(&services, host))
}

/// The answer that shows a host.
fn show(services: &Services, host: Host) -> HttpResponse {
    HttpResponse::Ok().insert_header(etag(&host)).json(view(services, host))
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HostPatch {
    /// All of its labels.
    #[serde(default)]
    #[schema(value_type = Option<schemas::Labels>)]
    pub(super) labels: Patch<BTreeMap<String, String>>,
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    pub(super) repository_id: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::ShortText>)]
    pub(super) hook_shell: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Hook>)]
    pub(super) pre_hook: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Hook>)]
    pub(super) post_hook: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Kbps>)]
    pub(super) bandwidth_up_kbps: Patch<i64>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Kbps>)]
    pub(super) bandwidth_down_kbps: Patch<i64>,
}

impl HostPatch {
    fn into_changes(self) -> Result<Changes, Problem> {
        let mut check = Check::default();
        let changes = self.checked(&mut check);
        check.done()?;
        Ok(changes)
    }

    /// What is to be changed, with what is wrong in it noted.
    pub(super) fn checked(self, check: &mut Check) -> Changes {
        let labels = self.labels.into_change().map(Option::unwrap_or_default);
        check.labels("/labels", labels.as_ref().unwrap_or(&BTreeMap::new()));
        let repository_id = self.repository_id.into_change().map(|id| {
            // What is no id is noted, and then nothing is changed.
            id.and_then(|id| check.id("/repository_id", "repository", &id))
        });
        let mut text = |pointer, text: Patch<String>, longest| {
            let text = text.empty_is_null().into_change();
            check.short(pointer, text.iter().flatten().map(String::as_str).next().unwrap_or_default(), longest);
            text
        };
        let hook_shell = text("/hook_shell", self.hook_shell, LINE);
        let pre_hook = text("/pre_hook", self.pre_hook, HOOK);
        let post_hook = text("/post_hook", self.post_hook, HOOK);
        let mut cap = |pointer, cap: Patch<i64>| {
            let cap = cap.into_change();
            check.cap(pointer, cap.flatten().unwrap_or(0));
            cap.map(|cap| cap.filter(|&cap| cap > 0))
        };
        let bandwidth_up_kbps = cap("/bandwidth_up_kbps", self.bandwidth_up_kbps);
        let bandwidth_down_kbps = cap("/bandwidth_down_kbps", self.bandwidth_down_kbps);
        Changes {
            labels: labels.map(Json),
            repository_id,
            hook_shell,
            pre_hook,
            post_hook,
            bandwidth_up_kbps,
            bandwidth_down_kbps,
        }
    }
}

/// Changes a host
#[utoipa::path(
    patch,
    path = "/v1/hosts/{id}",
    request_body = HostPatch,
    responses(
        (status = 412),
        (status = 200, body = HostView, headers(("ETag" = String))),
        (status = 409, description = "It has open jobs, is a runner, or its name is taken in that repository, if there is one.")
    )
)]
async fn change(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
    Body(patch): Body<HostPatch>,
) -> Result<HttpResponse, Problem> {
    let id = path_id("host", &id)?;
    let changes = patch.into_changes()?;
    to_the_end(apply(services, id, if_match, changes)).await
}

async fn apply(
    services: web::Data<Services>,
    id: Uuid,
    if_match: IfMatch,
    changes: Changes,
) -> Result<HttpResponse, Problem> {
    let only_labels = changes == Changes { labels: changes.labels.clone(), ..Changes::default() };
    let host = match write_if(&services, if_match, Thing::Host(id), Change { id, changes }).await? {
        Ok(Changed::Done(host)) => *host,
        Ok(Changed::NotFound) => return Err(no("host")),
        Ok(Changed::Busy) => {
            return Err(Problem::conflict("the host has jobs that are not over: its repository can't change before"));
        }
        Ok(Changed::Runner) => return Err(Problem::conflict(RUNNER)),
        Err(error) => {
            return Err(match error.constraint() {
                Some("hosts_hostname_in_repository") => Problem::conflict(
                    "another host of this name uses the repository: snapshots are told apart by the name",
                ),
                Some("hosts_repository_id_fkey") => {
                    Problem::conflicting_field("/repository_id", "there is no repository with this id")
                }
                _ => error.into(),
            });
        }
    };
    if !only_labels {
        settings_changed(&services, vec![id]).await;
    }
    Ok(show(&services, host))
}

/// Takes a host out of service: its tokens and schedules go, its history stays
#[utoipa::path(
    delete,
    path = "/v1/hosts/{id}",
    responses((status = 412), (status = 204), (status = 409, description = "It is the runner of a repository."))
)]
async fn decommission(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    let id = path_id("host", &id)?;
    to_the_end(async move {
        match write_if(&services, if_match, Thing::Host(id), Decommission { id, at: now() }).await?? {
            Decommissioned::Done => {}
            Decommissioned::NotFound => return Err(no("host")),
            Decommissioned::Runner => return Err(Problem::conflict(RUNNER)),
        }
        services.pauses.set(Target::Host(id), None);
        // Before the session ends, so that an agent that is there hears of it.
        services.dispatcher.send(HostRemoved { host_id: id }).await?;
        evict(&services, id).await;
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}
