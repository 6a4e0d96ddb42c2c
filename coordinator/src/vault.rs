//! Secrets at rest: sealed values for what must be read again, hashes for what must only be recognised.
//!
//! A sealed value is `1 | nonce (24 bytes) | XChaCha20-Poly1305 ciphertext`; the associated data names the row and
//! column, so a value that is copied to another place in the database does not open there.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use fleet_wire::Secret;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const FORMAT: u8 = 1;

/// Why the key file can't be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KeyError {
    #[error("can't read the key file {}: {source}. It must be a file that the coordinator's user may read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "can't make the key file {}: {source}. Make its folder writable, or choose another with FLEET_DATA_DIR",
        path.display()
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("{} is no key file: it must hold 64 hexadecimal digits. Put the right file there from your backup", path.display())]
    Malformed { path: PathBuf },
    #[error(
        "the key file {} can be read by others (mode {mode:o}). Run: chmod 600 {}", path.display(), path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

/// A sealed value that does not open: another key, another place, or damage.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a sealed value does not open: it was sealed with another key, for another place, or is damaged")]
pub struct UnsealError;

/// The place of a sealed value: table, row and column.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's primary key.
    pub row: Uuid,
    /// The column.
    pub column: &'a str,
}

impl Place<'_> {
    fn associated_data(&self) -> String {
        format!("{}/{}/{}", self.table, self.row, self.column)
    }
}

/// Seals and opens secrets with the installation's key. It can't be printed.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    /// Made of the key, for making tokens.
    seed: [u8; 32],
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// Reads the key file at `path`, or makes one, readable by its owner only.
    ///
    /// # Errors
    /// The file can't be read or made, is no key, or is open to others.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let mode = std::fs::metadata(path)
                    .map_err(|source| KeyError::Read { path: path.to_owned(), source })?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    return Err(KeyError::TooOpen { path: path.to_owned(), mode: mode & 0o777 });
                }
                let key = from_hex(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?;
                Ok(Self::with_key(key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key)?;
                create_private(path, &to_hex(&key))
                    .map_err(|source| KeyError::Create { path: path.to_owned(), source })?;
                Ok(Self::with_key(key))
            }
            // Text that is not UTF-8 is no key either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(KeyError::Malformed { path: path.to_owned() })
            }
            Err(source) => Err(KeyError::Read { path: path.to_owned(), source }),
        }
    }

    /// A vault with this key.
    pub fn with_key(key: [u8; KEY_BYTES]) -> Self {
        let seed = Sha256::new_with_prefix(b"restic-fleet tokens").chain_update(key).finalize().into();
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key)), seed }
    }

    /// The token that belongs to `claim`: as good as random to all who lack the key. Both parts of what is hashed have a fixed
    /// length, so that nobody can make one token of another.
    pub fn derive_token(&self, prefix: &str, claim: Uuid) -> Secret {
        let hash = Sha256::new_with_prefix(self.seed).chain_update(claim.as_bytes()).finalize();
        Secret::new(format!("{prefix}_{}", to_hex(&hash)))
    }

    /// Seals `secret` for `place`.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn seal(&self, place: Place<'_>, secret: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let aad = place.associated_data();
        let payload = Payload { msg: secret, aad: aad.as_bytes() };
        // The cipher refuses only messages of more than 256 GiB.
        let ciphertext =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| getrandom::Error::UNSUPPORTED)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// It was not sealed with this key for this place.
    pub fn unseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let (&format, rest) = sealed.split_first().ok_or(UnsealError)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(UnsealError)?;
        if format != FORMAT {
            return Err(UnsealError);
        }
        let aad = place.associated_data();
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| UnsealError)
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// It was not sealed with this key for this place, or is no text.
    pub fn unseal_text(&self, place: Place<'_>, sealed: &[u8]) -> Result<Secret, UnsealError> {
        let text = self.unseal(place, sealed)?;
        String::from_utf8(text).map(Secret::new).map_err(|_| UnsealError)
    }
}

/// What the database keeps of a token: tokens are 256 random bits, so a plain hash can't be reversed by guessing.
pub fn hash_token(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// A fresh token of 256 random bits, with a prefix that tells people and secret scanners what it is.
///
/// # Errors
/// The operating system has no random numbers.
pub fn new_token(prefix: &str) -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(format!("{prefix}_{}", to_hex(&bytes))))
}

/// Writes a new file that only its owner can read, whole or not at all.
///
/// # Errors
/// The folder can't be written, or the file is there already.
pub fn create_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Uuid = Uuid::from_u128(7);
    const PASSWORD: Place<'static> = Place { table: "repositories", row: ROW, column: "password" };

    #[test]
    fn a_sealed_secret_opens_only_in_its_place_and_with_its_key() {
        let vault = Vault::with_key([1; KEY_BYTES]);
        let sealed = vault.seal(PASSWORD, b"hunter2").expect("random numbers");
        assert_eq!(vault.unseal(PASSWORD, &sealed).as_deref(), Ok(&b"hunter2"[..]));
        assert_eq!(vault.unseal(Place { column: "credential", ..PASSWORD }, &sealed), Err(UnsealError));
        assert_eq!(vault.unseal(Place { row: Uuid::from_u128(8), ..PASSWORD }, &sealed), Err(UnsealError));
        assert_eq!(Vault::with_key([2; KEY_BYTES]).unseal(PASSWORD, &sealed), Err(UnsealError));
    }

    #[test]
    fn damage_is_noticed_at_any_byte() {
        let vault = Vault::with_key([1; KEY_BYTES]);
        let sealed = vault.seal(PASSWORD, b"hunter2").expect("random numbers");
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert_eq!(vault.unseal(PASSWORD, &damaged), Err(UnsealError), "byte {index}");
            assert_eq!(vault.unseal(PASSWORD, &sealed[..index]), Err(UnsealError), "cut at {index}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret.key");
        let sealed = Vault::open(&path).expect("a new key").seal(PASSWORD, b"x").expect("random numbers");
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Vault::open(&path).expect("the same key").unseal(PASSWORD, &sealed).is_ok());

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(Vault::open(&path), Err(KeyError::TooOpen { mode: 0o644, .. })));
    }

    #[test]
    fn a_damaged_key_file_is_an_error_and_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret.key");
        create_private(&path, "not a key").expect("written");
        assert!(matches!(Vault::open(&path), Err(KeyError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "not a key\n");
    }
}
