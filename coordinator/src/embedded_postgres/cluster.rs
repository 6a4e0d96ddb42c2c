//! The database cluster on disk: what is there, and making it.

use super::{DATABASE, EmbeddedError, Setup};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Sizes for a small machine, written once into the cluster's `postgresql.conf`, where people may change them.
/// Durability is PostgreSQL's default: all of it. Parallel queries are off because they need shared memory under
/// `/dev/shm`, which is small in containers, and nothing of ours gains by them.
const SETTINGS: &str = "
# Set by fleet-coordinator when it made this cluster; change what you like.
shared_buffers = 64MB
max_connections = 40
max_wal_size = 512MB
max_parallel_workers_per_gather = 0
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_min_error_statement = panic
log_filename = 'postgresql-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
";

/// A cluster that was made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    /// PostgreSQL's major version.
    pub(super) major: u32,
    /// The user that owns it.
    pub(super) owner: u32,
}

/// Only root can run somebody else's cluster.
pub(super) fn check_owner(cluster: &Path) -> Result<(), EmbeddedError> {
    let me = nix::unistd::Uid::effective();
    match fs::metadata(cluster) {
        Ok(found) if !me.is_root() && found.uid() != me.as_raw() => {
            Err(EmbeddedError::ForeignCluster { path: cluster.to_owned(), owner: found.uid(), me: me.as_raw() })
        }
        _ => Ok(()),
    }
}

/// What stands at `cluster`; `None` if nothing does, or an empty folder.
pub(super) fn existing(cluster: &Path) -> Result<Option<Existing>, EmbeddedError> {
    let owner = match fs::metadata(cluster) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EmbeddedError::files("look at", cluster)(error)),
    };
    let version = cluster.join("PG_VERSION");
    match fs::read_to_string(&version) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(Existing { major, owner })),
            Err(_) => Err(EmbeddedError::NotACluster { path: cluster.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(cluster).map_err(EmbeddedError::files("list", cluster))?;
            if entries.next().is_none() {
                Ok(None)
            } else {
                Err(EmbeddedError::NotACluster { path: cluster.to_owned() })
            }
        }
        Err(error) => Err(EmbeddedError::files("read", version)(error)),
    }
}

/// Makes the cluster. It gets its name only when it is complete, so that a start that was interrupted begins anew.
pub(super) async fn make(setup: &Setup) -> Result<(), EmbeddedError> {
    let (unfinished, cluster) = (&setup.places.unfinished, &setup.places.cluster);
    log::info!(path:? = cluster, version = setup.binaries.major; "making the embedded PostgreSQL's cluster");
    match fs::remove_dir_all(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(EmbeddedError::files("remove the unfinished cluster", unfinished)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let made = fs::DirBuilder::new().mode(0o700).create(unfinished);
    made.map_err(EmbeddedError::files("make", unfinished))?;
    setup.account.own_path(unfinished)?;
    initdb(setup, unfinished).await?;
    write_settings(setup, unfinished).await?;
    fs::rename(unfinished, cluster).map_err(EmbeddedError::files("put the new cluster at", cluster))?;
    let data_dir = &setup.places.data_dir;
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(EmbeddedError::files("sync", data_dir))
}

async fn initdb(setup: &Setup, path: &Path) -> Result<(), EmbeddedError> {
    let program = setup.binaries.program("initdb");
    let mut command = setup.account.command(&program);
    command.arg("--pgdata").arg(path).args(["--username", DATABASE, "--encoding=UTF8", "--locale=C"]);
    // Whoever gets into the socket's folder is the account itself, or root.
    command.args(["--auth-local=trust", "--auth-host=reject", "--data-checksums", "--no-instructions"]);
    let output = command.kill_on_drop(true).output().await;
    let output =
        output.map_err(|source| EmbeddedError::Spawn { program, account: setup.account.name.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(EmbeddedError::Initdb { path: path.to_owned(), output: String::from_utf8_lossy(&said).trim().to_owned() })
}

async fn write_settings(setup: &Setup, path: &Path) -> Result<(), EmbeddedError> {
    let mut settings = SETTINGS.to_owned();
    for name in ["wal_compression", "default_toast_compression"] {
        if knows_lz4(setup, path, name).await {
            settings.push_str(&format!("{name} = lz4\n"));
        }
    }
    let conf = path.join("postgresql.conf");
    let written = File::options().append(true).open(&conf).and_then(|mut file| {
        file.write_all(settings.as_bytes())?;
        file.sync_all()
    });
    written.map_err(EmbeddedError::files("write", conf))
}

/// Whether this PostgreSQL was built with lz4: it refuses the value otherwise. It only prints the setting and ends.
async fn knows_lz4(setup: &Setup, path: &Path, name: &str) -> bool {
    let mut command = setup.account.command(&setup.binaries.program("postgres"));
    command.args(["-C", name, "-c", &format!("{name}=lz4"), "-D"]).arg(path).kill_on_drop(true);
    command.output().await.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_cluster_an_existing_one_or_in_the_way() {
        let root = tempfile::tempdir().expect("tempdir");
        let cluster = root.path().join("postgres");
        assert_eq!(existing(&cluster).expect("absent"), None);
        fs::create_dir(&cluster).expect("mkdir");
        assert_eq!(existing(&cluster).expect("empty"), None);
        fs::write(cluster.join("holiday.jpg"), "").expect("write");
        assert!(matches!(existing(&cluster), Err(EmbeddedError::NotACluster { .. })));
        fs::write(cluster.join("PG_VERSION"), "15\n").expect("write");
        let owner = nix::unistd::Uid::effective().as_raw();
        assert_eq!(existing(&cluster).expect("a cluster"), Some(Existing { major: 15, owner }));
        fs::write(cluster.join("PG_VERSION"), "fifteen\n").expect("write");
        assert!(matches!(existing(&cluster), Err(EmbeddedError::NotACluster { .. })));
    }
}
