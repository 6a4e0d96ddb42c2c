//! Where the records of a job's children are: a folder for each job, a file for each child.
//!
//! They stay until the job is over in the journal. After a crash they hold what the journal does not have yet.

use fleet_wire::JobId;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Within the agent's data folder.
const FOLDER: &str = "spool";
/// A file name can have 255 bytes.
const LONGEST_NAME: usize = 200;

/// What a child is to its job: who reads its record after a crash must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A restic whose output is the job's log.
    Command,
    /// A restic that is only asked something; its standard output is no part of the log.
    Query,
    /// A hook.
    Hook,
}

impl Role {
    const ALL: [Self; 3] = [Self::Command, Self::Query, Self::Hook];

    /// The ending of its file.
    fn extension(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
            Self::Hook => "hook",
        }
    }
}

/// A record that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts the children of the job.
    pub child: u32,
    /// What it was.
    pub role: Role,
    /// The file.
    pub path: PathBuf,
}

/// The records of one job.
#[derive(Clone, Debug)]
pub struct Spool {
    pub(super) program: PathBuf,
    folder: PathBuf,
    next: Arc<AtomicU32>,
}

impl Spool {
    /// The records of `job` below the agent's `data_dir`; `program` is the agent's, which is the scribe's as well.
    pub fn new(program: &Path, data_dir: &Path, job: &JobId) -> Self {
        let mut spool = Self {
            program: program.to_owned(),
            folder: data_dir.join(FOLDER).join(name_of(job)),
            next: Arc::default(),
        };
        let next = spool.records().last().map_or(0, |record| record.child + 1);
        spool.next = Arc::new(AtomicU32::new(next));
        spool
    }

    /// The next record, and room for it.
    pub(super) fn next(&self, role: Role) -> io::Result<Record> {
        // Output may tell of anything: only this user may read it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.folder.display())))?;
        let child = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Record { child, role, path: self.folder.join(format!("{child}.{}", role.extension())) })
    }

    /// The records that are there, in the order of their making.
    pub fn records(&self) -> Vec<Record> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let mut records: Vec<_> = entries.filter_map(|entry| read_name(entry.path())).collect();
        records.sort_by_key(|record| record.child);
        records
    }

    /// Removes them: the job is over.
    pub fn clear(&self) {
        remove(&self.folder);
    }

    /// Removes the records of all jobs but those in `kept`.
    pub fn clear_others(data_dir: &Path, kept: &[JobId]) {
        let kept: Vec<String> = kept.iter().map(name_of).collect();
        for entry in std::fs::read_dir(data_dir.join(FOLDER)).into_iter().flatten().filter_map(Result::ok) {
            if !kept.iter().any(|name| entry.file_name() == name.as_str()) {
                remove(&entry.path());
            }
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{} can't be removed: {error}", folder.display());
    }
}

fn read_name(path: PathBuf) -> Option<Record> {
    let child = path.file_stem()?.to_str()?.parse().ok()?;
    let extension = path.extension()?.to_str()?;
    let role = Role::ALL.into_iter().find(|role| role.extension() == extension)?;
    Some(Record { child, role, path })
}

/// A file name for any id that a coordinator may give a job.
fn name_of(job: &JobId) -> String {
    let mut name = String::new();
    for byte in job.as_str().bytes() {
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.write_char(byte.into()),
            _ => write!(name, "%{byte:02x}"),
        };
    }
    if name.len() > LONGEST_NAME {
        // FNV-1a: two long ids that begin alike have names of their own.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        name.truncate(LONGEST_NAME - 17);
        let _ = write!(name, "-{hash:016x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(data_dir: &Path, job: &str) -> Spool {
        Spool::new(Path::new("fleet-agent"), data_dir, &job.into())
    }

    #[test]
    fn records_are_numbered_on_from_what_is_there() {
        let data = tempfile::tempdir().unwrap();
        let first = spool(data.path(), "j");
        for role in [Role::Hook, Role::Command] {
            std::fs::write(first.next(role).unwrap().path, "").unwrap();
        }
        std::fs::write(data.path().join("spool/j/1.rolled"), "").unwrap();
        let again = spool(data.path(), "j");
        let there: Vec<_> = again.records().into_iter().map(|record| (record.child, record.role)).collect();
        assert_eq!(there, [(0, Role::Hook), (1, Role::Command)]);
        assert_eq!(again.next(Role::Query).unwrap().child, 2);
        assert_eq!(spool(data.path(), "k").next(Role::Query).unwrap().child, 0);
    }

    #[test]
    fn what_no_job_needs_any_more_goes() {
        let data = tempfile::tempdir().unwrap();
        let (old, kept) = (spool(data.path(), "old"), spool(data.path(), "kept"));
        for spool in [&old, &kept] {
            std::fs::write(spool.next(Role::Query).unwrap().path, "").unwrap();
        }
        Spool::clear_others(data.path(), &["kept".into()]);
        assert_eq!((old.records().len(), kept.records().len()), (0, 1));
        kept.clear();
        kept.clear();
        assert_eq!(kept.records(), []);
    }

    #[test]
    fn no_id_leads_out_of_the_folder() {
        assert_eq!(name_of(&"../a/b\0".into()), "%2e%2e%2fa%2fb%00");
        let long = |end: &str| name_of(&format!("{}{end}", "é".repeat(200)).as_str().into());
        assert!(long("a").len() == LONGEST_NAME && long("a") != long("b"));
    }
}
