//! The proxy's own key: the operator's, or one that is made and kept.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, decode_secret_key};

/// A private key, and how clients know it.
#[derive(Clone)]
pub struct HostKey {
    pub(crate) key: PrivateKey,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

/// A key cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct HostKeyError {
    pub path: PathBuf,
    pub reason: String,
}

impl HostKey {
    /// Reads a key: PKCS#1, PKCS#8 or OpenSSH's, in PEM, without a passphrase.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, HostKeyError> {
        let failed = |reason: String| HostKeyError { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        match decode_secret_key(&text, None) {
            Ok(key) => Ok(Self { key }),
            Err(error) => {
                Err(failed(format!("it is no private key without a passphrase: {error}")))
            }
        }
    }

    /// Reads the key that was made before, or makes one, for its owner only.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`], naming the file.
    pub fn read_or_make(path: &Path) -> Result<Self, HostKeyError> {
        if path.exists() {
            return Self::read(path);
        }
        let failed = |reason: String| HostKeyError { path: path.to_owned(), reason };
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .map_err(|error| failed(format!("no key can be made: {error}")))?;
        let text = key.to_openssh(LineEnding::LF).map_err(|error| failed(error.to_string()))?;
        // Whole or not at all: a crash leaves no half of a key behind.
        let making = path.with_extension("making");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&making)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&making, path)
        };
        write().map_err(|error| failed(error.to_string()))?;
        Ok(Self { key })
    }

    /// As `ssh-keygen -l` shows it, and `ssh` when it is new to it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// What goes into `known_hosts` behind the host.
    #[must_use]
    pub fn public(&self) -> String {
        self.key.public_key().to_openssh().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_host_key");
        let made = HostKey::read_or_make(&path).unwrap();
        let found = HostKey::read_or_make(&path).unwrap();
        assert_eq!(made.fingerprint(), found.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = HostKey::read_or_make(&dir.path().join("other")).unwrap();
        assert_ne!(made.fingerprint(), other.fingerprint());
    }

    #[test]
    fn keys_of_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [
            ("a", &["-t", "ed25519"][..]),
            ("b", &["-t", "rsa", "-m", "PEM"]),
            ("c", &["-t", "ecdsa"]),
        ] {
            let path = dir.path().join(name);
            let mut command = Command::new("ssh-keygen");
            command.args(kind).args(["-q", "-N", "", "-f"]).arg(&path);
            assert!(command.status().unwrap().success());
            let shown = Command::new("ssh-keygen").arg("-lf").arg(&path).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            let key = HostKey::read(&path).unwrap();
            assert!(shown.contains(&key.fingerprint()), "{shown} {}", key.fingerprint());
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let missing = HostKey::read(&path).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: No such file", path.display())), "{missing}");
        fs::write(&path, "hello").unwrap();
        let bad = HostKey::read_or_make(&path).unwrap_err().to_string();
        assert!(bad.contains("it is no private key without a passphrase"), "{bad}");
    }
}
