//! Paths of hosts, whose system need not be ours. Pure.

/// Whether `path` is absolute, as the system `os` writes paths.
pub fn is_absolute(os: &str, path: &str) -> bool {
    if os != "windows" {
        return path.starts_with('/');
    }
    let drive = path.as_bytes();
    path.starts_with("\\\\") || matches!(drive, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_is_what_the_hosts_system_calls_so() {
        assert!(is_absolute("linux", "/etc") && !is_absolute("linux", "etc") && !is_absolute("linux", "C:\\x"));
        for path in ["C:\\x", "c:/x", "\\\\server\\share"] {
            assert!(is_absolute("windows", path), "{path}");
        }
        for path in ["/etc", "C:", "C:x", "é:\\x", "x"] {
            assert!(!is_absolute("windows", path), "{path}");
        }
    }
}
