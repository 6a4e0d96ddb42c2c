//! A PostgreSQL on a disk that can be filled: a small tmpfs in a mount namespace of its own.

use crate::process::{Process, command, leak_free_dir};
use crate::server::url;
use crate::{Account, Context, Failure, eventually, postgres_programs};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long a start, and filling the disk, may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Keeps a server running as a service manager would, for one whose disk is full may end; USR1 fills the disk, USR2
/// makes room. Arguments: the folder, PostgreSQL's programs, the disk's size in MiB, and how to become who may run them.
const KEEPER: &str = r#"
dir=$1 programs=$2 size=$3; shift 3
mount -t tmpfs -o "size=${size}m,mode=0777" tmpfs "$dir/disk" || { echo "no mount"; exit 77; }
"$@" "$programs/initdb" -D "$dir/disk/data" -U postgres -A trust --locale=C -E UTF8 --wal-segsize=1 || exit 1
fill() { cat /dev/zero >"$dir/disk/balloon" 2>/dev/null; echo "the disk is full"; }
room() { rm -f "$dir/disk/balloon"; }
end() { kill -INT "$server"; wait "$server"; exit 0; }
trap fill USR1
trap room USR2
trap end TERM
while :; do
    "$@" "$programs/postgres" -D "$dir/disk/data" -c listen_addresses= -c "unix_socket_directories=$dir" \
        -c max_wal_size=8MB -c min_wal_size=2MB -c shared_buffers=16MB &
    server=$!
    while kill -0 "$server" 2>/dev/null; do wait "$server"; done
    sleep 0.2
done
"#;

/// The server; it and its disk go with the handle.
#[derive(Debug)]
pub struct SmallDisk {
    keeper: Process,
    dir: TempDir,
}

impl SmallDisk {
    /// Starts a server on a disk of `mebibytes`. `None` where the system lets us have no mount of our own.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start(mebibytes: u32) -> Result<Option<Self>, Failure> {
        let dir = leak_free_dir("fleet-disk.")?;
        std::fs::create_dir(dir.path().join("disk")).context(dir.path().display())?;
        let account = Account::instead_of_root(&["postgres", "nobody"])?;
        let mut keeper = command(Path::new("unshare"), None);
        // Who is not root is so in a namespace, where PostgreSQL must be made to see somebody else.
        let (namespaces, become_other): (_, Vec<String>) = match &account {
            Some(account) => {
                account.own(dir.path())?;
                let ids = [format!("--reuid={}", account.uid), format!("--regid={}", account.gid)];
                ("-m", ["setpriv".to_owned()].into_iter().chain(ids).chain(["--clear-groups".to_owned()]).collect())
            }
            None => ("-Urm", ["unshare", "-U", "--map-user=1000", "--map-group=1000"].map(str::to_owned).to_vec()),
        };
        keeper.args([namespaces, "sh", "-c", KEEPER, "keeper"]).arg(dir.path()).arg(postgres_programs()?);
        keeper.arg(mebibytes.to_string()).args(become_other);
        let keeper = Process::start("postgres on a small disk", keeper, dir.path().join("log"))?;
        let mut disk = Self { keeper, dir };
        let forbidden = eventually("a PostgreSQL on a small disk", LIMIT, || match disk.keeper.ended() {
            Some(status) if status.code() == Some(77) || disk.keeper.output().contains("unshare failed") => Ok(true),
            Some(_) => Err(disk.keeper.tail(5)),
            None if disk.keeper.output().contains("ready to accept connections") => Ok(false),
            None => Err(disk.keeper.tail(1)),
        })?;
        Ok((!forbidden).then_some(disk))
    }

    /// The URL of its maintenance database.
    pub fn url(&self) -> String {
        url(self.dir.path())
    }

    /// Takes all the room that there is.
    ///
    /// # Errors
    /// That takes too long.
    pub fn fill(&mut self) -> Result<(), Failure> {
        self.keeper.signal(Signal::SIGUSR1);
        eventually("the disk to be full", LIMIT, || {
            let output = self.keeper.output();
            if output.contains("the disk is full") { Ok(()) } else { Err(self.keeper.tail(1)) }
        })
    }

    /// What the server has said so far.
    pub fn output(&self) -> String {
        self.keeper.output()
    }

    /// Gives the room back.
    pub fn make_room(&mut self) {
        self.keeper.signal(Signal::SIGUSR2);
    }
}
