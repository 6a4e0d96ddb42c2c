//! `/v1/repositories`. Secrets come in and never go out.

use super::body::{Body, Object};
use super::check::{Check, LINE, NAME, no, path_id};
use super::clock::now;
use super::failures::{read, settings_changed, to_the_end, write_for_sure, write_if};
use super::idempotency::gone_since;
use super::if_match::{IfMatch, etag};
use super::openapi::schemas;
use super::page::{CURSOR, LIMIT, List, Page, PageOfTimes};
use super::params::Params;
use super::patch::Patch;
use super::problem::Problem;
use super::reach::reach;
use super::repository_health::{self, Health};
use super::repository_url;
use super::routes::resource;
use crate::db::json::Json;
use crate::db::pauses::Target;
use crate::db::repositories::{self, Change, Changed, Changes, Create, Delete, Deleted, Repository, SecretColumn};
use crate::db::tags::Thing;
use crate::dispatcher::LimitBackups;
use crate::pauses::Pause;
use crate::persistence::WriteError;
use crate::request;
use crate::services::Services;
use crate::vault::Vault;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use fleet_wire::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

/// The highest `max_backups`: more hosts than any fleet has.
const MOST_BACKUPS: i64 = 1_000_000;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/repositories", [web::post().to(create), web::get().to(list)], "POST, GET"));
    config.service(resource(
        "/repositories/{id}",
        [web::get().to(get), web::patch().to(change), web::delete().to(delete)],
        "GET, PATCH, DELETE",
    ));
}

/// What the document says of them.
#[derive(OpenApi)]
#[openapi(paths(create, list, get, change, delete))]
pub(super) struct Api;

#[derive(Serialize, ToSchema)]
#[schema(as = AdminCredential)]
struct AdminView {
    url: Option<String>,
    username: Option<String>,
    has_password: bool,
    has_credential: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Repository)]
struct RepositoryView {
    id: Uuid,
    name: String,
    url: String,
    username: Option<String>,
    has_password: bool,
    has_credential: bool,
    admin: Option<AdminView>,
    append_only: bool,
    runner_host_id: Option<Uuid>,
    /// How many backups may be out at once; `null`: what the coordinator is started with.
    max_backups: Option<i64>,
    /// By whom and why nothing new is started here.
    paused: Option<Pause>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// One repository, with how it is.
#[derive(Serialize, ToSchema)]
#[schema(as = RepositoryWithHealth)]
struct Detail {
    #[serde(flatten)]
    repository: RepositoryView,
    health: Health,
}

impl RepositoryView {
    fn new(services: &Services, row: Repository) -> Self {
        let admin = row.has_admin.then(|| AdminView {
            url: row.admin_url,
            username: row.admin_username,
            has_password: row.admin_password.is_some(),
            has_credential: row.admin_credential.is_some(),
        });
        Self {
            id: row.id,
            name: row.name,
            url: row.url,
            username: row.username,
            has_password: !row.password.is_empty(),
            has_credential: row.credential.is_some(),
            admin,
            append_only: row.append_only,
            runner_host_id: row.runner_host_id,
            max_backups: row.max_backups,
            paused: services.pauses.get(Target::Repository(row.id)),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRepository {
    #[schema(value_type = schemas::Name)]
    name: String,
    #[schema(value_type = schemas::RepositoryUrl)]
    url: String,
    #[schema(value_type = schemas::SecretLine)]
    password: Secret,
    #[schema(value_type = Option<schemas::Username>)]
    username: Option<String>,
    #[schema(value_type = Option<schemas::SecretLine>)]
    credential: Option<Secret>,
    #[serde(default)]
    #[schema(value_type = Option<AdminPatch>)]
    admin: Patch<Object<AdminPatch>>,
    #[serde(default)]
    append_only: bool,
    #[schema(minimum = 1, maximum = 1000000)]
    max_backups: Option<i64>,
}

/// What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryPatch {
    #[serde(default)]
    #[schema(value_type = schemas::Name)]
    pub(super) name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schemas::RepositoryUrl)]
    pub(super) url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schemas::SecretLine)]
    pub(super) password: Patch<Secret>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Username>)]
    pub(super) username: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::SecretLine>)]
    pub(super) credential: Patch<Secret>,
    #[serde(default)]
    #[schema(value_type = Option<AdminPatch>)]
    pub(super) admin: Patch<Object<AdminPatch>>,
    #[serde(default)]
    #[schema(value_type = bool)]
    pub(super) append_only: Patch<bool>,
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1000000)]
    pub(super) max_backups: Patch<i64>,
}

