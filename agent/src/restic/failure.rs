//! What went wrong, told from restic's exit code and its words.
//!
//! Exit codes 10 to 12 exist since restic 0.17; before, everything is 1 and only the words tell. `exit_error`
//! exists since 0.18; before, it is a line that begins with `Fatal:`.

use super::lock::Lock;

/// Why restic failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no repository at the address.
    NoRepository,
    /// The repository is there, its password is another one.
    WrongPassword,
    /// Somebody holds a lock.
    Locked(Lock),
    /// The REST server refuses the user or what he wants to do, in restic's words.
    Denied(String),
    /// A disk is full, in restic's words.
    DiskFull(String),
    /// A file would be larger than its file system or the agent's limits allow, in restic's words.
    FileTooLarge(String),
    /// `init` found a repository.
    AlreadyInitialised,
    /// `check` found errors: the first one.
    Damaged(String),
    /// Anything else, in restic's words.
    Other(String),
}

/// restic's words about its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words<'a> {
    /// The message of `exit_error`.
    pub exit_error: Option<&'a str>,
    /// The first line that begins with `Fatal:`.
    pub fatal: Option<&'a str>,
    /// Other lines of standard error, and the messages of `error` objects.
    pub others: &'a [String],
}

impl Words<'_> {
    /// Judges a run that ended with `code` (`None`: by a signal).
    pub fn judge(&self, code: Option<i32>) -> Failure {
        let holds = |what: &str| self.lines().find(|line| line.contains(what));
        if code == Some(11) || holds("repository is already locked").is_some() {
            return Failure::Locked(Lock::read(self.lines()));
        }
        if code == Some(12) || holds("wrong password or no key found").is_some() {
            return Failure::WrongPassword;
        }
        if code == Some(10) || self.lines().any(says_no_repository) {
            return Failure::NoRepository;
        }
        if let Some(line) = holds("no space left on device").or_else(|| holds("disk quota exceeded")) {
            return Failure::DiskFull(plain(line));
        }
        if let Some(line) = holds(": file too large") {
            return Failure::FileTooLarge(plain(line));
        }
        if let Some(line) = holds("401 Unauthorized").or_else(|| holds("403 Forbidden")) {
            return Failure::Denied(plain(line));
        }
        if holds("config file already exists").is_some() {
            return Failure::AlreadyInitialised;
        }
        if DAMAGE.iter().any(|words| holds(words).is_some()) {
            return Failure::Damaged(
                self.others
                    .iter()
                    .find(|line| !line.trim().is_empty())
                    .map_or_else(|| "see the log".to_owned(), |line| plain(line)),
            );
        }
        Failure::Other(self.last_words(code))
    }

    /// Every line, the most telling first.
    fn lines(&self) -> impl Iterator<Item = &str> + Clone {
        let first = [self.exit_error, self.fatal].into_iter().flatten();
        first.chain(self.others.iter().map(String::as_str)).flat_map(str::lines)
    }

    fn last_words(&self, code: Option<i32>) -> String {
        let last = self.others.iter().rev().map(String::as_str);
        let said =
            [self.exit_error, self.fatal].into_iter().flatten().chain(last).find(|words| !words.trim().is_empty());
        match (said, code) {
            (Some(words), _) => plain(words),
            (None, Some(code)) => format!("restic ended with exit code {code} and said nothing"),
            (None, None) => "restic was ended by a signal".to_owned(),
        }
    }
}

/// How every version ends a check that found errors, or could not load the index.
const DAMAGE: [&str; 2] = ["repository contains errors", "LoadIndex returned errors"];

/// restic 0.14 asks "Is there a repository at the following location?" whenever it can't read the configuration,
/// be it that the server is down: only the reason tells.
fn says_no_repository(line: &str) -> bool {
    let reason = line.split_once("unable to open config file:").map_or("", |(_, reason)| reason);
    reason.contains("<config/> does not exist") || reason.contains("no such file or directory")
}

/// The first line (some messages hold a whole stack trace) without restic's `Fatal:`, and not too long.
fn plain(words: &str) -> String {
    let line = words.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.trim_start_matches("Fatal:").trim();
    let end = crate::process::char_boundary(line.as_bytes(), line.len().min(1000));
    line[..end].to_owned()
}

