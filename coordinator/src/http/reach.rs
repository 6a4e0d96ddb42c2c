//! What a token that is limited by labels sees and touches: only hosts that carry them. Single things are decided here, for all
//! routes alike, by the URL; lists ask for the [`Reach`] and filter by it.

use super::failures::read;
use super::problem::Problem;
use crate::access::Labels;
use crate::db::reach::{Reach, Share, Thing, covers_repositories, share, within};
use crate::operation::select::Per;
use crate::request;
use crate::services::Services;
use actix_web::http::Method;
use fleet_wire::Kind;
use uuid::Uuid;

/// What the current request may see; `None` is everything.
///
/// # Errors
/// Those of reading.
pub(super) async fn reach(services: &Services) -> Result<Option<Reach>, Problem> {
    let Some(limit) = request::host_limit() else { return Ok(None) };
    read(services, async |reader| within(reader, &limit).await).await.map(Some)
}

/// What the path behind `/v1/` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// A list, which filters by itself, or something that the route itself refuses.
    Many,
    /// All hosts.
    Fleet,
    /// What all hosts are made of, which is shown only whole.
    Whole,
    /// What belongs to hosts.
    One(Thing),
    /// Something whose id is none.
    Nothing,
}

fn about(path: &str) -> About {
    let segments: Vec<&str> = path.split('/').collect();
    let (id, of): (&str, fn(Uuid) -> Thing) = match segments.as_slice() {
        ["hosts", id, ..] => (id, Thing::Host),
        ["jobs", id, ..] => (id, Thing::Job),
        ["repositories", id, ..] => (id, Thing::Repository),
        ["operations", id, ..] => (id, Thing::Operation),
        ["pause", ..] => return About::Fleet,
        ["fleet", ..] => return About::Whole,
        _ => return About::Many,
    };
    id.parse().map_or(About::Nothing, |id| About::One(of(id)))
}

/// Lets a token with these labels pass to what it may see; 403 for a change that hits other hosts too.
///
/// # Errors
/// 404 for what it may not see, 403, or those of reading.
pub(super) async fn check(services: &Services, limit: &Labels, method: &Method, path: &str) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let thing = match about(path) {
        About::Many => return Ok(()),
        About::Fleet if reads => return Ok(()),
        About::Fleet | About::Whole => return Err(others()),
        About::Nothing => return Err(unseen()),
        About::One(thing) => thing,
    };
    match read(services, async |reader| share(reader, thing, limit).await).await? {
        Share::None => Err(unseen()),
        Share::Some | Share::All if reads => Ok(()),
        Share::Some => Err(others()),
        Share::All => match read(services, async |reader| covers_repositories(reader, thing, limit).await).await? {
            true => Ok(()),
            false => Err(others()),
        },
    }
}

/// Lets a job pass if it hits no host that the token may not touch: what is done for a whole repository is for all of its hosts.
///
/// # Errors
/// 403, or those of reading.
pub(super) async fn check_kind(services: &Services, kind: Kind, repository_id: Uuid) -> Result<(), Problem> {
    let Some(limit) = request::host_limit().filter(|_| Per::of(kind) == Per::Repository) else { return Ok(()) };
    let thing = Thing::Repository(repository_id);
    match read(services, async |reader| share(reader, thing, &limit).await).await? {
        Share::All => Ok(()),
        Share::Some | Share::None => Err(others()),
    }
}

fn unseen() -> Problem {
    Problem::not_found("there is no such thing, or this token is limited to other hosts")
}

fn others() -> Problem {
    Problem::forbidden("this would hit hosts that this token is not limited to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_what_they_are_about() {
        let id = Uuid::from_u128(1);
        let table = [
            (format!("hosts/{id}"), About::One(Thing::Host(id))),
            (format!("hosts/{id}/jobs"), About::One(Thing::Host(id))),
            (format!("jobs/{id}/logs"), About::One(Thing::Job(id))),
            (format!("repositories/{id}/pause"), About::One(Thing::Repository(id))),
            (format!("operations/{id}/cancel"), About::One(Thing::Operation(id))),
            ("hosts/x".to_owned(), About::Nothing),
            ("pause".to_owned(), About::Fleet),
            ("fleet".to_owned(), About::Whole),
            ("pauses".to_owned(), About::Many),
            ("jobs".to_owned(), About::Many),
        ];
        for (path, expected) in table {
            assert_eq!(about(&path), expected, "{path}");
        }
    }
}
