//! `/v1/notifications/channels/{id}/deliveries`: what was sent to a channel, and what came of it; and sending a test, or once more.

use super::channels::existing;
use super::check::{no, path_id};
use super::clock::now;
use super::failures::{read, write};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::{Params, bad_param};
use super::problem::Problem;
use super::routes::resource;
use crate::db::deliveries::{self, Attempt, Delivery, Redeliver, Status, Test};
use crate::db::json::Json;
use crate::request;
use crate::services::Services;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};
use uuid::Uuid;

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/notifications/channels/{id}/test", [web::post().to(test)], "POST"));
    config.service(resource("/notifications/channels/{id}/deliveries", [web::get().to(list)], "GET"));
    config.service(resource("/notifications/channels/{id}/deliveries/{delivery}", [web::get().to(get)], "GET"));
    config.service(resource(
        "/notifications/channels/{id}/deliveries/{delivery}/redeliver",
        [web::post().to(redeliver)],
        "POST",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(test, list, get, redeliver))]
pub(super) struct Api;

#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView {
    id: Uuid,
    /// What receivers know it by: the same in each channel and at each attempt.
    notification_id: Uuid,
    event: String,
    /// When that happened.
    at: Timestamp,
    #[schema(schema_with = schemas::anything)]
    data: Value,
    #[schema(value_type = schemas::DeliveryStatus)]
    status: String,
    tries: i64,
    /// The last of them.
    attempts: Vec<Attempt>,
    next_attempt_at: Option<Timestamp>,
    created_at: Timestamp,
    settled_at: Option<Timestamp>,
}

impl From<Delivery> for DeliveryView {
    fn from(row: Delivery) -> Self {
        let (Json(data), Json(attempts)) = (row.data, row.attempts);
        Self {
            id: row.id,
            notification_id: row.notice_id,
            event: row.event,
            at: row.at,
            data,
            status: row.status,
            tries: row.tries,
            attempts,
            next_attempt_at: row.next_attempt_at,
            created_at: row.created_at,
            settled_at: row.settled_at,
        }
    }
}

/// Sends a test
#[utoipa::path(
    post,
    path = "/v1/notifications/channels/{id}/test",
    responses(
        (status = 202, body = DeliveryView, headers(("Location" = String))),
        (status = 409, description = "The channel is not enabled.")
    )
)]
async fn test(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let channel = existing(&services, &id).await?;
    if !channel.enabled {
        return Err(Problem::conflict("this channel is not enabled, so nothing is sent to it"));
    }
    let test = Test { channel_id: channel.id, id: request::new_id(), at: now() };
    let delivery = write(&services, test).await?.ok_or_else(|| no("channel"))?;
    services.outbox.ring();
    let location = format!("/v1/notifications/channels/{}/deliveries/{}", channel.id, delivery.id);
    Ok(HttpResponse::Accepted().insert_header((LOCATION, location)).json(DeliveryView::from(delivery)))
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only for the document")]
struct DeliveryFilter {
    #[param(value_type = Option<schemas::DeliveryStatus>)]
    status: Option<String>,
}

/// What was sent to a channel, the newest first
#[utoipa::path(
    get,
    path = "/v1/notifications/channels/{id}/deliveries",
    params(PageOfTimes, DeliveryFilter),
    responses((status = 200, body = List<DeliveryView>))
)]
async fn list(services: web::Data<Services>, id: web::Path<String>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&["status", LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let status = params.one("status")?.map(|word| {
        let known = Status::ALL.into_iter().find(|status| status.as_str() == word);
        known.ok_or_else(|| {
            bad_param("status", format!("must be one of {}", Status::ALL.map(Status::as_str).join(", ")))
        })
    });
    let status = status.transpose()?;
    let channel = existing(&services, &id).await?.id;
    let rows = async |reader: &mut _| deliveries::list(reader, channel, status, page.after, page.rows()).await;
    let rows = read(&services, rows).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |row| (row.created_at, row.id), DeliveryView::from)))
}

/// One of them
#[utoipa::path(
    get,
    path = "/v1/notifications/channels/{id}/deliveries/{delivery}",
    responses((status = 200, body = DeliveryView))
)]
async fn get(services: web::Data<Services>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (channel, id) = (path_id("channel", &path.0)?, path_id("delivery", &path.1)?);
    let row = read(&services, async |reader| deliveries::find(reader, channel, id).await).await?;
    Ok(HttpResponse::Ok().json(DeliveryView::from(row.ok_or_else(|| no("delivery"))?)))
}

/// Sends it again
#[utoipa::path(
    post,
    path = "/v1/notifications/channels/{id}/deliveries/{delivery}/redeliver",
    responses((status = 202, body = DeliveryView))
)]
async fn redeliver(services: web::Data<Services>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (channel_id, id) = (path_id("channel", &path.0)?, path_id("delivery", &path.1)?);
    let delivery = write(&services, Redeliver { channel_id, id, at: now() }).await?.ok_or_else(|| no("delivery"))?;
    services.outbox.ring();
    Ok(HttpResponse::Accepted().json(DeliveryView::from(delivery)))
}
