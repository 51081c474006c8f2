//! The server's own signing key: made once, kept in the data directory, readable by its owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jsonwebtoken::EncodingKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

const FILE: &str = "local.key";
const FILE_UNFINISHED: &str = "local.key.new";

/// Why the local key could not be had.
#[derive(Debug)]
pub enum KeyError {
    /// The directory or the file could not be read or written.
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is there, but it is no Ed25519 key in PKCS#8.
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

impl KeyError {
    /// Whether there simply is no key yet.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Damaged { path } => {
                write!(f, "{} is no Ed25519 key in PKCS#8: put the right file back, or remove it", path.display())
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// An Ed25519 key pair of the server.
///
/// On disk: `local.key`, PKCS#8 version 2 (RFC 5958), mode 0600, in a directory of mode 0700.
pub struct LocalKey {
    signing: EncodingKey,
    public: [u8; 32],
}

impl LocalKey {
    /// Opens the key in `directory` (the `keys/` of a data directory), or makes it if there is none. A new one is
    /// written to another name, synced and renamed, and the directories are synced: it is whole or absent after a
    /// power cut, and no token is ever signed with a key that could be lost.
    pub fn open_or_create(directory: &Path) -> Result<Self, KeyError> {
        match Self::open(directory) {
            Err(error) if error.is_missing() => {
                create(directory)?;
                Self::open(directory)
            }
            // A start that was killed may have left the name in memory only.
            outcome => outcome.and_then(|key| sync_names(directory).map(|()| key)),
        }
    }

    /// Opens the key in `directory`. Writes nothing.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let pkcs8 = fs::read(&path).map_err(|error| KeyError::Io { path: path.clone(), error })?;
        Self::from_pkcs8(&pkcs8).ok_or(KeyError::Damaged { path })
    }

    /// A key of its bytes.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { signing: EncodingKey::from_ed_der(pkcs8), public })
    }

    /// The 32 bytes of the public half.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    pub(super) fn signing(&self) -> &EncodingKey {
        &self.signing
    }

    /// The signature of any bytes, as it stands in a token: fuzzing needs tokens that nobody would mint.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        let signed = jsonwebtoken::crypto::sign(message, &self.signing, jsonwebtoken::Algorithm::EdDSA);
        signed.expect("a key that was opened signs")
    }
}

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey")
    }
}

fn create(directory: &Path) -> Result<(), KeyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| KeyError::Io { path, error }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    // One that was there already may have been made by hand.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed(directory))?;
    let unfinished = directory.join(FILE_UNFINISHED);
    write_synced(&unfinished, &generate()).map_err(failed(&unfinished))?;
    let path = directory.join(FILE);
    fs::rename(&unfinished, &path).map_err(failed(&path))?;
    sync_names(directory)
}

/// Makes the names of the key and of its directory durable.
fn sync_names(directory: &Path) -> Result<(), KeyError> {
    for path in [Some(directory), directory.parent()].into_iter().flatten() {
        sync_directory(path).map_err(|error| KeyError::Io { path: path.to_owned(), error })?;
    }
    Ok(())
}

fn generate() -> Vec<u8> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system has randomness");
    document.as_ref().to_vec()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        // Left by a start that was killed: `create_new` below makes sure that the mode is ours.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        assert!(LocalKey::open(&keys).unwrap_err().is_missing());
        let first = *LocalKey::open_or_create(&keys).unwrap().public_key();
        let again = *LocalKey::open_or_create(&keys).unwrap().public_key();
        assert_eq!(first, again);
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(keys.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!keys.join(FILE_UNFINISHED).exists());
    }

    #[test]
    fn a_start_that_was_killed_while_writing_the_key_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_UNFINISHED), b"half").unwrap();
        assert!(LocalKey::open_or_create(directory.path()).is_ok());
    }

    #[test]
    fn a_damaged_key_is_named_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, b"not a key").unwrap();
        let error = LocalKey::open_or_create(directory.path()).unwrap_err();
        assert!(matches!(&error, KeyError::Damaged { .. }) && !error.is_missing());
        assert!(error.to_string().contains("local.key"));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }
}
