//! Where the programs are.

use crate::Failure;
use std::env;
use std::path::{Path, PathBuf};

/// A program of this workspace, such as `fleet-agent`, from the folder that this one was built into.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let own = env::current_exe()?;
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("."));
    let path = folder.join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(Failure::new(format!("{} is not there: run ./dev build", path.display())))
    }
}

/// Every restic to test with: those of `FLEET_TEST_RESTICS` (separated by colons), else the one in `PATH`.
///
/// # Errors
/// There is none.
pub fn restics() -> Result<Vec<PathBuf>, Failure> {
    let listed = env::var_os("FLEET_TEST_RESTICS").map(|list| env::split_paths(&list).collect::<Vec<_>>());
    let all = listed.unwrap_or_else(|| in_path("restic").into_iter().collect());
    if all.is_empty() { Err(Failure::new("no restic: install Debian's package restic")) } else { Ok(all) }
}

/// The folder of the newest installed PostgreSQL server's programs.
///
/// # Errors
/// There is none.
pub fn postgres_programs() -> Result<PathBuf, Failure> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok().map(|version| (version, entry.path())))
        .filter(|(_, path)| path.join("bin/postgres").exists())
        .max();
    let beside_path = || in_path("postgres").and_then(|path| Some(path.parent()?.to_owned()));
    newest
        .map(|(_, path)| path.join("bin"))
        .or_else(beside_path)
        .ok_or_else(|| Failure::new("no PostgreSQL server: install Debian's package postgresql"))
}

/// The program of this name that `PATH` leads to.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}