/// What the repository's runner uses; what is left out is as for everybody.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminPatch {
    #[serde(default)]
    #[schema(value_type = Option<schemas::RepositoryUrl>)]
    pub(super) url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::Username>)]
    pub(super) username: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::SecretLine>)]
    pub(super) credential: Patch<Secret>,
    #[serde(default)]
    #[schema(value_type = Option<schemas::SecretLine>)]
    pub(super) password: Patch<Secret>,
}

impl From<NewRepository> for RepositoryPatch {
    fn from(new: NewRepository) -> Self {
        fn given<T>(value: Option<T>) -> Patch<T> {
            value.map_or(Patch::Absent, Patch::Value)
        }
        Self {
            name: Patch::Value(new.name),
            url: Patch::Value(new.url),
            password: Patch::Value(new.password),
            username: given(new.username),
            credential: given(new.credential),
            admin: new.admin,
            append_only: Patch::Value(new.append_only),
            max_backups: given(new.max_backups),
        }
    }
}

impl RepositoryPatch {
    /// Notes what is wrong.
    pub(super) fn check(&self, check: &mut Check) {
        let needed = [
            ("/name", self.name.is_null()),
            ("/url", self.url.is_null()),
            ("/password", self.password.is_null()),
            ("/append_only", self.append_only.is_null()),
        ];
        for (pointer, _) in needed.into_iter().filter(|(_, null)| *null) {
            check.wrong(pointer, "can't be null");
        }
        if let Some(most) = self.max_backups.value() {
            check.number("/max_backups", *most, 1..=MOST_BACKUPS);
        }
        if let Some(name) = self.name.value() {
            check.line("/name", name, NAME);
        }
        check_login(check, "", &self.url, &self.username, &self.credential, &self.password);
        if let Some(Object(admin)) = self.admin.value() {
            check_login(check, "/admin", &admin.url, &admin.username, &admin.credential, &admin.password);
        }
    }

    /// The changes of the row `id`, with the secrets sealed for it.
    fn into_changes(self, vault: &Vault, id: Uuid) -> Result<Changes, Problem> {
        let mut check = Check::default();
        self.check(&mut check);
        check.done()?;
        let seal = |column: SecretColumn, secret: Patch<Secret>| {
            let sealed = secret.try_map(|secret| vault.seal(column.place(id), secret.expose().as_bytes()));
            sealed.map(Patch::into_change).map_err(Problem::internal)
        };
        let mut changes = Changes {
            name: self.name.into_change().flatten(),
            url: self.url.into_change().flatten(),
            username: self.username.empty_is_null().into_change(),
            password: seal(SecretColumn::Password, self.password)?.flatten(),
            credential: seal(SecretColumn::Credential, self.credential)?,
            append_only: self.append_only.into_change().flatten(),
            max_backups: self.max_backups.into_change(),
            ..Changes::default()
        };
        match self.admin {
            Patch::Absent => {}
            Patch::Null => changes = changes.without_admin(),
            Patch::Value(Object(admin)) => {
                changes.has_admin = Some(true);
                changes.admin_url = admin.url.empty_is_null().into_change();
                changes.admin_username = admin.username.empty_is_null().into_change();
                changes.admin_password = seal(SecretColumn::AdminPassword, admin.password)?;
                changes.admin_credential = seal(SecretColumn::AdminCredential, admin.credential)?;
            }
        }
        if changes != Changes::default() {
            changes.updated_at = Some(now());
        }
        Ok(changes)
    }
}

