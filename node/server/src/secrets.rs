//! Passwords of registries while the cluster keeps them: sealed by the face that takes them, opened
//! by the cell that pulls, unreadable in between. [ADR 10](../../../docs/adr/0010-sealed-passwords.md)
//! says why.
//!
//! A sealed text is `gavel-sealed:KEY:NONCE:CIPHERTEXT`, the last three in hexadecimal. It is bound
//! to whose it is ([`Owner`]): copied into another recipe, it does not open.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use container::image::ProofKey;
use model::{ProcessGuid, TaskGuid};
use rand::RngExt;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;

use crate::limits::{IMAGE_PASSWORD_BYTES_MAX, SEAL_KEYS_MAX};

const MARK: &str = "gavel-sealed:";
/// What each line of a key file begins with.
const LINE: &str = "gavel-key:";
const KEY_BYTES: usize = 32;
/// As much of a key's digest as tells keys apart.
const ID_BYTES: usize = 8;

/// The keys of a cluster, the same on every node. The first seals, each opens.
#[derive(Default)]
pub struct Secrets {
    keys: Vec<Key>,
}

struct Key {
    id: String,
    key: LessSafeKey,
    /// For [`Secrets::proof_key`].
    proof: [u8; KEY_BYTES],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// Whose a password is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    Lrp(&'a ProcessGuid),
    Task(&'a TaskGuid),
}

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = .path.display())]
pub struct KeyFileError {
    path: PathBuf,
    reason: String,
}

/// A password cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error(
        "this node has no key to keep image_password with: make one with `gavel cluster certs`, and \
         name it in [registries] as seal_key on every node; or leave image_username and \
         image_password out, and let each node have the user in the file of [registries] credentials"
    )]
    NoKey,
    #[error("image_password is longer than {IMAGE_PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

/// A password that the cluster keeps cannot be read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(
        "the password of its registry is sealed with the key {key}, which this cell does not have: \
         add it to the file of [registries] seal_key, or push again"
    )]
    OtherKey { key: String },
    #[error("the password of its registry is not as it was sealed; push again")]
    Spoilt,
}

