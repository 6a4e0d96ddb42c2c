//! Files that only the agent may read: written whole or not at all, and never reset behind the operator's back.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What went wrong with one of the agent's files; the message names the file and says what to do.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file is there and can't be read.
    #[error("can't read {}: {source}; see that the user who runs the agent may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and is not what the agent wrote.
    #[error("{} is damaged ({reason}); restore it, or {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its contents, which are secret.
        reason: String,
        /// What to do if there is no copy to restore.
        remedy: &'static str,
    },
    /// The file can't be written.
    #[error("can't write {}: {source}; see that the disk has room and that the agent may write there", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes `path` a folder that only its owner can enter, with the folders above it.
///
/// # Errors
/// It can't be made or its mode can't be set.
pub fn make_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Reads a JSON file; `None` if there is no such file.
///
/// # Errors
/// It can't be read, or it holds something else: the message then ends in `remedy`.
pub fn read_json<T: DeserializeOwned>(path: &Path, remedy: &'static str) -> Result<Option<T>, FileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path: path.to_owned(), source }),
    };
    let damaged = |error: serde_json::Error| FileError::Damaged {
        path: path.to_owned(),
        // Not serde's own text: that may quote a secret out of the file.
        reason: format!("unexpected content at line {} column {}", error.line(), error.column()),
        remedy,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Replaces a JSON file so that a crash at any instant leaves the old or the new one. Mode 0600.
///
/// # Errors
/// The new file can't be written; the old one is then as it was.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    replace(path, &bytes).map_err(failed)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // The mode above counts only for a file that is new; one left by a crash keeps its own.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        make_private_dir(&home).unwrap();
        let path = home.join("x.json");
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<i64>>(&path, "").unwrap(), Some(vec![3]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_missing_file_is_none_and_a_damaged_one_is_an_error_without_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read_json::<Vec<i64>>(&path, "").unwrap(), None);
        fs::write(&path, "[\"hunter2\"]").unwrap();
        let message = read_json::<Vec<i64>>(&path, "enrol again").unwrap_err().to_string();
        assert!(message.contains("x.json") && message.ends_with("enrol again"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