fn check_login(
    check: &mut Check,
    parent: &str,
    url: &Patch<String>,
    username: &Patch<String>,
    credential: &Patch<Secret>,
    password: &Patch<Secret>,
) {
    if let Some(url) = url.value() {
        let pointer = format!("{parent}/url");
        check.line(&pointer, url, LINE);
        if let Some(complaint) = repository_url::complaint(url) {
            check.wrong(&pointer, complaint);
        }
    }
    if let Some(username) = username.value() {
        let pointer = format!("{parent}/username");
        check.short(&pointer, username, LINE);
        if username.contains(|character: char| character == ':' || character.is_control()) {
            check.wrong(&pointer, "can't hold a colon or control characters: HTTP could not carry it");
        }
    }
    for (name, secret) in [("credential", credential), ("password", password)] {
        let Some(secret) = secret.value() else { continue };
        let pointer = format!("{parent}/{name}");
        check.filled(&pointer, secret.expose(), LINE);
        if secret.expose().contains(['\n', '\r']) {
            check.wrong(&pointer, "can't hold a line break: restic reads one line");
        }
    }
}

fn refused(error: WriteError) -> Problem {
    match error.constraint() {
        Some("repositories_name_key") => Problem::conflict("there is a repository of this name"),
        _ => error.into(),
    }
}

/// Makes a repository known
#[utoipa::path(
    post,
    path = "/v1/repositories",
    request_body = NewRepository,
    responses(
        (status = 201, body = Detail, headers(("ETag" = String), ("Location" = String))),
        (status = 409, description = "There is a repository of this name.")
    )
)]
async fn create(services: web::Data<Services>, Body(new): Body<NewRepository>) -> Result<HttpResponse, Problem> {
    if let Some(id) = request::made_before() {
        let row = read(&services, async |reader| repositories::find(reader, id).await).await?;
        return created(&services, row.ok_or_else(gone_since)?).await;
    }
    let id = request::new_id();
    let changes = RepositoryPatch::from(new).into_changes(&services.vault, id)?;
    let now = now();
    let row = Repository {
        id,
        // `NewRepository` has all three, so the changes do.
        name: changes.name.unwrap_or_default(),
        url: changes.url.unwrap_or_default(),
        password: changes.password.unwrap_or_default(),
        username: changes.username.flatten(),
        credential: changes.credential.flatten(),
        admin_url: changes.admin_url.flatten(),
        admin_username: changes.admin_username.flatten(),
        admin_password: changes.admin_password.flatten(),
        admin_credential: changes.admin_credential.flatten(),
        has_admin: changes.has_admin.unwrap_or(false),
        append_only: changes.append_only.unwrap_or(false),
        runner_host_id: None,
        forget_max_snapshots: None,
        forget_max_share: None,
        max_backups: changes.max_backups.flatten(),
        secret_sources: Json::default(),
        created_at: now,
        updated_at: now,
    };
    to_the_end(async move {
        write_for_sure(&services, Create(row.clone())).await?.map_err(refused)?;
        if row.max_backups.is_some() {
            limit_backups(&services, &row).await?;
        }
        created(&services, row).await
    })
    .await
}

async fn created(services: &Services, row: Repository) -> Result<HttpResponse, Problem> {
    let mut answer = HttpResponse::Created();
    answer.insert_header((LOCATION, format!("/v1/repositories/{}", row.id)));
    show(services, answer, row).await
}

/// Repositories, the oldest first
#[utoipa::path(
    get,
    path = "/v1/repositories",
    params(PageOfTimes),
    responses((status = 200, body = List<Detail>))
)]
async fn list(services: web::Data<Services>, params: Params) -> Result<HttpResponse, Problem> {
    params.only(&[LIMIT, CURSOR])?;
    let page = Page::of(&params)?;
    let seen = reach(&services).await?.map(|reach| reach.repositories);
    let rows = async |reader: &mut _| repositories::list(reader, seen.as_deref(), page.after, page.rows()).await;
    let rows = read(&services, rows).await?;
    let rows = details(&services, rows).await?;
    let key = |row: &Detail| (row.repository.created_at, row.repository.id);
    Ok(HttpResponse::Ok().json(page.list(rows, key, |row| row)))
}

/// The repository of a path.
///
/// # Errors
/// 404, or what reading can come to.
pub async fn existing(services: &Services, id: &str) -> Result<Repository, Problem> {
    let id = path_id("repository", id)?;
    let row = read(services, async |reader| repositories::find(reader, id).await).await?;
    row.ok_or_else(|| no("repository"))
}

