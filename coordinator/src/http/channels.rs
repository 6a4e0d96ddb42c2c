//! `/v1/notifications/channels`: who is told what is wrong. A secret that a client gives never goes out; one that is made here is
//! shown once.

use super::body::Body;
use super::check::{Check, LINE, NAME, no, path_id};
use super::clock::now;
use super::enrollment::secret_answer;
use super::failures::{read, to_the_end, write_for_sure};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::Params;
use super::patch::Patch;
use super::problem::Problem;
use super::routes::resource;
use super::webhook_url;
use crate::access::Labels;
use crate::db::channels::{self, Change, Changes, Channel, Create, Delete, secret_place};
use crate::db::json::Json;
use crate::db::repositories;
use crate::notify::{Event, address, signature};
use crate::persistence::WriteError;
use crate::request;
use crate::services::Services;
use crate::vault::Vault;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use fleet_wire::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// How many addresses a channel of e-mail may have.
const MOST_RECIPIENTS: usize = 50;
/// What is wrong with what only the other kind has.
const OTHER_KIND: &str = "belongs to a channel of the other kind";

/// Adds the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/notifications/channels", [web::post().to(create), web::get().to(list)], "POST, GET"));
    config.service(resource(
        "/notifications/channels/{id}",
        [web::get().to(get), web::patch().to(change), web::delete().to(delete)],
        "GET, PATCH, DELETE",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(create, list, get, change, delete))]
pub(super) struct Api;

/// How a channel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Webhook,
    Email,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Email => "email",
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewChannel {
    #[schema(value_type = schemas::Name)]
    name: String,
    #[schema(value_type = schemas::ChannelKind)]
    kind: Kind,
    /// Of a webhook.
    #[schema(value_type = Option<schemas::WebhookUrl>)]
    url: Option<String>,
    /// What signs webhooks; without one it is made, and shown in this answer.
    #[schema(value_type = Option<schemas::WebhookSecret>)]
    secret: Option<Secret>,
    /// Of e-mail.
    #[schema(value_type = Option<Vec<schemas::MailAddress>>, min_items = 1, max_items = 50)]
    recipients: Option<Vec<String>>,
    /// What it is told; everything unless it is said.
    #[schema(min_items = 1)]
    events: Option<Vec<Event>>,
    /// Only of hosts that carry these labels.
    #[schema(value_type = Option<schemas::HostLimit>)]
    host_labels: Option<Labels>,
    /// Only of this repository, and of hosts that use it.
    #[schema(value_type = Option<Uuid>)]
    repository_id: Option<String>,
    enabled: Option<bool>,
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChannelPatch {
    #[serde(default)]
    #[schema(value_type = schemas::Name)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schemas::WebhookUrl)]
    url: Patch<String>,
    /// `null` makes a new one and shows it in the answer.
    #[serde(default)]
    #[schema(value_type = Option<schemas::WebhookSecret>)]
    secret: Patch<Secret>,
    #[serde(default)]
    #[schema(value_type = Vec<schemas::MailAddress>, min_items = 1, max_items = 50)]
    recipients: Patch<Vec<String>>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<Event>>, min_items = 1)]
    events: Patch<Vec<Event>>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::HostLimit>)]
    host_labels: Patch<Labels>,
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    repository_id: Patch<String>,
    #[serde(default)]
    #[schema(value_type = bool)]
    enabled: Patch<bool>,
}

impl From<NewChannel> for ChannelPatch {
    fn from(new: NewChannel) -> Self {
        fn given<T>(value: Option<T>) -> Patch<T> {
            value.map_or(Patch::Absent, Patch::Value)
        }
        Self {
            name: Patch::Value(new.name),
            url: given(new.url),
            // A webhook without one gets one that is made here.
            secret: match new.kind {
                Kind::Webhook => new.secret.map_or(Patch::Null, Patch::Value),
                Kind::Email => given(new.secret),
            },
            recipients: given(new.recipients),
            events: given(new.events),
            host_labels: given(new.host_labels),
            repository_id: given(new.repository_id),
            enabled: given(new.enabled),
        }
    }
}

/// What is to be changed, and the secret if it was made here.
type Made = (Changes, Option<Secret>);

impl ChannelPatch {
    /// Checks what does not depend on anything else; gives the repository.
    fn check(&self) -> Result<Option<Uuid>, Problem> {
        let mut check = Check::default();
        self.check_target(&mut check);
        let needed = [("/name", self.name.is_null()), ("/enabled", self.enabled.is_null())];
        for (pointer, _) in needed.into_iter().filter(|(_, null)| *null) {
            check.wrong(pointer, "can't be null");
        }
        if let Some(name) = self.name.value() {
            check.line("/name", name, NAME);
        }
        if self.events.value().is_some_and(Vec::is_empty) {
            check.wrong("/events", "needs an event: leave it out (or null) for all");
        }
        if let Some(labels) = self.host_labels.value() {
            check.labels("/host_labels", labels);
            if labels.is_empty() {
                check.wrong("/host_labels", "needs a label: leave it out (or null) for all hosts");
            }
        }
        let repository = self.repository_id.value().and_then(|id| check.id("/repository_id", "repository", id));
        check.done()?;
        Ok(repository)
    }

