//! Who one is to a daemon: signatures by the private key of a `diego-ssh` route.

use russh::Signer;
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey};

/// Signs as [`PrivateKey`] does, but that an RSA signature is as long as the modulus (RFC 8017,
/// section 8.2.1). The `rsa` crate (0.10.0-rc.18) rounds its length up to whole words, and Go and
/// OpenSSH take no other: a key of 2014 bits, as Diego's own acceptance tests have, was let in
/// nowhere.
#[derive(Debug)]
pub(crate) struct KeySigner(pub PrivateKey);

impl KeySigner {
    fn sign(&self, hash: Option<HashAlg>, message: &[u8]) -> Result<Signature, russh::keys::Error> {
        let KeypairData::Rsa(pair) = self.0.key_data() else {
            return Ok(self.0.try_sign(message).map_err(russh::keys::ssh_key::Error::from)?);
        };
        let signature: Signature =
            (pair, hash).try_sign(message).map_err(russh::keys::ssh_key::Error::from)?;
        let modulus = pair.public().n().as_positive_bytes().map_or(0, <[u8]>::len);
        let surplus = signature.as_bytes().len().saturating_sub(modulus);
        let bytes = &signature.as_bytes()[surplus..];
        Ok(Signature::new(signature.algorithm(), bytes)?)
    }
}

/// No signature, or nobody to send it to any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Keys(#[from] russh::keys::Error),
    #[error("the connection to the daemon has ended")]
    Ended(#[from] russh::SendError),
}

impl From<SignError> for russh::Error {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Keys(error) => Self::Keys(error),
            SignError::Ended(_) => Self::SendError,
        }
    }
}

impl Signer for KeySigner {
    type Error = SignError;

    /// The request and, after it, the signature as a string (RFC 4252, section 7).
    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        mut request: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let signature = self.sign(hash, &request)?;
        signature.encode_prefixed(&mut request).map_err(russh::keys::Error::from)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use russh::keys::decode_secret_key;

    use super::*;

    /// Whether others take it, `tests/openssh.rs` asks.
    #[test]
    fn a_signature_is_as_long_as_the_modulus() {
        for (bits, bytes) in [("1024", 128), ("2014", 252), ("2040", 255), ("2048", 256)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("key");
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "rsa", "-b", bits, "-N", "", "-f"]).arg(&path);
            assert!(command.status().unwrap().success());
            let key = decode_secret_key(&fs::read_to_string(&path).unwrap(), None).unwrap();
            let signer = KeySigner(key);
            for hash in [HashAlg::Sha256, HashAlg::Sha512] {
                let signature = signer.sign(Some(hash), b"message").unwrap();
                assert_eq!(signature.as_bytes().len(), bytes);
            }
        }
    }
}
