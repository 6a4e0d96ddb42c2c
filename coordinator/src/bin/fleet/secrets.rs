//! Secrets come from files and the environment, never from a command line, which every user of a machine can read.

use crate::failure::Failure;
use fleet_wire::Secret;
use std::fs;
use std::io::{self, stdin};
use std::path::Path;

/// The longest secret, in bytes: what is longer is another file.
const LONGEST: usize = 64 * 1024;

/// All of a file, or of stdin if the file is called `-`.
///
/// # Errors
/// It can't be read.
pub(crate) fn read_whole(path: &Path) -> Result<String, Failure> {
    let read = || match path == Path::new("-") {
        true => io::read_to_string(stdin()),
        false => fs::read_to_string(path),
    };
    read().map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// The first line of a file, or of stdin if the file is called `-`.
///
/// # Errors
/// It can't be read, or is empty.
pub(crate) fn read(path: &Path) -> Result<Secret, Failure> {
    let text = read_whole(path)?;
    let line = text.lines().next().unwrap_or_default().trim_end();
    if line.is_empty() || line.len() > LONGEST {
        return Err(Failure::Usage(format!("{}: its first line must be the secret", path.display())));
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_secret() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        fs::write(&path, "rft_abc\r\nsomething else\n").expect("written");
        assert_eq!(read(&path).expect("a secret").expose(), "rft_abc");
        fs::write(&path, "\n").expect("written");
        assert!(matches!(read(&path), Err(Failure::Usage(_))));
        assert!(matches!(read(&dir.path().join("none")), Err(Failure::Usage(_))));
    }
}
