//! The journal's file: opened, read, and changed one transaction at a time. Everything here blocks.

use super::commit::commit;
use super::record::{JobRecord, JobState, Leftover, Meta, Verdict, Write};
use super::scheduled::Scheduled;
use super::tables::{JOBS, META, META_KEY, OUTBOX, RUNS, SETTLED};
use crate::cron::{Early, Firing, Handled, Which};
use fleet_wire::{JobId, JournalId, ScheduleId};
use redb::{Database, ReadableDatabase, ReadableTable, TableError};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

/// The layout that this agent reads and writes.
const VERSION: u32 = 1;

/// redb's cache: the outbox is written once and read once, so a large one would only cost memory.
const CACHE_BYTES: usize = 512 * 1024;

/// Why the journal can't be used. As [`Self::Busy`] and the ones about the contents can't mend themselves, the agent
/// ends with them at its start; the others may be over at the next try.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("{} is in use: another agent runs with this data folder; stop it, or give each its own", .0.display())]
    Busy(PathBuf),
    /// Its contents are not what this agent wrote.
    #[error(
        "{} is damaged ({reason}); restore it, or move it away: the agent then starts an empty one, and the \
         coordinator ends the jobs that stood only there",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer agent wrote it.
    #[error("{} has layout {found}, this agent knows {VERSION}: install the newer agent again", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// The disk refuses.
    #[error("can't use {}: {reason}; see that the disk has room and that the agent may write there", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// The journal's file and what is kept of it in memory: the jobs that are not settled, and what there is of schedules.
pub(super) struct Store {
    path: PathBuf,
    limit_bytes: u64,
    /// `None` after a failure: redb wants the file opened anew then.
    database: Option<Database>,
    meta: Meta,
    live: BTreeMap<JobId, JobRecord>,
    scheduled: Scheduled,
}

impl Store {
    /// Opens the journal at `path`, or makes an empty one with an id of its own. `limit_bytes` bounds the outbox.
    pub(super) fn open(path: &Path, limit_bytes: u64) -> Result<Self, JournalError> {
        let mut database = open_database(path)?;
        let failed = |error| classify(path, error);
        let (meta, live) = load(&database).map_err(failed)?;
        let meta = match meta {
            Some(meta) => parse_meta(path, &meta)?,
            None => create(&database).map_err(failed)?,
        };
        if live.is_empty() && meta.outbox_bytes == 0 {
            // Nothing is waiting: a good moment to give the disk back what a long outage took.
            if let Err(error) = database.compact() {
                log::warn!("the journal keeps its size on disk: {error}");
            }
        }
        let live = parse_jobs(path, live)?;
        let scheduled = Scheduled::load(&database).map_err(failed)?;
        Ok(Self { path: path.to_owned(), limit_bytes, database: Some(database), meta, live, scheduled })
    }

    /// The journal's id.
    pub(super) fn id(&self) -> JournalId {
        self.meta.journal.clone().into()
    }

    /// The id of the newest envelope; 0 if there never was one.
    pub(super) fn head(&self) -> u64 {
        self.meta.next_id - 1
    }

