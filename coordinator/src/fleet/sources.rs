//! Where the coordinator finds secrets that a document only names: in its environment and in files, each within bounds that
//! whoever starts it has set. A client of the API can make it read nothing else.

use crate::config::SecretSources;
use fleet_wire::Secret;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

/// The largest file that is read, in bytes; a secret is one line.
const LARGEST: u64 = 64 * 1024;

/// A place where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A variable of the coordinator's environment.
    Env(String),
    /// A file, by its path within the folder of secrets.
    File(String),
}

impl SecretSources {
    /// The secret at a place, without the line break at its end.
    ///
    /// # Errors
    /// Why there is none; never what is there.
    pub fn read(&self, source: &Source) -> Result<Secret, String> {
        let text = match source {
            Source::Env(name) => self.variable(name)?,
            Source::File(path) => self.file(path)?,
        };
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        if self.prefix.is_empty() || !name.starts_with(&self.prefix) {
            return Err(match self.prefix.as_str() {
                "" => "the coordinator takes no secrets from its environment".to_owned(),
                prefix => format!("only variables whose names begin with {prefix} are read"),
            });
        }
        std::env::var(name).map_err(|_| "there is no such variable in the coordinator's environment".to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let Some(folder) = &self.directory else {
            return Err("the coordinator was not told where files with secrets are (FLEET_SECRETS_DIR)".to_owned());
        };
        let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err("must be a path within the folder of secrets: relative, and without ..".to_owned());
        }
        // Links are followed, as long as they stay inside: that is how secrets are mounted into containers.
        let folder = folder.canonicalize().map_err(|error| format!("the folder of secrets can't be read: {error}"))?;
        let no = |error: std::io::Error| format!("there is no such file that can be read: {}", error.kind());
        let found = folder.join(path).canonicalize().map_err(no)?;
        let file = File::open(&found).map_err(no)?;
        if !found.starts_with(&folder) || !file.metadata().map_err(no)?.is_file() {
            return Err("must be a file within the folder of secrets".to_owned());
        }
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(|_| "is no text".to_owned())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn file(sources: &SecretSources, path: &str) -> Result<String, String> {
        sources.read(&Source::File(path.to_owned())).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn only_files_within_the_folder_are_read() {
        let root = tempfile::tempdir().expect("a folder");
        let inside = root.path().join("secrets");
        fs::create_dir_all(inside.join("sub")).expect("a folder");
        fs::write(inside.join("sub/one"), "hunter2\n").expect("a file");
        fs::write(root.path().join("outside"), "not this").expect("a file");
        symlink(root.path().join("outside"), inside.join("out")).expect("a link");
        symlink("sub/one", inside.join("in")).expect("a link");
        let sources = SecretSources { directory: Some(inside.clone()), prefix: String::new() };
        assert_eq!(file(&sources, "sub/one").as_deref(), Ok("hunter2"));
        assert_eq!(file(&sources, "in").as_deref(), Ok("hunter2"));
        let absolute = inside.join("sub/one").display().to_string();
        for wrong in ["", "..", "../outside", "sub/../../outside", "out", "sub", "nothing", ".", &absolute] {
            let error = file(&sources, wrong).expect_err(wrong);
            assert!(!error.contains("not this"), "{error}");
        }
        let nowhere = SecretSources { directory: None, prefix: String::new() };
        assert!(file(&nowhere, "sub/one").is_err());
    }

    #[test]
    fn only_variables_with_the_prefix_are_read() {
        // One that each process has.
        let name = "PATH".to_owned();
        let with = |prefix: &str| SecretSources { directory: None, prefix: prefix.to_owned() };
        assert!(with("PA").read(&Source::Env(name.clone())).is_ok());
        for prefix in ["", "FLEET_SECRET_"] {
            assert!(with(prefix).read(&Source::Env(name.clone())).is_err(), "{prefix}");
        }
        assert!(with("FLEET_SECRET_").read(&Source::Env("FLEET_SECRET_THAT_NOBODY_SETS".to_owned())).is_err());
    }

    #[test]
    fn a_source_has_one_form() {
        let json = |source: &Source| serde_json::to_string(source).expect("JSON");
        assert_eq!(json(&Source::Env("A".to_owned())), r#"{"env":"A"}"#);
        assert_eq!(json(&Source::File("b/c".to_owned())), r#"{"file":"b/c"}"#);
    }
}
