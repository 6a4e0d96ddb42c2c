//! `/v1/repositories/{id}/stats`: the newest value of each field, whichever host reported it.

use super::failures::read;
use super::problem::Problem;
use super::repositories::existing;
use super::routes::resource;
use crate::db::stats::{self, FIELDS, Stat};
use crate::services::Services;
use actix_web::{HttpResponse, web};
use fleet_wire::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use utoipa::{OpenApi, ToSchema};

/// Adds the route.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/repositories/{id}/stats", [web::get().to(get)], "GET"));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(get))]
pub(super) struct Api;

/// The newest value of each field, whichever host reported it; `null` while it is not known.
#[derive(ToSchema)]
#[schema(as = Stats)]
#[allow(dead_code, reason = "only for the document: the values are shown as agents report them")]
struct StatsView {
    total_size_bytes: Option<i64>,
    raw_size_bytes: Option<i64>,
    unique_files: Option<i64>,
    snapshot_count: Option<i64>,
    last_check_at: Option<Timestamp>,
    last_check_status: Option<String>,
    lock_present: Option<bool>,
    last_prune_at: Option<Timestamp>,
    last_prune_freed_bytes: Option<i64>,
    /// When any was last refreshed.
    refreshed_at: Option<Timestamp>,
    /// When each was.
    as_of: HashMap<String, Timestamp>,
}

/// Flat: every field of the wire's `repo.stats` (`null` while unknown), when any was last refreshed, and when each was.
fn view(stats: Vec<Stat>) -> Value {
    let refreshed_at = stats.iter().map(|stat| stat.as_of).max();
    let as_of: Map<String, Value> = stats.iter().map(|stat| (stat.field.clone(), json!(stat.as_of))).collect();
    let mut view: Map<String, Value> = FIELDS.into_iter().map(|field| (field.to_owned(), Value::Null)).collect();
    view.extend(stats.into_iter().map(|stat| (stat.field, stat.value.0)));
    view.insert("refreshed_at".to_owned(), json!(refreshed_at));
    view.insert("as_of".to_owned(), Value::Object(as_of));
    Value::Object(view)
}

/// How large a repository is, and how sound
#[utoipa::path(get, path = "/v1/repositories/{id}/stats", responses((status = 200, body = StatsView)))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let repository = existing(&services, &id).await?.id;
    let stats = read(&services, async |reader| stats::newest(reader, repository).await).await?;
    Ok(HttpResponse::Ok().json(view(stats)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::Json;

    #[test]
    fn the_view_has_every_field_and_their_ages() {
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        let view = view(vec![Stat { field: "lock_present".to_owned(), value: Json(json!(false)), as_of: at }]);
        assert_eq!(view["lock_present"], false);
        assert_eq!(view["snapshot_count"], Value::Null);
        assert!(view.as_object().is_some_and(|view| view.contains_key("snapshot_count")));
        assert_eq!(view["refreshed_at"], "2026-01-02T03:04:05Z");
        assert_eq!(view["as_of"], json!({"lock_present": "2026-01-02T03:04:05Z"}));
    }
}
