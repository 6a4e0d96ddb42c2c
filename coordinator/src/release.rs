//! The newest agent, as somebody has told us: agents that are older are told of it. It is for information; nobody updates an
//! agent but a person.

use fleet_wire::AgentUpdateAvailable;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::sync::{PoisonError, RwLock};

/// A version of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Release {
    /// Its version.
    pub latest_version: String,
    /// Where it is.
    pub package_url: String,
    /// What is new in it.
    pub changelog: Option<String>,
}

impl Release {
    /// What an agent of `version` is told of it; nothing if it is not older.
    fn news_for(&self, version: &str) -> Option<AgentUpdateAvailable> {
        is_older(version, &self.latest_version).then(|| AgentUpdateAvailable {
            latest_version: self.latest_version.clone(),
            package_url: self.package_url.clone(),
            changelog: self.changelog.clone(),
        })
    }
}

/// Whether an agent of `version` is older than the `latest`. One whose version can't be compared is, if it is another.
fn is_older(version: &str, latest: &str) -> bool {
    match (Version::of(version), Version::of(latest)) {
        (Some(version), Some(latest)) => version.compare(&latest) == Ordering::Less,
        _ => version != latest,
    }
}

/// Numbers, and what stands behind a hyphen: `1.2.0-rc1` comes before `1.2.0`.
struct Version<'a> {
    numbers: Vec<u64>,
    before: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        // What stands behind a plus says how it was built.
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, before) = text.split_once('-').map_or((text, None), |(numbers, before)| (numbers, Some(before)));
        let numbers: Option<Vec<u64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
        Some(Self { numbers: numbers?, before })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let most = self.numbers.len().max(other.numbers.len());
        let padded =
            |numbers: &[u64]| -> Vec<u64> { (0..most).map(|at| numbers.get(at).copied().unwrap_or(0)).collect() };
        padded(&self.numbers).cmp(&padded(&other.numbers)).then_with(|| match (self.before, other.before) {
            (Some(before), Some(other)) => before.cmp(other),
            (before, other) => before.is_none().cmp(&other.is_none()),
        })
    }
}

/// See the module's text: as the ledger has it. Its lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub struct Releases(RwLock<Option<Release>>);

impl Releases {
    /// What was found in the ledger.
    pub fn new(found: Option<Release>) -> Self {
        Self(RwLock::new(found))
    }

    /// There is a new one.
    pub fn set(&self, release: Release) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(release);
    }

    /// What an agent of `version` is told.
    pub fn news_for(&self, version: &str) -> Option<AgentUpdateAvailable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.news_for(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_older() {
        for (version, latest, older) in [
            ("0.1.0", "0.2.0", true),
            ("0.9.0", "0.10.0", true),
            ("1.0", "1.0.1", true),
            ("1.0", "1.0.0", false),
            ("1.2.0", "1.2.0", false),
            ("v1.2.0", "1.2.0+build7", false),
            ("1.3.0", "1.2.9", false),
            ("1.2.0-rc1", "1.2.0", true),
            ("1.2.0", "1.2.0-rc1", false),
            ("1.2.0-rc1", "1.2.0-rc2", true),
            ("", "1.0.0", true),
            ("nightly", "1.0.0", true),
            ("nightly", "nightly", false),
        ] {
            assert_eq!(is_older(version, latest), older, "{version} and {latest}");
        }
    }
}
