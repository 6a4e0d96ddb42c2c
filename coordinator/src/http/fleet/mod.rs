//! `/v1/fleet`: the fleet as one document. What it means is in [`crate::fleet`].

mod document;
mod format;

use super::body::collect_up_to;
use super::clock::now;
use super::failures::{read, settings_changed, to_the_end, write_for_sure};
use super::if_match::IfMatch;
use super::openapi::schemas;
use super::params::{Params, bad_param};
use super::problem::{FieldError, Problem};
use super::routes::resource;
use crate::db::fleet::{Applied, Apply, Done, load};
use crate::db::pauses::Target;
use crate::db::repositories::limit;
use crate::dispatcher::LimitBackups;
use crate::fleet::export::{export, tag};
use crate::fleet::ledger::Ledger;
use crate::fleet::plan::{Action, Fault, Plan, Work, plan};
use crate::fleet::wanted::Wanted;
use crate::persistence::Condition;
use crate::request;
use crate::services::Services;
use actix_web::http::header::{CONTENT_TYPE, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};
use diesel_async::AsyncPgConnection;
use format::Format;
pub(super) use format::LARGEST;
use serde::Serialize;
use std::sync::Arc;
use utoipa::OpenApi;
use uuid::Uuid;

/// Faults that an answer lists; who has more knows what to do.
const MOST_FAULTS: usize = 200;

/// Adds the route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/fleet", [web::put().to(put), web::get().to(get)], "PUT, GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(get, put), components(schemas(schemas::FleetDocument, schemas::FleetPlan)))]
pub(super) struct Api;

#[derive(Serialize)]
struct Counts {
    create: usize,
    change: usize,
    delete: usize,
}

/// What is done, or would be.
#[derive(Serialize)]
struct PlanView<'a> {
    /// Whether this is only what would be done.
    dry_run: bool,
    counts: Counts,
    #[serde(flatten)]
    plan: &'a Plan,
}

fn answer(plan: &Plan, dry_run: bool, tag: &str) -> HttpResponse {
    let [create, change, delete] = [Action::Create, Action::Change, Action::Delete].map(|action| plan.count(action));
    let view = PlanView { dry_run, counts: Counts { create, change, delete }, plan };
    HttpResponse::Ok().insert_header((ETAG, format!("\"{tag}\""))).json(view)
}

/// What there is, read at one moment.
async fn ledger(services: &Services, wanted: Option<&Wanted>) -> Result<Ledger, Problem> {
    let vault = &services.vault;
    read(services, async |reader: &mut AsyncPgConnection| {
        let mut snapshot = reader.build_transaction().repeatable_read().read_only();
        snapshot.run(async |reader| load(reader, vault, wanted).await).await
    })
    .await
}

/// The fleet as one document
///
/// In YAML or JSON, by `Accept`. To apply it changes nothing. `ETag` is a name for what there is.
#[utoipa::path(
    get,
    path = "/v1/fleet",
    responses((status = 200, content(
        (schemas::FleetDocument = "application/json"),
        (schemas::FleetDocument = "application/yaml"),
    )))
)]
async fn get(services: web::Data<Services>, request: HttpRequest, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[])?;
    let format = Format::of_answer(request.headers());
    let ledger = ledger(&services, None).await?;
    let (text, tag) = on_a_thread(move || Ok((format.write(&export(&ledger))?, tag(&ledger)))).await?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CONTENT_TYPE, format.content_type())).insert_header((ETAG, format!("\"{tag}\"")));
    Ok(answer.body(text))
}

/// Does what takes a while with a large document on a thread for such work.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    web::block(work).await.map_err(|_| Problem::unavailable("the coordinator is about to stop"))?
}

/// A parameter that is true or false; false if it is not given.
fn flag(params: &Params, name: &str) -> Result<bool, Problem> {
    match params.one(name)? {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(bad_param(name, "must be true or false")),
    }
}

/// The names that an `If-Match` asks for; nothing if anything will do.
fn only_if(IfMatch(condition): IfMatch) -> Option<Vec<String>> {
    match condition {
        Some(Condition::OneOf(tags)) => Some(tags),
        Some(Condition::Any) | None => None,
    }
}

