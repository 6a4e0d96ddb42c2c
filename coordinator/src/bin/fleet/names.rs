//! Names instead of ids, and ids for names: the API knows hosts and repositories by their ids only.

use crate::client::{Ask, Client};
use crate::failure::Failure;
use crate::query::Query;
use crate::value::text;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// Up to so many unknown hosts are asked for one by one, and the whole list otherwise.
const ONE_BY_ONE: usize = 8;
/// The longest page.
const PAGE: &str = "500";

/// What hosts and repositories are called.
#[derive(Debug, Default)]
pub(crate) struct Names {
    hosts: HashMap<String, String>,
    repositories: HashMap<String, String>,
}

impl Names {
    /// Learns what is needed to show `items`.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) fn learn(&mut self, client: &Client, items: &[Value]) -> Result<(), Failure> {
        let ids = |fields: &[&str]| -> BTreeSet<String> {
            let found = items.iter().flat_map(|item| fields.iter().map(|field| text(item, field).to_owned()));
            found.filter(|id| !id.is_empty()).collect()
        };
        let unknown = ids(&["host_id", "runner_host_id"]).into_iter().filter(|id| !self.hosts.contains_key(id));
        let unknown: Vec<String> = unknown.collect();
        if unknown.len() > ONE_BY_ONE {
            for host in all(client, Query::new("/v1/hosts"))? {
                self.hosts.insert(text(&host, "id").to_owned(), text(&host, "hostname").to_owned());
            }
        } else {
            for id in unknown {
                // One that is out of service, or not ours to see, keeps its id.
                if let Some(host) = client.find(format!("/v1/hosts/{id}"))? {
                    self.hosts.insert(id, text(&host, "hostname").to_owned());
                }
            }
        }
        if ids(&["repository_id"]).iter().any(|id| !self.repositories.contains_key(id)) {
            for repository in all(client, Query::new("/v1/repositories"))? {
                self.repositories.insert(text(&repository, "id").to_owned(), text(&repository, "name").to_owned());
            }
        }
        Ok(())
    }

    /// What the host of `item` is called; its id if that is not known.
    pub(crate) fn host(&self, item: &Value) -> String {
        self.host_called(text(item, "host_id"))
    }

    /// What the host with this id is called; the id if that is not known.
    pub(crate) fn host_called(&self, id: &str) -> String {
        self.hosts.get(id).map_or(id, String::as_str).to_owned()
    }

    /// What the repository of `item` is called; its id if that is not known.
    pub(crate) fn repository(&self, item: &Value) -> String {
        let id = text(item, "repository_id");
        self.repositories.get(id).map_or(id, String::as_str).to_owned()
    }
}

/// Every item of a list.
///
/// # Errors
/// It is refused, or there is no answer.
pub(crate) fn all(client: &Client, path: Query) -> Result<Vec<Value>, Failure> {
    let path = path.with("limit", PAGE);
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let mut page = client.ask(&Ask::get(path.clone().with_some("cursor", cursor.as_deref())))?.json;
        if let Value::Array(more) = page["items"].take() {
            items.extend(more);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(items),
        }
    }
}

/// The id of a host that is given by name or id.
///
/// # Errors
/// There is none of this name, or several, or no answer.
pub(crate) fn host_id(client: &Client, given: &str) -> Result<String, Failure> {
    by_name(client, "host", "/v1/hosts", "hostname", given)
}

/// The id of a repository that is given by name or id.
///
/// # Errors
/// As [`host_id`].
pub(crate) fn repository_id(client: &Client, given: &str) -> Result<String, Failure> {
    by_name(client, "repository", "/v1/repositories", "name", given)
}

fn by_name(client: &Client, what: &str, list: &str, field: &str, given: &str) -> Result<String, Failure> {
    if given.parse::<Uuid>().is_ok() {
        return Ok(given.to_owned());
    }
    one_of(&all(client, Query::new(list))?, what, field, given)
}

fn one_of(items: &[Value], what: &str, field: &str, given: &str) -> Result<String, Failure> {
    let found: Vec<&str> =
        items.iter().filter(|item| text(item, field) == given).map(|item| text(item, "id")).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Failure::unknown(format!("there is no {what} called {given:?}"))),
        several => {
            Err(Failure::Usage(format!("more than one {what} is called {given:?}, give an id: {}", several.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_must_mean_one() {
        let hosts = [
            json!({"id": "1", "hostname": "web"}),
            json!({"id": "2", "hostname": "db"}),
            json!({"id": "3", "hostname": "db"}),
        ];
        let found = |name| one_of(&hosts, "host", "hostname", name);
        assert_eq!(found("web").expect("one"), "1");
        assert!(matches!(found("we"), Err(Failure::Refused(problem)) if problem.to_string().contains("\"we\"")));
        assert!(matches!(found("db"), Err(Failure::Usage(text)) if text.ends_with("2, 3")));
    }

    #[test]
    fn what_has_no_name_keeps_its_id() {
        let names = Names { hosts: HashMap::from([("1".to_owned(), "web".to_owned())]), ..Names::default() };
        assert_eq!(names.host(&json!({"host_id": "1"})), "web");
        assert_eq!((names.host(&json!({"host_id": "2"})), names.host(&json!({}))), ("2".to_owned(), String::new()));
    }
}