/// A repository
#[utoipa::path(get, path = "/v1/repositories/{id}", responses((status = 200, body = Detail, headers(("ETag" = String)))))]
async fn get(services: web::Data<Services>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    show(&services, HttpResponse::Ok(), existing(&services, &id).await?).await
}

/// The answer that shows a repository.
async fn show(services: &Services, mut answer: HttpResponseBuilder, row: Repository) -> Result<HttpResponse, Problem> {
    answer.insert_header(etag(&row));
    Ok(answer.json(details(services, vec![row]).await?.pop()))
}

/// Repositories, with how they are.
async fn details(services: &Services, rows: Vec<Repository>) -> Result<Vec<Detail>, Problem> {
    let known = read(services, async |reader| repository_health::known(reader, &rows).await).await?;
    let reach = reach(services).await?;
    let sees = |host: Uuid| reach.as_ref().is_none_or(|reach| reach.hosts.contains(&host));
    let health = |known| repository_health::judge(known, &services.maintenance, now(), sees);
    Ok(rows
        .into_iter()
        .zip(&known)
        .map(|(row, known)| Detail { repository: RepositoryView::new(services, row), health: health(known) })
        .collect())
}

/// Changes a repository
#[utoipa::path(
    patch,
    path = "/v1/repositories/{id}",
    request_body = RepositoryPatch,
    responses(
        (status = 412),
        (status = 200, body = Detail, headers(("ETag" = String))),
        (status = 409, description = "There is one of this name, or jobs that are not over work on it.")
    )
)]
async fn change(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
    Body(patch): Body<RepositoryPatch>,
) -> Result<HttpResponse, Problem> {
    let id = path_id("repository", &id)?;
    let changes = patch.into_changes(&services.vault, id)?;
    to_the_end(async move {
        // One after the other, so that the dispatcher hears of limits in the order in which they are in the ledger.
        let limited = changes.max_backups.is_some();
        let _changing = if limited { Some(services.pauses.changing().await) } else { None };
        let written = write_if(&services, if_match, Thing::Repository(id), Change { id, changes });
        match written.await?.map_err(refused)? {
            Changed::Done(row, hosts) => {
                if limited {
                    limit_backups(&services, &row).await?;
                }
                settings_changed(&services, hosts).await;
                show(&services, HttpResponse::Ok(), *row).await
            }
            Changed::NotFound => Err(no("repository")),
            Changed::Busy => {
                Err(Problem::conflict("jobs that are not over work on this repository: it can't move before"))
            }
        }
    })
    .await
}

/// Tells the dispatcher a repository's limit of backups.
async fn limit_backups(services: &Services, row: &Repository) -> Result<(), Problem> {
    let limit = LimitBackups { repository_id: row.id, most: row.max_backups.map(repositories::limit) };
    Ok(services.dispatcher.send(limit).await?)
}

/// Forgets a repository: nothing in it is touched
#[utoipa::path(
    delete,
    path = "/v1/repositories/{id}",
    responses((status = 412), (status = 204), (status = 409, description = "Hosts or the history of jobs need it."))
)]
async fn delete(
    services: web::Data<Services>,
    id: web::Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, Problem> {
    let id = path_id("repository", &id)?;
    let deleted = to_the_end(async move {
        let deleted = write_if(&services, if_match, Thing::Repository(id), Delete::new(id)).await??;
        if matches!(deleted, Deleted::Done) {
            services.pauses.set(Target::Repository(id), None);
        }
        Ok(deleted)
    });
    match deleted.await? {
        Deleted::Done => Ok(HttpResponse::NoContent().finish()),
        Deleted::NotFound => Err(no("repository")),
        Deleted::UsedByHosts(hosts) => Err(Problem::conflict(format!(
            "{hosts} hosts are assigned to this repository: give them another one (or null) first"
        ))),
        Deleted::UsedByJobs(jobs) => {
            Err(Problem::conflict(format!("{jobs} jobs have worked on this repository, and their history needs it")))
        }
    }
}