/// Makes the fleet as a document says
///
/// Whole or not at all; in YAML or JSON, by `Content-Type`. The answer is the plan. With `If-Match` and the `ETag` of a dry run just
/// what that has shown is done, and with that of the fleet only if that has not changed.
#[utoipa::path(
    put,
    path = "/v1/fleet",
    params(
        ("dry_run" = Option<bool>, Query, description = "Only tell what would be done."),
        ("delete" = Option<bool>, Query, description = "Delete what the document does not name, in lists that it has."),
    ),
    request_body(content(
        (schemas::FleetDocument = "application/json"),
        (schemas::FleetDocument = "application/yaml"),
    )),
    responses(
        (status = 200, body = schemas::FleetPlan, headers(("ETag" = String))),
        (status = 409, description = "It does not go with what there is, or a secret is not where it is said to be."),
        (status = 412, description = "The fleet, or what would be changed of it, is not any more as it was seen."),
    )
)]
async fn put(
    services: web::Data<Services>,
    request: HttpRequest,
    params: Params,
    if_match: IfMatch,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    params.only(&["dry_run", "delete"])?;
    let (dry_run, delete) = (flag(&params, "dry_run")?, flag(&params, "delete")?);
    let (format, only_if) = (Format::of_body(request.headers()), only_if(if_match));
    let bytes = collect_up_to(LARGEST, payload.into_inner()).await?;
    let secrets = Arc::clone(&services.secrets);
    let wanted = on_a_thread(move || document::read(format.read(&bytes)?, &secrets)).await?;
    let (wanted, at) = (Arc::new(wanted), now());

    // What needs no change costs the writer nothing.
    let there = ledger(&services, Some(&wanted)).await?;
    let asked = Arc::clone(&wanted);
    let planned = move || {
        let planned = plan(&asked, &there, delete, at, Uuid::now_v7).map_err(wrong)?;
        let before = tag(&there);
        Ok((planned.tag(&before), before, planned))
    };
    let (tag, before, planned) = on_a_thread(planned).await?;
    if only_if.as_ref().is_some_and(|tags| !tags.contains(&before) && !tags.contains(&tag)) {
        return Err(changed());
    }
    if dry_run {
        return Ok(answer(&planned, true, &tag));
    }
    if planned.steps.is_empty() {
        return Ok(answer(&planned, false, &before));
    }
    let mut apply = Apply::new(wanted, Arc::clone(&services.vault), at, request::current());
    (apply.delete, apply.only_if) = (delete, only_if);
    to_the_end(async move {
        let done = carry_out(&services, apply).await?;
        Ok(answer(&done.plan, false, &done.tag))
    })
    .await
}

/// Has it written, and whoever goes by what was changed told.
async fn carry_out(services: &Services, apply: Apply) -> Result<Done, Problem> {
    // One after the other, so that the dispatcher hears of limits in the order in which they are in the ledger.
    let _changing = services.pauses.changing().await;
    let done = match write_for_sure(services, apply).await?? {
        Applied::Done(done) => *done,
        Applied::Changed => return Err(changed()),
        Applied::Wrong(faults) => return Err(wrong(faults)),
    };
    for step in &done.plan.steps {
        let (repository_id, most) = match &step.work {
            Work::CreateRepository(row, _) if row.max_backups.is_some() => (row.id, row.max_backups),
            Work::ChangeRepository(id, changes, _) if changes.max_backups.is_some() => {
                (*id, changes.max_backups.flatten())
            }
            Work::DeleteRepository(id) => {
                services.pauses.set(Target::Repository(*id), None);
                continue;
            }
            _ => continue,
        };
        services.dispatcher.send(LimitBackups { repository_id, most: most.map(limit) }).await?;
    }
    settings_changed(services, done.told.iter().copied().collect()).await;
    Ok(done)
}

fn changed() -> Problem {
    Problem::has_changed(
        "the fleet, or what this document would change of it, is not any more as it was seen: plan anew",
    )
}

/// A document that makes sense by itself, and does not go with what there is.
fn wrong(faults: Vec<Fault>) -> Problem {
    let more = faults.len().saturating_sub(MOST_FAULTS);
    let mut errors: Vec<FieldError> =
        faults.into_iter().take(MOST_FAULTS).map(|fault| FieldError::new(fault.pointer, fault.detail)).collect();
    if more > 0 {
        errors.push(FieldError::new("", format!("and {more} more")));
    }
    Problem::conflicts(errors)
}
