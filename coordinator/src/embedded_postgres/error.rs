//! What can be in the way of an embedded PostgreSQL.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the embedded PostgreSQL does not run. Each message says what to do.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the message of each variant names its fields")]
pub enum EmbeddedError {
    /// A folder or file of ours can't be made, read or changed.
    #[error("can't {doing} {path:?}: {source}")]
    Files { doing: &'static str, path: PathBuf, source: io::Error },
    /// Another process holds the data folder.
    #[error(
        "another coordinator is running with the data folder {data_dir:?}; stop it, or choose another FLEET_DATA_DIR"
    )]
    InUse { data_dir: PathBuf },
    /// No PostgreSQL on this machine.
    #[error(
        "no PostgreSQL server is installed (looked for `postgres` and `initdb` in PATH and in the usual folders). \
         Install it (Debian, Ubuntu: apt install postgresql; Fedora, RHEL: dnf install postgresql-server; macOS: brew \
         install postgresql@17), or set DATABASE_URL to a PostgreSQL 15 or later"
    )]
    NotInstalled,
    /// Only versions that are too old.
    #[error(
        "only PostgreSQL {found} is installed, 15 or later is needed: install a newer one, or set DATABASE_URL to one"
    )]
    TooOld { found: String },
    /// The cluster was made by another major version.
    #[error(
        "the database in {cluster:?} was made by PostgreSQL {made_by}, but installed is {found}: install PostgreSQL \
         {made_by} again, or move the data with pg_upgrade"
    )]
    VersionMismatch { cluster: PathBuf, made_by: u32, found: String },
    /// Something that is no cluster stands where the cluster should be.
    #[error("{path:?} is not empty and is no PostgreSQL cluster: move it away, or choose another FLEET_DATA_DIR")]
    NotACluster { path: PathBuf },
    /// The cluster belongs to another user.
    #[error(
        "the cluster {path:?} belongs to uid {owner}, and this coordinator runs as uid {me}: start it as the owner or as \
         root, or choose another FLEET_DATA_DIR"
    )]
    ForeignCluster { path: PathBuf, owner: u32, me: u32 },
    /// Running as root, and no unprivileged account to drop to.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`: make one, start the \
         coordinator as another user, or set DATABASE_URL"
    )]
    NoAccount,
    /// The account can't reach the data folder.
    #[error(
        "PostgreSQL refuses to run as root, so it runs as `{account}`, who may not enter {dir:?}: set FLEET_DATA_DIR to a \
         folder that others may pass through (such as /var/lib/fleet-coordinator), or allow it with chmod o+x"
    )]
    NotTraversable { dir: PathBuf, account: String },
    /// The socket's folder is not private.
    #[error(
        "{path:?} can't be the folder of the database's socket: {why}; remove it, or choose another FLEET_DATA_DIR"
    )]
    SocketDir { path: PathBuf, why: String },
    /// The socket belongs to another server.
    #[error(
        "the database socket in {path:?} belongs to another PostgreSQL (pid {pid}, data in {other:?}): stop that one"
    )]
    SocketTaken { path: PathBuf, pid: i32, other: PathBuf },
    /// A program could not be run at all.
    #[error("can't run {program:?} as {account}: {source}")]
    Spawn { program: PathBuf, account: String, source: io::Error },
    /// `initdb` failed.
    #[error("initdb could not make the database cluster in {path:?}: {output}")]
    Initdb { path: PathBuf, output: String },
    /// The server ended before it answered.
    #[error("the embedded PostgreSQL did not start ({status}); its log says: {log}")]
    Ended { status: String, log: String },
    /// The server is there and does not answer.
    #[error("the embedded PostgreSQL did not answer for {seconds} s; last seen: {last}; its log says: {log}")]
    Silent { seconds: u64, last: String, log: String },
}

impl EmbeddedError {
    /// For `map_err` of file operations.
    pub(super) fn files(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Files { doing, path, source }
    }
}