impl Secrets {
    /// Reads the file of keys; without one nothing is sealed.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]: it cannot be read, others can read it too, or it holds something else.
    pub fn open(path: Option<&Path>) -> Result<Self, KeyFileError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let fail = |reason: String| KeyFileError { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(|error| fail(error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            let reason = "others than its owner may read it; chmod 600 it, and change the key if \
                          somebody has";
            return Err(fail(reason.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for (number, line) in lines {
            let bytes = line.strip_prefix(LINE).and_then(|hex| hex::decode(hex.trim()).ok());
            let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES).ok_or_else(|| {
                format!("line {} is not {LINE} and 64 hexadecimal digits", number + 1)
            })?;
            keys.push(Key::new(&bytes));
        }
        match keys.len() {
            0 => Err("it holds no key; `gavel cluster certs` makes one".to_owned()),
            count if count > SEAL_KEYS_MAX => {
                Err(format!("it holds more than {SEAL_KEYS_MAX} keys"))
            }
            _ => Ok(Self { keys }),
        }
    }

    /// The text of a new key file.
    #[must_use]
    pub fn new_key_file() -> String {
        let mut bytes = [0; KEY_BYTES];
        rand::rng().fill(&mut bytes);
        format!(
            "# Seals the passwords of registries. The same on every node, and nobody else's.\n\
             {LINE}{}\n",
            hex::encode(bytes)
        )
    }

    /// With what the image store keeps whom an image was given to: nothing on its disk leads to it,
    /// nor from it to the key that seals.
    pub(crate) fn proof_key(&self) -> Option<ProofKey> {
        self.keys.first().map(|key| ProofKey::new(key.proof))
    }

    /// What the cluster may keep of a password.
    pub(crate) fn seal(
        &self,
        owner: Owner<'_>,
        username: &str,
        password: &str,
    ) -> Result<String, SealError> {
        let key = self.keys.first().ok_or(SealError::NoKey)?;
        if password.len() > IMAGE_PASSWORD_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        // 96 random bits a password: a key is good for 2^32 of them (NIST SP 800-38D 8.3).
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill(&mut nonce);
        let mut bytes = password.as_bytes().to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                owner.bound_to(username),
                &mut bytes,
            )
            .expect("a password is shorter than what one key seals at once");
        Ok(format!("{MARK}{}:{}:{}", key.id, hex::encode(nonce), hex::encode(bytes)))
    }

    /// The password that was sealed.
    pub(crate) fn open_sealed(
        &self,
        owner: Owner<'_>,
        username: &str,
        sealed: &str,
    ) -> Result<String, OpenError> {
        let rest = sealed.strip_prefix(MARK).ok_or(OpenError::Spoilt)?;
        let mut parts = rest.split(':');
        let (Some(id), Some(nonce), Some(bytes), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(OpenError::Spoilt);
        };
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| OpenError::OtherKey { key: id.to_owned() })?;
        let nonce = hex::decode(nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce: [u8; NONCE_LEN] = nonce.ok_or(OpenError::Spoilt)?;
        let mut bytes = hex::decode(bytes).map_err(|_| OpenError::Spoilt)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.key.open_in_place(nonce, owner.bound_to(username), &mut bytes);
        let opened = opened.map_err(|_| OpenError::Spoilt)?;
        String::from_utf8(opened.to_vec()).map_err(|_| OpenError::Spoilt)
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("a key of its length");
        let derived = |what: &[u8]| digest::digest(&digest::SHA256, &[what, bytes].concat());
        let proof = derived(b"gavel image proofs").as_ref().try_into();
        Self {
            id: hex::encode(&derived(b"gavel key id").as_ref()[..ID_BYTES]),
            key: LessSafeKey::new(key),
            proof: proof.expect("SHA-256 gives 32 bytes"),
        }
    }
}

impl Owner<'_> {
    fn bound_to(self, username: &str) -> Aad<Vec<u8>> {
        let (kind, guid) = match self {
            Self::Lrp(guid) => ("lrp", guid.as_str()),
            Self::Task(guid) => ("task", guid.as_str()),
        };
        Aad::from(format!("{kind}\0{guid}\0{username}").into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(files: &[&str]) -> Secrets {
        Secrets::parse(&files.concat()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_where_the_key_is_and_for_its_owner_only() {
        let file = Secrets::new_key_file();
        let here = secrets(&[&file]);
        let (app, other): (ProcessGuid, ProcessGuid) = ("app".into(), "other".into());
        let sealed = here.seal(Owner::Lrp(&app), "me", "hush").unwrap();
        assert!(!sealed.contains("hush") && !sealed.contains(&hex::encode("hush")), "{sealed}");
        let open =
            |at: &Secrets, owner: Owner<'_>, user: &str| at.open_sealed(owner, user, &sealed);
        let task: TaskGuid = "app".into();
        let there = secrets(&[&file]);
        assert_eq!(open(&there, Owner::Lrp(&app), "me").unwrap(), "hush");
        assert_eq!(open(&there, Owner::Lrp(&other), "me"), Err(OpenError::Spoilt));
        assert_eq!(open(&there, Owner::Task(&task), "me"), Err(OpenError::Spoilt));
        assert_eq!(open(&there, Owner::Lrp(&app), "you"), Err(OpenError::Spoilt));
        assert_ne!(here.seal(Owner::Lrp(&app), "me", "hush").unwrap(), sealed);
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let (old, new) = (Secrets::new_key_file(), Secrets::new_key_file());
        let task: TaskGuid = "t".into();
        let sealed = secrets(&[&old]).seal(Owner::Task(&task), "me", "hush").unwrap();
        let both = secrets(&[&new, &old]);
        assert_eq!(both.open_sealed(Owner::Task(&task), "me", &sealed).unwrap(), "hush");
        let missing = secrets(&[&new]).open_sealed(Owner::Task(&task), "me", &sealed);
        assert!(missing.unwrap_err().to_string().contains("seal_key"));
        let renewed = both.seal(Owner::Task(&task), "me", "hush").unwrap();
        assert!(secrets(&[&new]).open_sealed(Owner::Task(&task), "me", &renewed).is_ok());
    }

    #[test]
    fn every_bit_of_a_sealed_text_counts() {
        let here = secrets(&[&Secrets::new_key_file()]);
        let app: ProcessGuid = "app".into();
        let sealed = here.seal(Owner::Lrp(&app), "me", "hush").unwrap();
        for at in 0..sealed.len() {
            let mut spoilt = sealed.clone().into_bytes();
            spoilt[at] ^= 1;
            let spoilt = String::from_utf8(spoilt).unwrap();
            assert!(here.open_sealed(Owner::Lrp(&app), "me", &spoilt).is_err(), "{spoilt}");
        }
        for rubbish in ["", "hush", MARK, "gavel-sealed::::"] {
            assert!(here.open_sealed(Owner::Lrp(&app), "me", rubbish).is_err());
        }
    }

    #[test]
    fn a_key_file_that_cannot_be_used_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let error = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Secrets::open(Some(&path)).unwrap_err().to_string()
        };
        let good = Secrets::new_key_file();
        assert!(error(&good, 0o640).contains("chmod 600"));
        assert!(error("", 0o600).contains("holds no key"));
        let short = error("gavel-key:abcd\n", 0o600);
        assert!(short.contains("line 1") && !short.contains("abcd"), "{short}");
        fs::write(&path, good).unwrap();
        let secrets = Secrets::open(Some(&path)).unwrap();
        assert_eq!(format!("{secrets:?}").len(), 2 * ID_BYTES + 4);
        let none = Secrets::open(None).unwrap();
        assert_eq!(none.seal(Owner::Task(&"t".into()), "u", "p"), Err(SealError::NoKey));
    }
}