    /// The jobs whose outcome the coordinator does not have yet, oldest first.
    pub(super) fn open_jobs(&self) -> Vec<JobId> {
        let mut jobs: Vec<_> = self.live.iter().map(|(job_id, record)| (record.number, job_id)).collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, job_id)| job_id.clone()).collect()
    }

    /// How far each schedule is dealt with.
    pub(super) fn handled(&self) -> BTreeMap<ScheduleId, Handled> {
        self.scheduled.handled.clone()
    }

    /// What came before its time and has yet to fire again.
    pub(super) fn early(&self) -> BTreeMap<Which, Early> {
        self.scheduled.early.clone()
    }

    /// The firings of which this agent may start jobs by itself, by the ids of their envelopes. A coordinator that never
    /// acknowledged anything may have made jobs of its own of them, so there are none then.
    pub(super) fn startable(&self) -> Vec<(u64, Firing)> {
        let firings = self.scheduled.firings.iter().map(|(id, firing)| (*id, firing.clone()));
        firings.filter(|_| self.meta.acknowledged).collect()
    }

    /// The jobs that were not over, in the order of their acceptance.
    pub(super) fn leftovers(&mut self) -> Result<Vec<Leftover>, JournalError> {
        let mut unfinished: Vec<_> = self
            .live
            .iter()
            .filter(|(_, record)| record.state < JobState::Finished)
            .map(|(job_id, record)| (job_id.clone(), record.clone()))
            .collect();
        unfinished.sort_unstable_by_key(|(_, record)| record.number);
        self.with(|database| {
            let runs = database.begin_read()?.open_table(RUNS)?;
            let mut leftovers = Vec::new();
            for (job_id, record) in unfinished {
                let run = runs.get(job_id.as_str())?.and_then(|run| serde_json::from_slice(run.value()).ok());
                let started = record.state == JobState::Started;
                leftovers.push(Leftover { job_id, started, run, mark: record.mark });
            }
            Ok(leftovers)
        })
    }

    /// Whether the job of a [`Write::Accept`] is held or remembered; false where that can't be read.
    pub(super) fn knows_run(&mut self, write: &Write) -> bool {
        matches!(write, Write::Accept { run, .. } if self.knows(&run.job_id).unwrap_or(false))
    }

    /// Whether the journal holds or remembers the job.
    fn knows(&mut self, job_id: &JobId) -> Result<bool, JournalError> {
        if self.live.contains_key(job_id) {
            return Ok(true);
        }
        self.with(|database| Ok(database.begin_read()?.open_table(JOBS)?.get(job_id.as_str())?.is_some()))
    }

    /// The envelopes after the one with id `after`, oldest first: at least one if there is any, then as many as fit
    /// into `max_bytes`.
    pub(super) fn outbox(&mut self, after: u64, max_bytes: usize) -> Result<Vec<(u64, String)>, JournalError> {
        self.with(|database| {
            let outbox = database.begin_read()?.open_table(OUTBOX)?;
            let mut slice = Vec::new();
            let mut bytes = 0;
            for row in outbox.range(after.saturating_add(1)..)? {
                let (id, value) = row?;
                let (_, _, text) = value.value();
                bytes += text.len();
                if bytes > max_bytes && !slice.is_empty() {
                    break;
                }
                slice.push((id.value(), text.to_owned()));
            }
            Ok(slice)
        })
    }

    /// Makes all of `writes`, in their order and on disk, or none. Gives a verdict for each write that has one, see
    /// [`Verdict`].
    pub(super) fn commit<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<Vec<Verdict>, JournalError> {
        let (meta, known, limit) = (self.meta.clone(), (&self.live, &self.scheduled), self.limit_bytes);
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        let made = commit(&database, meta, known, limit, writes).map_err(|error| classify(&self.path, error));
        let (made, committed) = made?;
        self.database = match committed {
            Ok(()) => Some(database),
            Err(error) => {
                drop(database);
                Some(self.reopened_with(made.meta.commits, classify(&self.path, error))?)
            }
        };
        self.meta = made.meta;
        self.scheduled.take_over(made.scheduled);
        for (job_id, record) in made.touched {
            if record.state == JobState::Settled {
                self.live.remove(&job_id);
            } else {
                self.live.insert(job_id, record);
            }
        }
        Ok(made.verdicts)
    }

    /// The file opened anew, if it holds that transaction: the disk may have taken it before it refused to confirm it.
    fn reopened_with(&self, commits: u64, error: JournalError) -> Result<Database, JournalError> {
        let database = open_database(&self.path)?;
        let (meta, _) = load(&database).map_err(|error| classify(&self.path, error))?;
        match meta.map(|meta| parse_meta(&self.path, &meta)).transpose()? {
            Some(meta) if meta.commits == commits => Ok(database),
            _ => Err(error),
        }
    }

    /// Reads. After an error the file is opened anew at the next use.
    fn with<T>(&mut self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, JournalError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        let result = read(&database).map_err(|error| classify(&self.path, error))?;
        self.database = Some(database);
        Ok(result)
    }
}

fn open_database(path: &Path) -> Result<Database, JournalError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| classify(path, error.into()))?;
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create_file(file);
    opened.map_err(|error| classify(path, error.into()))
}

/// The stored meta row, and the rows of the jobs that are not settled.
type Loaded = (Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(table) => table.get(META_KEY)?.map(|row| row.value().to_vec()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if meta.is_none() {
        return Ok((None, Vec::new()));
    }
    let settled = serde_json::to_vec(&JobState::Settled).unwrap_or_default();
    let mut live = Vec::new();
    for row in transaction.open_table(JOBS)?.iter()? {
        let (job_id, record) = row?;
        let record = record.value();
        // Most records are of settled jobs, and parsing ten thousand of them at each start is for nothing.
        if !record.windows(settled.len()).any(|window| window == settled) {
            live.push((job_id.value().to_owned(), record.to_vec()));
        }
    }
    Ok((meta, live))
}

fn create(database: &Database) -> Result<Meta, redb::Error> {
    let meta = Meta {
        version: VERSION,
        journal: Uuid::new_v4().to_string(),
        next_id: 1,
        next_number: 1,
        outbox_bytes: 0,
        acknowledged: false,
        commits: 0,
    };
    let transaction = database.begin_write()?;
    {
        transaction.open_table(JOBS)?;
        transaction.open_table(RUNS)?;
        transaction.open_table(SETTLED)?;
        transaction.open_table(OUTBOX)?;
        let row = serde_json::to_vec(&meta).unwrap_or_default();
        transaction.open_table(META)?.insert(META_KEY, row.as_slice())?;
    }
    transaction.commit()?;
    Ok(meta)
}

fn parse_meta(path: &Path, row: &[u8]) -> Result<Meta, JournalError> {
    let meta: Meta = serde_json::from_slice(row)
        .map_err(|error| JournalError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    match meta.version {
        VERSION => Ok(meta),
        found => Err(JournalError::Newer { path: path.to_owned(), found }),
    }
}

fn parse_jobs(path: &Path, rows: Vec<(String, Vec<u8>)>) -> Result<BTreeMap<JobId, JobRecord>, JournalError> {
    let parse = |(job_id, row): (String, Vec<u8>)| match serde_json::from_slice::<JobRecord>(&row) {
        Ok(record) => Ok((JobId::from(job_id), record)),
        Err(error) => {
            Err(JournalError::Damaged { path: path.to_owned(), reason: format!("the record of job {job_id}: {error}") })
        }
    };
    rows.into_iter().map(parse).collect()
}

fn classify(path: &Path, error: redb::Error) -> JournalError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => JournalError::Busy(path),
        redb::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => {
            JournalError::Disk { path, reason: error.to_string() }
        }
        redb::Error::PreviousIo => JournalError::Disk { path, reason: "an earlier write failed".to_owned() },
        other => JournalError::Damaged { path, reason: other.to_string() },
    }
}
