//! Accounts that processes run as.

use crate::Failure;
use nix::unistd::{Uid, User, chown};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An account without privileges, to which a process of root drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// The first of `names` that exists on this system; `None` if this process is not root, for then it stays itself.
    ///
    /// # Errors
    /// This is root and none of them exists.
    pub fn instead_of_root(names: &[&str]) -> Result<Option<Self>, Failure> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let found = names.iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or_else(|| Failure::new(format!("no account named {} here", names.join(" or "))))?;
        Ok(Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    /// The account of this process, by name.
    pub fn own_name() -> String {
        let uid = Uid::effective();
        User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name)
    }

    /// Makes `path` belong to this account.
    ///
    /// # Errors
    /// The system refuses.
    pub fn own(&self, path: &Path) -> Result<(), Failure> {
        Ok(chown(path, Some(self.uid.into()), Some(self.gid.into()))?)
    }

    /// Whether this account may pass through `path` and every folder above it, and read it.
    pub fn reaches(&self, path: &Path) -> bool {
        path.ancestors().enumerate().all(|(depth, step)| {
            let needed = if depth == 0 { 0o5 } else { 0o1 };
            std::fs::metadata(step).is_ok_and(|metadata| self.may(&metadata, needed))
        })
    }

    /// Whether this account has all of `needed` (4 read, 2 write, 1 enter or run) on a file.
    pub fn may(&self, metadata: &std::fs::Metadata, needed: u32) -> bool {
        // Only the first class that fits counts.
        let shift = if metadata.uid() == self.uid {
            6
        } else if metadata.gid() == self.gid {
            3
        } else {
            0
        };
        (metadata.mode() >> shift) & needed == needed
    }
}
