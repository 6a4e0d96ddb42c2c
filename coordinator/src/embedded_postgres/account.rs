//! Who the server runs as. PostgreSQL refuses to be root, so a coordinator that is root drops to another account.

use super::EmbeddedError;
use super::cluster::Existing;
use nix::unistd::{Gid, Uid, User};
use std::env;
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// What the server's programs get to see of our environment; everything else (tokens, `PGPORT`, …) stays here.
const ENVIRONMENT: &[&str] = &["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZDIR"];

/// The account of the server's processes and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name, for messages.
    pub(super) name: String,
    /// Its user.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// True if it is not the account of this process.
    drops: bool,
}

impl Account {
    /// Decides for this process: itself, or if it is root the cluster's owner, else `postgres`, else `nobody`.
    pub(super) fn for_cluster(existing: Option<Existing>) -> Result<Self, EmbeddedError> {
        if !Uid::effective().is_root() {
            return Ok(Self::own());
        }
        let by_name = |name| User::from_name(name).ok().flatten();
        let owner = existing.and_then(|cluster| User::from_uid(Uid::from_raw(cluster.owner)).ok().flatten());
        [owner, by_name("postgres"), by_name("nobody")]
            .into_iter()
            .flatten()
            .find(|user| !user.uid.is_root())
            .map(|user| Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), drops: true })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// The account of this process.
    pub(super) fn own() -> Self {
        let uid = Uid::effective();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
        Self { name, uid: uid.as_raw(), gid: Gid::effective().as_raw(), drops: false }
    }

    /// A command that runs `program` as this account, with nothing of ours but what it needs.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        if self.drops {
            // Setting the user as root also clears the supplementary groups (std's `Command` does it by itself).
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `path` belong to this account.
    pub(super) fn own_path(&self, path: &Path) -> Result<(), EmbeddedError> {
        if self.drops {
            lchown(path, Some(self.uid), Some(self.gid)).map_err(EmbeddedError::files("give away", path))?;
        }
        Ok(())
    }

    /// Sees to it that the account can pass through `data_dir`. That folder is ours to open (entering, not listing);
    /// those above it are not, so if one of them is closed it is an error.
    pub(super) fn open_way_to(&self, data_dir: &Path) -> Result<(), EmbeddedError> {
        if !self.drops {
            return Ok(());
        }
        for dir in data_dir.ancestors() {
            let metadata = fs::metadata(dir).map_err(EmbeddedError::files("look at", dir))?;
            if self.may_enter(&metadata) {
                continue;
            }
            if dir != data_dir {
                return Err(EmbeddedError::NotTraversable { dir: dir.to_owned(), account: self.name.clone() });
            }
            let opened = Permissions::from_mode(opened(metadata.mode(), metadata.gid() == self.gid));
            fs::set_permissions(dir, opened).map_err(EmbeddedError::files("open", dir))?;
        }
        Ok(())
    }

    fn may_enter(&self, dir: &Metadata) -> bool {
        may_enter((self.uid, self.gid), (dir.uid(), dir.gid()), dir.mode())
    }
}

/// Whether a user and group may enter a folder of that owner and mode. Only the first class that fits counts.
fn may_enter((uid, gid): (u32, u32), (owner, group): (u32, u32), mode: u32) -> bool {
    let bit = if uid == owner {
        0o100
    } else if gid == group {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

/// The mode that adds entering for one more class, and nothing else.
fn opened(mode: u32, same_group: bool) -> u32 {
    (mode & 0o7777) | if same_group { 0o010 } else { 0o001 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTGRES: (u32, u32) = (101, 104);

    #[test]
    fn only_the_class_that_fits_decides_who_may_enter() {
        assert!(may_enter(POSTGRES, (0, 0), 0o755));
        assert!(may_enter(POSTGRES, (0, 0), 0o711));
        assert!(!may_enter(POSTGRES, (0, 0), 0o700));
        assert!(!may_enter(POSTGRES, (0, 104), 0o701), "the group is closed out, though others are not");
        assert!(may_enter(POSTGRES, (0, 104), 0o710));
        assert!(!may_enter(POSTGRES, (101, 0), 0o077), "so is the owner");
    }

    #[test]
    fn opening_a_folder_adds_entering_and_nothing_else() {
        assert_eq!(opened(0o040_700, false), 0o701);
        assert_eq!(opened(0o042_750, false), 0o2751);
        assert_eq!(opened(0o040_700, true), 0o710);
    }
}
