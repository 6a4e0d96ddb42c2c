//! Where the embedded PostgreSQL keeps its things.
//!
//! In the data folder: `postgres` (the cluster), `postgres.new` (one that `initdb` is still making),
//! `postgres-socket`, `postgres-start.log` (what the server says before its own log under `postgres/log` is open), and
//! `postgres.lock`, which the running coordinator holds.

use super::account::Account;
use super::{DATABASE, EmbeddedError};
use nix::unistd::Uid;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The port in the socket's name. The folder is private, so it never meets another.
pub(super) const PORT: u16 = 5432;

/// The longest path of a Unix socket, in bytes, without the final NUL.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The paths, all absolute and without links.
pub(super) struct Places {
    pub(super) data_dir: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) unfinished: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) start_log: PathBuf,
}

impl Places {
    /// Makes the data folder if it is not there.
    pub(super) fn prepare(data_dir: &Path) -> Result<Self, EmbeddedError> {
        // 0711: the server's account must pass through, and has no business to list it.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o711);
        builder.create(data_dir).map_err(EmbeddedError::files("make the data folder", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(EmbeddedError::files("find the data folder", data_dir))?;
        Ok(Self {
            cluster: data_dir.join("postgres"),
            unfinished: data_dir.join("postgres.new"),
            socket_dir: socket_dir(&data_dir, short_root()),
            start_log: data_dir.join("postgres-start.log"),
            data_dir,
        })
    }

    /// Takes the data folder for this process. The lock ends with the file, so it never outlives a crash.
    pub(super) fn lock(&self) -> Result<File, EmbeddedError> {
        let path = self.data_dir.join("postgres.lock");
        let file =
            File::options().create(true).append(true).open(&path).map_err(EmbeddedError::files("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { data_dir: self.data_dir.clone() }),
            Err(TryLockError::Error(source)) => Err(EmbeddedError::Files { doing: "lock", path, source }),
        }
    }

    /// Makes the socket's folder, 0700 and the account's; one that is there must be just that.
    pub(super) fn make_socket_dir(&self, account: &Account) -> Result<(), EmbeddedError> {
        make_private_dir(&self.socket_dir, account)
    }

    /// Removes the socket's folder once nothing is in it.
    pub(super) fn remove_socket_dir(&self) {
        if let Err(error) = fs::remove_dir(&self.socket_dir) {
            log::debug!(path:? = self.socket_dir; "the socket's folder stays: {error}");
        }
    }

    /// How to connect to the database.
    pub(super) fn url(&self) -> String {
        url(&self.socket_dir)
    }
}

/// Under root `/run`, where only root can make anything; else `/tmp`. Not `TMPDIR`, which may be long and may change.
fn short_root() -> &'static Path {
    let run = Path::new("/run");
    if Uid::effective().is_root() && run.is_dir() { run } else { Path::new("/tmp") }
}

fn socket_dir(data_dir: &Path, short_root: &Path) -> PathBuf {
    let natural = data_dir.join("postgres-socket");
    if suits_a_socket(&natural) {
        return natural;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    let name = digest.iter().take(8).fold(String::from("fleet-"), |mut name, byte| {
        // Writing into a String can't fail.
        let _ = write!(name, "{byte:02x}");
        name
    });
    short_root.join(name)
}

/// Clients and server read a comma as the end of one folder and the begin of the next, and URLs are UTF-8.
fn suits_a_socket(dir: &Path) -> bool {
    let socket = dir.join(format!(".s.PGSQL.{PORT}"));
    let fits = socket.as_os_str().len() <= MAX_SOCKET_PATH;
    fits && socket.to_str().is_some_and(|path| !path.contains(',') && !path.contains(char::is_control))
}

fn make_private_dir(path: &Path, account: &Account) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(EmbeddedError::files("make", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    // Not `metadata`: somebody's link to a folder of ours must not pass.
    let found = fs::symlink_metadata(path).map_err(EmbeddedError::files("look at", path))?;
    let refused = |why: String| EmbeddedError::SocketDir { path: path.to_owned(), why };
    if !found.is_dir() {
        return Err(refused("it is no folder".into()));
    }
    if found.uid() != account.uid && found.uid() != Uid::effective().as_raw() {
        return Err(refused(format!("it belongs to uid {}", found.uid())));
    }
    if found.mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(EmbeddedError::files("close", path))?;
    }
    account.own_path(path)
}

fn url(socket_dir: &Path) -> String {
    let mut host = String::new();
    for &byte in socket_dir.as_os_str().as_bytes() {
        // Writing into a String can't fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                write!(host, "{}", char::from(byte))
            }
            other => write!(host, "%{other:02X}"),
        };
    }
    format!("postgresql://{DATABASE}@/{DATABASE}?host={host}&port={PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_socket_is_in_the_data_folder_unless_its_path_would_be_too_long() {
        let short = Path::new("/var/lib/fleet");
        assert_eq!(socket_dir(short, Path::new("/run")), short.join("postgres-socket"));
        let fits = PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH - 31)));
        assert!(socket_dir(&fits, Path::new("/run")).starts_with(&fits));
        let long = PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH - 30)));
        let other = socket_dir(&long, Path::new("/run"));
        assert!(other.starts_with("/run") && suits_a_socket(&other), "{other:?}");
        assert_ne!(socket_dir(Path::new("/a,b"), Path::new("/run")), other, "the name follows the data folder");
    }

    #[test]
    fn the_url_survives_odd_folders() {
        for dir in ["/var/lib/fleet", "/home/jo doe/50% & more?=#", "/srv/Bücher/it's \"here\"\\"] {
            let config: tokio_postgres::Config = url(Path::new(dir)).parse().expect("a URL");
            assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Unix(dir.into())]);
            assert_eq!((config.get_user(), config.get_dbname()), (Some("fleet"), Some("fleet")));
            assert_eq!(config.get_ports(), [PORT]);
        }
    }

    #[test]
    fn a_planted_socket_folder_is_refused() {
        let root = tempfile::tempdir().expect("tempdir");
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        let account = crate::embedded_postgres::account::Account::own();
        make_private_dir(&real, &account).expect("a new one");
        make_private_dir(&real, &account).expect("our own");
        symlink(&real, &link).expect("symlink");
        let error = make_private_dir(&link, &account).expect_err("a link").to_string();
        assert!(error.contains("it is no folder"), "{error}");
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&real, Some(12345), None).expect("chown");
            let error = make_private_dir(&real, &account).expect_err("another's").to_string();
            assert!(error.contains("belongs to uid 12345"), "{error}");
        }
    }

    #[test]
    fn a_data_folder_has_one_coordinator() {
        let root = tempfile::tempdir().expect("tempdir");
        let places = Places::prepare(root.path()).expect("places");
        let held = places.lock().expect("free");
        assert!(matches!(places.lock(), Err(EmbeddedError::InUse { .. })));
        drop(held);
        places.lock().expect("free again");
    }
}
