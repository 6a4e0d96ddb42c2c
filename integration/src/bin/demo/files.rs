//! The sources that the demo makes: names that trip programs up, a file nobody may read, and a big sparse one.

use fleet_integration::{Account, Context, Failure};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The apparent size of the sparse file.
pub(crate) const SPARSE_BYTES: u64 = 1 << 30;
/// The size of the file whose contents are all new in the second backup.
const RANDOM_BYTES: u64 = 16 << 20;
/// The file that agents can't read.
const UNREADABLE: &str = "nobody may read this";
/// The file of random bytes.
const RANDOM: &str = "random.bin";
/// File names that are legal and rare; the last is not even Unicode.
const NAMES: &[&[u8]] = &[
    b"two  spaces and a trailing one ",
    b"new\nline",
    b"'single' and \"double\" quotes",
    b"-rf",
    b"--exclude=everything",
    b"*",
    b"$HOME `id` ; true",
    b"back\\slash",
    b"# not a comment",
    "grüße, こんにちは, 🦀".as_bytes(),
    b"not unicode \xff\xfe",
];

/// What a change did to the folder of odd names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Files that are new.
    pub(crate) new: i64,
    /// Files whose contents are others.
    pub(crate) changed: i64,
}

fn path(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// Makes the folder of odd names.
pub(crate) fn make_odd(folder: &Path) -> Result<(), Failure> {
    let deep = folder.join("empty folder/in a folder");
    fs::create_dir_all(&deep)?;
    for name in NAMES {
        let file = path(folder, name);
        fs::write(&file, name).context(file.display())?;
    }
    symlink("points nowhere", folder.join("dangling link"))?;
    write_random(&folder.join(RANDOM))?;
    let unreadable = folder.join(UNREADABLE);
    fs::write(&unreadable, "a secret\n")?;
    Ok(fs::set_permissions(unreadable, Permissions::from_mode(0o000))?)
}

/// Changes it between two backups: one file more, one less, two with other contents.
pub(crate) fn change_odd(folder: &Path) -> Result<Changed, Failure> {
    fs::write(folder.join("new\tin the second backup"), "new")?;
    fs::remove_file(path(folder, NAMES[5]))?;
    fs::write(path(folder, NAMES[1]), "other contents")?;
    write_random(&folder.join(RANDOM))?;
    Ok(Changed { new: 1, changed: 2 })
}

fn write_random(path: &Path) -> Result<(), Failure> {
    let mut random = File::open("/dev/urandom")?.take(RANDOM_BYTES);
    std::io::copy(&mut random, &mut File::create(path)?).context(path.display())?;
    Ok(())
}

/// Makes a folder with one big file that is nearly all hole.
pub(crate) fn make_sparse(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let mut disk = File::create(folder.join("disk.img"))?;
    disk.set_len(SPARSE_BYTES)?;
    disk.write_all(b"a boot sector")?;
    Ok(())
}

/// Writes something into the middle of the sparse file.
pub(crate) fn change_sparse(folder: &Path) -> Result<(), Failure> {
    let mut disk = File::options().write(true).open(folder.join("disk.img"))?;
    disk.seek(SeekFrom::Start(SPARSE_BYTES / 2))?;
    Ok(disk.write_all(b"a file system")?)
}

/// How many files and folders below `folder` (without `skip`) `account` can't read.
pub(crate) fn unreadable(folder: &Path, skip: &Path, account: Option<&Account>) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(folder) else { return 0 };
    if folder == skip || metadata.is_symlink() || !(metadata.is_dir() || metadata.is_file()) {
        return 0;
    }
    let readable = match account {
        Some(account) => account.may(&metadata, if metadata.is_dir() { 5 } else { 4 }),
        None => File::open(folder).is_ok(),
    };
    if !readable {
        return 1;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| unreadable(&entry.path(), skip, account)).sum()
}

/// Says how a restored folder differs from the original; what is in `UNREADABLE` is not expected in it.
pub(crate) fn difference(original: &Path, restored: &Path) -> Result<Option<String>, Failure> {
    let (expected, found) = (listing(original, original)?, listing(restored, restored)?);
    let expected: Vec<_> = expected.into_iter().filter(|(name, _)| name != Path::new(UNREADABLE)).collect();
    if expected.len() != found.len() {
        return Ok(Some(format!("{} entries instead of {}", found.len(), expected.len())));
    }
    let differing = expected.into_iter().zip(found).find(|(expected, found)| expected != found);
    Ok(differing.map(|((expected, _), (found, _))| format!("{expected:?} came back differently, or as {found:?}")))
}

/// Every path below `folder`, sorted, with a file's contents or a link's target.
fn listing(root: &Path, folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).context(folder.display())? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(root)?.to_owned();
        if metadata.is_dir() {
            all.push((name, Vec::new()));
            all.extend(listing(root, &path)?);
        } else if metadata.is_symlink() {
            all.push((name, fs::read_link(&path)?.into_os_string().into_encoded_bytes()));
        } else if name == Path::new(UNREADABLE) {
            all.push((name, Vec::new()));
        } else {
            all.push((name, fs::read(&path).context(path.display())?));
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_integration::leak_free_dir;

    #[test]
    fn a_difference_is_found_and_equality_too() {
        let dir = leak_free_dir("fleet-files.").unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for folder in [&one, &two] {
            make_odd(folder).unwrap();
        }
        fs::copy(one.join(RANDOM), two.join(RANDOM)).unwrap();
        fs::remove_file(two.join(UNREADABLE)).unwrap();
        assert_eq!(difference(&one, &two).unwrap(), None);
        fs::write(two.join("-rf"), "other").unwrap();
        assert!(difference(&one, &two).unwrap().unwrap().contains("-rf"));
    }

    #[test]
    fn changes_are_as_told() {
        let dir = leak_free_dir("fleet-files.").unwrap();
        let folder = dir.path().join("odd");
        make_odd(&folder).unwrap();
        let before = listing(&folder, &folder).unwrap();
        let told = change_odd(&folder).unwrap();
        let after = listing(&folder, &folder).unwrap();
        let new = after.iter().filter(|(name, _)| before.iter().all(|(old, _)| old != name)).count();
        let changed = after.iter().filter(|(name, data)| before.iter().any(|(n, d)| n == name && d != data)).count();
        assert_eq!((new.try_into().unwrap(), changed.try_into().unwrap()), (told.new, told.changed));
    }

    #[test]
    fn an_unreadable_file_is_counted() {
        let dir = leak_free_dir("fleet-files.").unwrap();
        let folder = dir.path().join("odd");
        make_odd(&folder).unwrap();
        let account = Account::instead_of_root(&["nobody"]).unwrap();
        assert_eq!(unreadable(&folder, Path::new(""), account.as_ref()), 1);
        assert_eq!(unreadable(&folder, &folder.join(UNREADABLE), account.as_ref()), 0);
    }
}
