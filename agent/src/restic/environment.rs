//! The environment of restic and of hooks, built from nothing.

use super::redact::percent_encode;
use super::version::Version;
use crate::credentials::Credentials;
use crate::orphans::DATA_DIR_VARIABLE;
use fleet_wire::Secret;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A child's whole environment.
pub type Environment = Vec<(OsString, OsString)>;

/// Where programs are looked for when the agent itself was started without `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What children take over from the agent's own environment.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`: ssh keys and the configuration of rclone are found there.
    pub home: Option<OsString>,
    /// `TZ`: the calendar of retention rules goes by the client's local time.
    pub timezone: Option<OsString>,
}

impl Inherited {
    /// From the agent's own environment.
    pub fn from_process() -> Self {
        Self { path: std::env::var_os("PATH"), home: std::env::var_os("HOME"), timezone: std::env::var_os("TZ") }
    }
}

/// The folder for temporary files.
pub fn temporary_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("tmp")
}

/// The folder for restic's cache.
pub fn cache_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("cache")
}

/// What every child gets. No secret is in it.
pub fn base(data_dir: &Path, inherited: &Inherited) -> Environment {
    let path = inherited.path.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let home = inherited.home.clone().unwrap_or_else(|| data_dir.into());
    let mut all: Environment = vec![
        ("PATH".into(), path),
        ("HOME".into(), home),
        ("LANG".into(), "C.UTF-8".into()),
        ("TMPDIR".into(), temporary_folder(data_dir).into()),
        (DATA_DIR_VARIABLE.into(), data_dir.into()),
    ];
    all.extend(inherited.timezone.clone().map(|timezone| ("TZ".into(), timezone)));
    all
}

/// What restic gets.
///
/// restic 0.19.1 fails without a cache folder, and every version redraws its progress far too often unless told.
pub fn for_restic(credentials: &Credentials, version: Version, data_dir: &Path, inherited: &Inherited) -> Environment {
    let mut all = base(data_dir, inherited);
    all.push(("RESTIC_CACHE_DIR".into(), cache_folder(data_dir).into()));
    all.push(("RESTIC_PROGRESS_FPS".into(), "1".into()));
    all.push(("RESTIC_PASSWORD".into(), exposed(credentials.password.as_ref()).into()));
    let url = credentials.url.as_deref().unwrap_or_default();
    let user = credentials.username.as_deref().unwrap_or_default();
    let credential = exposed(credentials.credential.as_ref());
    let has_credentials = !user.is_empty() || !credential.is_empty();
    // The variables are ignored where the address names a user (restic, backend/rest): then it must hold ours too.
    if has_credentials && is_rest(url) && (has_user(url) || !version.reads_rest_credentials()) {
        all.push(("RESTIC_REPOSITORY".into(), with_credentials(url, user, credential).into()));
    } else {
        all.push(("RESTIC_REPOSITORY".into(), url.into()));
        if has_credentials && is_rest(url) {
            all.push(("RESTIC_REST_USERNAME".into(), user.into()));
            all.push(("RESTIC_REST_PASSWORD".into(), credential.into()));
        }
    }
    all
}

fn exposed(secret: Option<&Secret>) -> &str {
    secret.map_or("", Secret::expose)
}

fn is_rest(url: &str) -> bool {
    url.starts_with("rest:")
}

fn has_user(url: &str) -> bool {
    split_authority(url).is_some_and(|(_, authority, _)| authority.contains('@'))
}

/// `url` with these credentials, percent-encoded, in the place of any that it has.
fn with_credentials(url: &str, user: &str, credential: &str) -> String {
    let Some((scheme, authority, path)) = split_authority(url) else { return url.to_owned() };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{}:{}@{host}{path}", percent_encode(user), percent_encode(credential))
}

/// `(scheme, authority, the rest with its slash)`.
fn split_authority(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((scheme, authority, path))
}

/// `url` as people may see it: without credentials.
pub fn public_url(url: &str) -> String {
    match split_authority(url) {
        Some((scheme, authority, path)) => {
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(url: &str, version: Version) -> Vec<(String, String)> {
        let credentials = Credentials {
            url: Some(url.to_owned()),
            password: Some(Secret::new("pass word")),
            username: Some("h1".to_owned()),
            credential: Some(Secret::new("p@ss/w")),
        };
        let inherited = Inherited { path: Some("/bin".into()), home: None, timezone: Some("Europe/Zurich".into()) };
        let all = for_restic(&credentials, version, Path::new("/data"), &inherited);
        let text = |text: OsString| text.into_string().unwrap();
        all.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn get<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
        all.iter().find(|variable| variable.0 == name).map(|variable| variable.1.as_str())
    }

    #[test]
    fn newer_restics_get_the_credentials_in_variables() {
        let all = environment("rest:http://h:8000/r/", Version::new(0, 16, 1));
        assert_eq!(get(&all, "RESTIC_REPOSITORY"), Some("rest:http://h:8000/r/"));
        assert_eq!(get(&all, "RESTIC_REST_USERNAME"), Some("h1"));
        assert_eq!(get(&all, "RESTIC_REST_PASSWORD"), Some("p@ss/w"));
        assert_eq!(get(&all, "RESTIC_PASSWORD"), Some("pass word"));
        assert_eq!(get(&all, "RESTIC_CACHE_DIR"), Some("/data/cache"));
        assert_eq!(get(&all, "TMPDIR"), Some("/data/tmp"));
        assert_eq!((get(&all, "HOME"), get(&all, "FLEET_DATA_DIR")), (Some("/data"), Some("/data")));
        assert_eq!(get(&all, "TZ"), Some("Europe/Zurich"));
    }

    #[test]
    fn older_restics_get_them_in_the_address() {
        let all = environment("rest:http://h:8000/r/", Version::new(0, 16, 0));
        assert_eq!(get(&all, "RESTIC_REPOSITORY"), Some("rest:http://h1:p%40ss%2Fw@h:8000/r/"));
        assert_eq!(get(&all, "RESTIC_REST_PASSWORD"), None);
    }

    #[test]
    fn an_address_with_a_user_gets_ours_instead() {
        let all = environment("rest:https://old:x@h/r@1", Version::new(0, 18, 0));
        assert_eq!(get(&all, "RESTIC_REPOSITORY"), Some("rest:https://h1:p%40ss%2Fw@h/r@1"));
    }

    #[test]
    fn other_backends_get_no_rest_credentials() {
        let all = environment("/srv/repo", Version::new(0, 14, 0));
        assert_eq!(get(&all, "RESTIC_REPOSITORY"), Some("/srv/repo"));
        assert_eq!(get(&all, "RESTIC_REST_USERNAME"), None);
    }

    #[test]
    fn addresses_are_shown_without_credentials() {
        assert_eq!(public_url("rest:http://u:p@h:8000/r"), "rest:http://h:8000/r");
        assert_eq!(public_url("/srv/a@b"), "/srv/a@b");
    }
}
