//! Which restic this is, and what follows from its version.

use std::fmt;

/// A version of restic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third; 0 if it isn't given.
    pub patch: u32,
}

/// The oldest restic that the agent works with.
pub const OLDEST: Version = Version::new(0, 14, 0);

impl Version {
    /// The version `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads what `restic version` prints: `restic 0.14.0 compiled with go1.19.8 on linux/amd64`. The second word
    /// counts; development builds write `0.14.0-dev (compiled manually)`.
    pub fn read(printed: &str) -> Option<Self> {
        let mut words = printed.lines().find(|line| line.starts_with("restic "))?.split_whitespace().skip(1);
        let numbers = words.next()?.split(['-', '+']).next()?;
        let mut numbers = numbers.trim_start_matches('v').split('.').map(|number| number.parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let patch = numbers.next().flatten().unwrap_or(0);
        Some(Self { major, minor, patch })
    }

    /// Whether it reads `RESTIC_REST_USERNAME` and `RESTIC_REST_PASSWORD` (restic 0.16.1, changelog).
    pub fn reads_rest_credentials(self) -> bool {
        self >= Self::new(0, 16, 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_versions_print_is_read() {
        let old = include_str!("../../tests/data/0.14/version.stdout");
        let new = include_str!("../../tests/data/0.18/version.stdout");
        assert_eq!(Version::read(old), Some(Version::new(0, 14, 0)));
        assert_eq!(Version::read(new), Some(Version::new(0, 18, 0)));
        assert_eq!(Version::read("restic 0.17.3-dev (compiled manually)"), Some(Version::new(0, 17, 3)));
        assert_eq!(Version::read("restic 1.2"), Some(Version::new(1, 2, 0)));
        for bad in ["", "restic", "restic unknown", "rustic 0.7.0", "restic 0.x.1"] {
            assert_eq!(Version::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(Version::new(0, 9, 6) < OLDEST);
        assert!(!Version::new(0, 16, 0).reads_rest_credentials());
        assert!(Version::new(0, 16, 1).reads_rest_credentials());
    }
}