    /// Checks where it goes to.
    fn check_target(&self, check: &mut Check) {
        match &self.url {
            Patch::Absent => {}
            Patch::Null => check.wrong("/url", "can't be null"),
            Patch::Value(url) => {
                check.line("/url", url, LINE);
                if let Some(complaint) = webhook_url::complaint(url) {
                    check.wrong("/url", complaint);
                }
            }
        }
        match &self.secret {
            Patch::Value(secret) if signature::key(secret).is_none() => {
                check.wrong("/secret", "must be whsec_ and 24 to 64 bytes in base64; leave it out to have one made");
            }
            Patch::Absent | Patch::Null | Patch::Value(_) => {}
        }
        match &self.recipients {
            Patch::Absent => {}
            Patch::Null => check.wrong("/recipients", "can't be null"),
            Patch::Value(recipients) => {
                if !(1..=MOST_RECIPIENTS).contains(&recipients.len()) {
                    check.wrong("/recipients", format!("may have 1 to {MOST_RECIPIENTS} addresses"));
                }
                for (index, recipient) in recipients.iter().enumerate() {
                    let pointer = format!("/recipients/{index}");
                    check.line(&pointer, recipient, NAME);
                    if let Err(error) = address(recipient) {
                        check.wrong(&pointer, format!("is no address: {error}"));
                    }
                }
            }
        }
    }

    /// What is given and belongs to the other kind of channel.
    fn strange(&self, kind: Kind) -> Option<&'static str> {
        let (webhook, mail) = (kind == Kind::Webhook, kind == Kind::Email);
        let given = [
            ("/url", mail && self.url != Patch::Absent),
            ("/secret", mail && self.secret != Patch::Absent),
            ("/recipients", webhook && self.recipients != Patch::Absent),
        ];
        given.into_iter().find(|(_, strange)| *strange).map(|(pointer, _)| pointer)
    }

    /// The changes of the row `id`, with the secret sealed for it.
    async fn into_changes(self, services: &Services, id: Uuid) -> Result<Made, Problem> {
        let repository = self.check()?;
        if let Some(id) = repository {
            let found = read(services, async |reader| repositories::find(reader, id).await).await?;
            found.ok_or_else(|| Problem::conflicting_field("/repository_id", "there is no repository with this id"))?;
        }
        let (secret, made) = match self.secret {
            Patch::Absent => (None, None),
            Patch::Value(secret) => (Some(seal(&services.vault, id, &secret)?), None),
            Patch::Null => {
                // What a vault makes is hexadecimal, and so base64 too.
                let secret = request::new_token(&services.vault, signature::PREFIX).map_err(Problem::internal)?;
                (Some(seal(&services.vault, id, &secret)?), Some(secret))
            }
        };
        let mut changes = Changes {
            name: self.name.into_change().flatten(),
            url: self.url.into_change().flatten(),
            secret,
            recipients: self.recipients.into_change().flatten().map(Json),
            events: self.events.into_change().map(|events| events.map(Json)),
            host_labels: self.host_labels.into_change().map(|labels| labels.map(Json)),
            repository_id: self.repository_id.into_change().map(|_| repository),
            enabled: self.enabled.into_change().flatten(),
            updated_at: None,
        };
        if changes != Changes::default() {
            changes.updated_at = Some(now());
        }
        Ok((changes, made))
    }
}

fn seal(vault: &Vault, id: Uuid, secret: &Secret) -> Result<Vec<u8>, Problem> {
    vault.seal(secret_place(id), secret.expose().as_bytes()).map_err(Problem::internal)
}

#[derive(Serialize, ToSchema)]
#[schema(as = Channel)]
struct ChannelView {
    id: Uuid,
    name: String,
    #[schema(value_type = schemas::ChannelKind)]
    kind: String,
    url: Option<String>,
    recipients: Option<Vec<String>>,
    events: Option<Vec<Event>>,
    #[schema(value_type = Option<schemas::Labels>)]
    host_labels: Option<Labels>,
    repository_id: Option<Uuid>,
    enabled: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Only in the answer to the request that it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    secret: Option<Secret>,
}

impl ChannelView {
    fn new(row: Channel) -> Self {
        Self {
            id: row.id,
            name: row.name,
            kind: row.kind,
            url: row.url,
            recipients: row.recipients.map(|Json(recipients)| recipients),
            events: row.events.map(|Json(events)| events),
            host_labels: row.host_labels.map(|Json(labels)| labels),
            repository_id: row.repository_id,
            enabled: row.enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
            secret: None,
        }
    }
}

fn refused(error: WriteError) -> Problem {
    match error.constraint() {
        Some("channels_name") => Problem::conflict("there is a channel of this name"),
        _ => error.into(),
    }
}

