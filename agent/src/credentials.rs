//! What opens a repository.

use fleet_wire::Secret;
use std::fmt;

/// One credential slot of the host.
#[derive(Clone, Default, PartialEq)]
pub struct Credentials {
    /// The repository, in restic's notation, without credentials.
    pub url: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The REST server's user.
    pub username: Option<String>,
    /// The REST server's password.
    pub credential: Option<Secret>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password of its own.
        let url = self.url.as_deref().map(|url| if url.contains('@') { "(with a user)" } else { url });
        f.debug_struct("Credentials")
            .field("url", &url)
            .field("password", &self.password)
            .field("username", &self.username)
            .field("credential", &self.credential)
            .finish()
    }
}
