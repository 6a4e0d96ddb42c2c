//! Is there a restic that can be used?

use super::version::{OLDEST, Version};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// How long `restic version` may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// What is known about the host's restic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It works.
    Usable(Version),
    /// It is older than [`OLDEST`].
    TooOld(Version),
    /// There is none, or it doesn't answer.
    Unusable {
        /// Where it was looked for.
        path: PathBuf,
        /// What came of it.
        reason: String,
    },
}

impl Found {
    /// For `hello.restic_version`: empty if there is no restic.
    pub fn version_text(&self) -> String {
        match self {
            Self::Usable(version) | Self::TooOld(version) => version.to_string(),
            Self::Unusable { .. } => String::new(),
        }
    }

    /// Why no job can run, and what to do about it.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Usable(_) => None,
            Self::TooOld(version) => {
                Some(format!("restic {version} is too old: install {OLDEST} or newer, or set FLEET_RESTIC to one"))
            }
            Self::Unusable { path, reason } => {
                Some(format!("restic was not found at {} ({reason}): install it or set FLEET_RESTIC", path.display()))
            }
        }
    }
}

/// Runs `restic version`. `path` without a slash is looked for in `PATH`.
pub async fn find(path: &Path) -> Found {
    let unusable = |reason: String| Found::Unusable { path: path.to_owned(), reason };
    let search = std::env::var_os("PATH").map(|value| ("PATH", value));
    // As text: with --json, restic before 0.17 prints the same words and later ones an object.
    let output =
        Command::new(path).arg("version").env_clear().envs(search).stdin(Stdio::null()).kill_on_drop(true).output();
    match timeout(TIME_LIMIT, output).await {
        Err(_) => unusable(format!("no answer within {} s", TIME_LIMIT.as_secs())),
        Ok(Err(error)) => unusable(error.to_string()),
        Ok(Ok(output)) => match Version::read(&String::from_utf8_lossy(&output.stdout)) {
            Some(version) if version >= OLDEST => Found::Usable(version),
            Some(version) => Found::TooOld(version),
            None => unusable(format!("it does not answer as restic does, and ended with {}", output.status)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_restic_is_said_clearly() {
        let missing = find(Path::new("/no/such/restic")).await;
        assert_eq!(missing.version_text(), "");
        let problem = missing.problem().unwrap();
        assert!(problem.starts_with("restic was not found at /no/such/restic"), "{problem}");
        assert!(problem.ends_with("install it or set FLEET_RESTIC"), "{problem}");
        let other = find(Path::new("/bin/true")).await.problem().unwrap();
        assert!(other.contains("does not answer as restic does"), "{other}");
    }

    #[tokio::test]
    async fn the_real_one_is_found() {
        let found = find(Path::new("restic")).await;
        assert!(matches!(found, Found::Usable(version) if version >= OLDEST), "{found:?}");
    }

    #[test]
    fn an_old_one_is_named() {
        let old = Found::TooOld(Version::new(0, 9, 6));
        assert_eq!(old.version_text(), "0.9.6");
        assert!(old.problem().unwrap().starts_with("restic 0.9.6 is too old: install 0.14.0 or newer"));
    }
}
