//! Where a repository is, in restic's notation: a path, or a backend's name, a colon and what that backend takes.

/// The backends of restic 0.14 and later that need no more than an address.
const BACKENDS: [&str; 9] = ["local", "rest", "sftp", "s3", "b2", "azure", "gs", "swift", "rclone"];

/// What is wrong with `url`, if anything. Credentials have fields of their own: in a URL they would be shown, logged
/// and handed to everyone who may read it.
pub fn complaint(url: &str) -> Option<String> {
    if url.starts_with('/') || is_windows_path(url) {
        return None;
    }
    let Some((backend, rest)) = url.split_once(':').filter(|(backend, _)| BACKENDS.contains(backend)) else {
        return Some(format!("must be an absolute path, or begin with one of {}:", BACKENDS.join(":, ")));
    };
    if rest.is_empty() {
        return Some(format!("says nothing after {backend}:"));
    }
    match backend {
        "local" if !rest.starts_with('/') && !is_windows_path(rest) => Some("must be an absolute path".to_owned()),
        "rest" if !rest.starts_with("http://") && !rest.starts_with("https://") => {
            Some("must go on with http:// or https:// after rest:".to_owned())
        }
        "rest" | "s3" => credentials_in(rest),
        // The user's name belongs into an sftp address; ssh takes no password there.
        "sftp" => user_in(rest)
            .filter(|user| user.contains(':'))
            .map(|_| "holds a password: leave it out, and give the agent's user an SSH key for this server".to_owned()),
        _ => None,
    }
}

fn is_windows_path(path: &str) -> bool {
    let mut characters = path.chars();
    let drive = characters.next().is_some_and(|letter| letter.is_ascii_alphabetic());
    (drive && characters.next() == Some(':') && matches!(characters.next(), Some('\\' | '/')))
        || path.starts_with("\\\\")
}

/// The part of an address that names the server: between `//`, or the beginning, and the next `/`.
fn authority(address: &str) -> &str {
    let address = address.split_once("://").map_or(address, |(_, address)| address);
    address.split(['/', '?', '#']).next().unwrap_or_default()
}

fn user_in(address: &str) -> Option<&str> {
    authority(address.trim_start_matches("//")).rsplit_once('@').map(|(user, _)| user)
}

fn credentials_in(address: &str) -> Option<String> {
    const MOVE: &str = "put them into username and credential";
    if user_in(address).is_some() {
        return Some(format!("holds credentials: {MOVE}"));
    }
    // user:pa/ss@host looks like a host and a port up to the slash.
    let authority = authority(address);
    let port = match authority.strip_prefix('[') {
        Some(ipv6) => ipv6.split_once(']').map_or("", |(_, port)| port.trim_start_matches(':')),
        None => authority.split_once(':').map_or("", |(_, port)| port),
    };
    if authority.is_empty() {
        return Some("names no server".to_owned());
    }
    (!port.is_empty() && port.parse::<u16>().is_err())
        .then(|| format!("has a port that is no number; if these are credentials, {MOVE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restics_notations_pass() {
        for url in [
            "/srv/backup",
            "local:/srv/backup",
            "C:\\backup",
            "\\\\server\\share",
            "rest:http://127.0.0.1:8000/host1/",
            "rest:https://[::1]:8000/a@b/",
            "rest:http://backup.example",
            "sftp:user@host:/srv/backup",
            "sftp://user@host:2222//srv/backup",
            "s3:https://s3.amazonaws.com/bucket",
            "s3:s3.amazonaws.com/bucket",
            "b2:bucket:path",
            "rclone:remote:path",
        ] {
            assert_eq!(complaint(url), None, "{url}");
        }
    }

    #[test]
    fn credentials_have_fields_of_their_own() {
        for url in [
            "rest:http://user:hunter2@host/",
            "rest:https://user@host:8000/",
            "rest:http://user:hun/ter2@host/",
            "rest:http://user:hun?ter2@host/",
            "s3:https://hunter2:hunter2@host/bucket",
            "sftp://user:hunter2@host//srv",
            "sftp:user:hunter2@host:/srv",
        ] {
            let complaint = complaint(url).expect(url);
            assert!(complaint.contains("credential") || complaint.contains("password"), "{url}: {complaint}");
            assert!(!complaint.contains("hun"), "{complaint}");
        }
    }

    #[test]
    fn what_restic_would_take_for_something_else_is_refused() {
        for url in ["", "backup", "http://host/", "local:", "local:backup", "rest:host/", "ftp:host", "rest:http:///a"]
        {
            assert!(complaint(url).is_some(), "{url}");
        }
    }
}
