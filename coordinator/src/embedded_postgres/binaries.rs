//! Finds the installed PostgreSQL server programs.

use super::EmbeddedError;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The oldest major version that the coordinator's schema is made for.
const OLDEST: u32 = 15;

/// Where packages put the server when it is not in PATH: parent folder, the prefix of the versioned name in it, and
/// what follows. Debian; PGDG on RHEL; SUSE; Alpine; Gentoo; Homebrew on both processors; the macOS installer; from source.
const USUAL: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/lib64", "postgresql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Library/PostgreSQL", "", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// One installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    /// The folder with `postgres` and `initdb`.
    pub(super) dir: PathBuf,
    /// The major version.
    pub(super) major: u32,
}

impl Binaries {
    /// The path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The PostgreSQL to use: of major version `cluster` if a cluster is there, else the first that is new enough, PATH
/// before the packages' folders and newer before older.
pub(super) async fn find(cluster: Option<(&Path, u32)>) -> Result<Binaries, EmbeddedError> {
    let mut found = Vec::new();
    for dir in candidates() {
        if let Some(major) = version_in(&dir).await {
            found.push(Binaries { dir, major });
        }
    }
    choose(found, cluster)
}

fn choose(found: Vec<Binaries>, cluster: Option<(&Path, u32)>) -> Result<Binaries, EmbeddedError> {
    if found.is_empty() {
        return Err(EmbeddedError::NotInstalled);
    }
    let mut versions: Vec<u32> = found.iter().map(|binaries| binaries.major).collect();
    versions.sort_unstable();
    versions.dedup();
    let versions = versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let wanted = |major: u32| major >= OLDEST && cluster.is_none_or(|(_, made_by)| major == made_by);
    found.into_iter().find(|binaries| wanted(binaries.major)).ok_or_else(|| match cluster {
        Some((path, made_by)) => EmbeddedError::VersionMismatch { cluster: path.to_owned(), made_by, found: versions },
        None => EmbeddedError::TooOld { found: versions },
    })
}

fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).filter_map(|dir| real_dir(&dir)).collect();
    for (parent, prefix, rest) in USUAL {
        dirs.extend(versioned(Path::new(parent), prefix).iter().filter_map(|dir| real_dir(&dir.join(rest))));
    }
    let mut seen = Vec::new();
    dirs.retain(|dir| {
        let new = !seen.contains(dir);
        seen.push(dir.clone());
        new
    });
    dirs
}

/// The folder where `dir`'s `postgres` really is, if `initdb` is beside it. Homebrew and others link single programs.
fn real_dir(dir: &Path) -> Option<PathBuf> {
    let postgres = fs::canonicalize(dir.join("postgres")).ok()?;
    let dir = postgres.parent()?;
    dir.join("initdb").is_file().then(|| dir.to_owned())
}

/// The folders of `parent` whose name is `prefix` and a number, highest number first; `prefix` alone counts as 0.
fn versioned(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut dirs: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((version_of_name(&entry.file_name(), prefix)?, entry.path())))
        .collect();
    dirs.sort_by(|a, b| b.cmp(a));
    dirs.into_iter().map(|(_, dir)| dir).collect()
}

fn version_of_name(name: &OsStr, prefix: &str) -> Option<u32> {
    let rest = name.to_str()?.strip_prefix(prefix)?;
    if rest.is_empty() { Some(0) } else { rest.split('.').next()?.parse().ok() }
}

async fn version_in(dir: &Path) -> Option<u32> {
    let output = Command::new(dir.join("postgres")).arg("--version").output().await.ok()?;
    major_version(&String::from_utf8_lossy(&output.stdout))
}

/// The major version in `postgres --version`, such as `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn installed(majors: &[u32]) -> Vec<Binaries> {
        majors.iter().map(|&major| Binaries { dir: PathBuf::from(format!("/pg/{major}")), major }).collect()
    }

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major_version("postgres: command not found"), None);
    }

    #[test]
    fn a_new_cluster_takes_the_first_that_is_new_enough() {
        assert_eq!(choose(installed(&[14, 16, 17]), None).map(|binaries| binaries.major).ok(), Some(16));
        assert!(
            matches!(choose(installed(&[14, 13]), None), Err(EmbeddedError::TooOld { found }) if found == "13, 14")
        );
        assert!(matches!(choose(Vec::new(), None), Err(EmbeddedError::NotInstalled)));
    }

    #[test]
    fn an_existing_cluster_takes_its_own_version_or_none() {
        let cluster = Path::new("/data/postgres");
        assert_eq!(choose(installed(&[17, 15]), Some((cluster, 15))).map(|binaries| binaries.major).ok(), Some(15));
        let error = choose(installed(&[17, 15]), Some((cluster, 16))).expect_err("no 16").to_string();
        assert!(error.contains("made by PostgreSQL 16") && error.contains("installed is 15, 17"), "{error}");
    }

    #[test]
    fn versioned_folders_come_newest_first_and_by_number() {
        let parent = tempfile::tempdir().expect("tempdir");
        for name in ["pgsql-9.6", "pgsql-15", "pgsql-17", "pgsql-x", "other"] {
            fs::create_dir(parent.path().join(name)).expect("mkdir");
        }
        let names: Vec<_> =
            versioned(parent.path(), "pgsql-").iter().map(|dir| dir.file_name().map(OsStr::to_owned)).collect();
        assert_eq!(names, ["pgsql-17", "pgsql-15", "pgsql-9.6"].map(|name| Some(name.into())));
    }

    #[test]
    fn a_linked_program_is_followed_to_its_folder() {
        let root = tempfile::tempdir().expect("tempdir");
        let root = fs::canonicalize(root.path()).expect("canonical");
        let (cellar, bin) = (root.join("cellar"), root.join("bin"));
        fs::create_dir(&cellar).and_then(|()| fs::create_dir(&bin)).expect("mkdir");
        fs::write(cellar.join("postgres"), "").expect("postgres");
        symlink(cellar.join("postgres"), bin.join("postgres")).expect("symlink");
        assert_eq!(real_dir(&bin), None, "there is no initdb yet");
        fs::write(cellar.join("initdb"), "").expect("initdb");
        assert_eq!(real_dir(&bin), Some(cellar));
    }
}