/// Makes a channel
#[utoipa::path(
    post,
    path = "/v1/notifications/channels",
    request_body = NewChannel,
    responses(
        (status = 201, body = ChannelView, headers(("Location" = String), ("Cache-Control" = String))),
        (status = 409, description = "There is a channel of this name, or there are too many, or no mail server.")
    )
)]
async fn create(services: web::Data<Services>, Body(new): Body<NewChannel>) -> Result<HttpResponse, Problem> {
    let (id, kind) = (request::new_id(), new.kind);
    let mut check = Check::default();
    match kind {
        Kind::Webhook if new.url.is_none() => check.wrong("/url", "is missing"),
        Kind::Email if new.recipients.is_none() => check.wrong("/recipients", "is missing"),
        Kind::Webhook | Kind::Email => {}
    }
    check.done()?;
    if kind == Kind::Email && services.mailer.is_none() {
        let needs = "needs a mail server: start the coordinator with FLEET_SMTP_URL";
        return Err(Problem::conflicting_field("/kind", needs));
    }
    let patch = ChannelPatch::from(new);
    let mut check = Check::default();
    if let Some(pointer) = patch.strange(kind) {
        check.wrong(pointer, OTHER_KIND);
    }
    check.done()?;
    let (changes, secret) = patch.into_changes(&services, id).await?;
    let now = now();
    let row = Channel {
        id,
        // `NewChannel` has one.
        name: changes.name.unwrap_or_default(),
        kind: kind.as_str().to_owned(),
        url: changes.url,
        secret: changes.secret,
        recipients: changes.recipients,
        events: changes.events.flatten(),
        host_labels: changes.host_labels.flatten(),
        repository_id: changes.repository_id.flatten(),
        enabled: changes.enabled.unwrap_or(true),
        created_at: now,
        updated_at: now,
    };
    to_the_end(async move {
        let _changing = services.outbox.changing().await;
        let wanted = write_for_sure(&services, Create(row.clone())).await?.map_err(refused)?;
        let wanted = wanted.ok_or_else(|| {
            Problem::conflict(format!("there are {} channels, which is the most: delete one first", channels::MOST))
        })?;
        services.outbox.set_wanted(wanted);
        let view = ChannelView { secret, ..ChannelView::new(row) };
        Ok(secret_answer().insert_header((LOCATION, format!("/v1/notifications/channels/{id}"))).json(view))
    })
    .await
}

/// Channels, the oldest first
#[utoipa::path(
    get,
    path = "/v1/notifications/channels",
    params(PageOfTimes),
    responses((status = 200, body = List<ChannelView>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page: Page<(Timestamp, Uuid)> = Page::of(&params)?;
    let rows = read(&services, async |reader| channels::list(reader, page.after, page.rows()).await).await?;
    Ok(HttpResponse::Ok().json(page.list(rows, |row| (row.created_at, row.id), ChannelView::new)))
}

/// The channel of a path.
///
/// # Errors
/// 404, or what reading can come to.
pub(super) async fn existing(services: &Services, id: &str) -> Result<Channel, Problem> {
    let id = path_id("channel", id)?;
    let row = read(services, async |reader| channels::find(reader, id).await).await?;
    row.ok_or_else(|| no("channel"))
}

/// A channel
#[utoipa::path(get, path = "/v1/notifications/channels/{id}", responses((status = 200, body = ChannelView)))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(ChannelView::new(existing(&services, &id).await?)))
}

/// Changes a channel
#[utoipa::path(
    patch,
    path = "/v1/notifications/channels/{id}",
    request_body = ChannelPatch,
    responses(
        (status = 200, body = ChannelView),
        (status = 409, description = "There is a channel of this name, or this belongs to the other kind.")
    )
)]
async fn change(
    services: web::Data<Services>,
    id: web::Path<String>,
    Body(patch): Body<ChannelPatch>,
) -> Result<HttpResponse, Problem> {
    let Channel { id, kind, .. } = existing(&services, &id).await?;
    let kind = if kind == Kind::Email.as_str() { Kind::Email } else { Kind::Webhook };
    patch.check()?;
    if let Some(pointer) = patch.strange(kind) {
        return Err(Problem::conflicting_field(pointer, OTHER_KIND));
    }
    let (changes, secret) = patch.into_changes(&services, id).await?;
    to_the_end(async move {
        let _changing = services.outbox.changing().await;
        let changed = write_for_sure(&services, Change { id, changes }).await?.map_err(refused)?;
        let (row, wanted) = changed.ok_or_else(|| no("channel"))?;
        services.outbox.set_wanted(wanted);
        services.outbox.ring();
        Ok(HttpResponse::Ok().json(ChannelView { secret, ..ChannelView::new(row) }))
    })
    .await
}

/// Deletes a channel, with all that is on its way to it
#[utoipa::path(delete, path = "/v1/notifications/channels/{id}", responses((status = 204)))]
async fn delete(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = path_id("channel", &id)?;
    to_the_end(async move {
        let _changing = services.outbox.changing().await;
        let wanted = write_for_sure(&services, Delete::new(id)).await??.ok_or_else(|| no("channel"))?;
        services.outbox.set_wanted(wanted);
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}