impl Failure {
    /// One sentence that says what went wrong and what to do. `repository` is its address without credentials.
    pub fn sentence(&self, repository: &str) -> String {
        match self {
            Self::NoRepository => {
                format!("there is no repository at {repository}: check the address, or run an init job")
            }
            Self::WrongPassword => {
                format!(
                    "wrong repository password: the repository at {repository} does not open with the one that is set"
                )
            }
            Self::Locked(lock) => lock.sentence(lock.standing()),
            Self::Denied(words) if words.contains("403") => format!(
                "the repository's server forbids this: {words}; an append-only repository needs the admin credential \
                 for it, and the user must be allowed to use this path"
            ),
            Self::Denied(words) => {
                format!("the repository's server refuses the user: {words}; check the user name and its password")
            }
            Self::DiskFull(words) => format!("a disk is full: {words}; free space there and run the job again"),
            Self::FileTooLarge(words) => format!(
                "a file can't grow: {words}; lift the limit on the size of files that the agent runs under, or use a \
                 file system without one"
            ),
            Self::AlreadyInitialised => format!("there is a repository at {repository} already"),
            Self::Damaged(words) => {
                format!(
                    "the check found errors: {words}; repair the repository (restic's troubleshooting guide) before the next prune"
                )
            }
            Self::Other(words) => format!("restic failed: {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges recorded standard error as the listener would hear it.
    fn judge(code: i32, stderr: &str) -> Failure {
        let heard = super::super::heard::heard_for_tests("", stderr);
        heard.words().judge(Some(code))
    }

    macro_rules! recorded {
        ($version:literal, $name:literal) => {
            judge(
                include_str!(concat!("../../tests/data/", $version, "/", $name, ".rc")).trim().parse().unwrap(),
                include_str!(concat!("../../tests/data/", $version, "/", $name, ".stderr")),
            )
        };
    }

    #[test]
    fn wrong_passwords_and_absent_repositories_are_told_apart() {
        assert_eq!(recorded!("0.14", "snapshots-wrong"), Failure::WrongPassword);
        assert_eq!(recorded!("0.18", "snapshots-wrong"), Failure::WrongPassword);
        assert_eq!(recorded!("0.14", "cat-wrong"), Failure::WrongPassword);
        assert_eq!(recorded!("0.14", "cat-absent"), Failure::NoRepository);
        assert_eq!(recorded!("0.18", "cat-absent"), Failure::NoRepository);
        assert_eq!(recorded!("0.14", "rest-absent"), Failure::NoRepository);
        assert_eq!(recorded!("0.18", "rest-absent"), Failure::NoRepository);
    }

    #[test]
    fn the_question_for_a_repository_does_not_mean_that_there_is_none() {
        assert!(
            matches!(recorded!("0.14", "rest-refused"), Failure::Other(words) if words.contains("connection refused"))
        );
        assert!(matches!(recorded!("0.14", "rest-401"), Failure::Denied(words) if words.contains("401")));
        assert!(matches!(recorded!("0.18", "rest-401"), Failure::Denied(words) if words.contains("401")));
    }

    #[test]
    fn a_lock_is_no_damage_and_its_holder_is_named() {
        for failure in [
            recorded!("0.14", "check-locked"),
            recorded!("0.18", "check-locked"),
            recorded!("0.14", "forget-locked"),
            recorded!("0.18", "forget-locked"),
            recorded!("0.14", "prune-locked"),
            recorded!("0.18", "prune-locked"),
        ] {
            let Failure::Locked(lock) = &failure else { panic!("{failure:?}") };
            let holder = &lock.words;
            assert!(holder.starts_with("by PID ") && holder.contains(" on vm by root"), "{holder}");
            assert!(holder.contains("lock was created at 20"), "{holder}");
            assert!(failure.sentence("/r").contains("unlock job"), "{failure:?}");
        }
    }

    #[test]
    fn damage_names_the_first_error() {
        for failure in [recorded!("0.14", "check-errors"), recorded!("0.18", "check-errors")] {
            assert!(matches!(&failure, Failure::Damaged(words) if words.ends_with(": does not exist")), "{failure:?}");
        }
    }

    #[test]
    fn an_init_of_a_repository_that_is_there_is_known() {
        assert_eq!(recorded!("0.14", "init-again"), Failure::AlreadyInitialised);
        assert_eq!(recorded!("0.18", "init-again"), Failure::AlreadyInitialised);
    }

    #[test]
    fn a_full_disk_is_passed_on() {
        for failure in [recorded!("0.14", "disk-full"), recorded!("0.18", "disk-full")] {
            let sentence = failure.sentence("/r");
            assert!(
                sentence.contains("no space left on device") && sentence.contains("restic-temp-pack"),
                "{sentence}"
            );
            assert!(!sentence.contains("Fatal"), "{sentence}");
        }
    }

    #[test]
    fn a_limit_on_files_is_no_full_disk() {
        // restic 0.14 under a limit on the size of files.
        let line = "Fatal: unable to save snapshot: Write: write /tmp/restic-temp-pack-27: file too large";
        let sentence = judge(1, line).sentence("/r");
        assert!(sentence.starts_with("a file can't grow: unable to save snapshot: Write: "), "{sentence}");
    }

    #[test]
    fn anything_else_is_its_first_line() {
        let trace = "Fatal: unable to load index: EOF\ngoroutine 1 [running]:\nmain.main()";
        let words = Words { exit_error: Some(trace), ..Words::default() };
        assert_eq!(words.judge(Some(1)), Failure::Other("unable to load index: EOF".into()));
        let others = ["".to_owned(), "unable to create lock in backend: boom".to_owned(), " ".to_owned()];
        let words = Words { others: &others, ..Words::default() };
        assert_eq!(words.judge(Some(1)), Failure::Other("unable to create lock in backend: boom".into()));
        assert_eq!(
            Words::default().judge(Some(2)).sentence("/r"),
            "restic failed: restic ended with exit code 2 and said nothing"
        );
    }
}
