//! What opens a repository.

use fleet_wire::Secret;

/// One credential slot of the host.
#[derive(Clone, Debug, Default, PartialEq)]
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
