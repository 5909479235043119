//! A host key's fingerprint, as an LRP's route writes it. Which one it is, its length says, as in
//! Diego (diego-ssh: `helpers/fingerprint.go`): MD5 and SHA-1 in hexadecimal with colons, or
//! SHA-256 in base64 with or without padding. What `ssh-keygen -l` puts before them may be there.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use russh::keys::{HashAlg, PublicKey};

/// 16 bytes in hexadecimal, with colons between.
const MD5_CHARS: usize = 47;
/// 20 bytes.
const SHA1_CHARS: usize = 59;

/// Whether the key is the one that is meant.
#[must_use]
pub fn fits(expected: &str, key: &PublicKey) -> bool {
    let expected = expected.trim();
    let bare = ["MD5:", "SHA1:", "SHA256:"].iter().find_map(|name| expected.strip_prefix(name));
    let expected = bare.unwrap_or(expected);
    let Ok(bytes) = key.to_bytes() else { return false };
    match expected.len() {
        MD5_CHARS => colons(&md5::compute(&bytes).0) == expected.to_ascii_lowercase(),
        SHA1_CHARS => {
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes);
            colons(digest.as_ref()) == expected.to_ascii_lowercase()
        }
        _ => {
            let actual = key.fingerprint(HashAlg::Sha256).to_string();
            actual.strip_prefix("SHA256:") == Some(expected.trim_end_matches('='))
        }
    }
}

/// Whether two secrets are the same, in a time that says nothing of where they differ.
#[must_use]
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    // Of digests nobody can choose how they begin.
    digest(&SHA256, one.as_bytes()).as_ref() == digest(&SHA256, other.as_bytes()).as_ref()
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| hex::encode([*byte])).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ssh-keygen -t ed25519`; its fingerprints are those of `ssh-keygen -l -E`.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPwvRwpmG25cPNTbuYblTLjd/hy8Hc5O1/JOj8e3CZ4V";

    #[test]
    fn a_key_fits_in_each_form() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        for expected in [
            "c1:84:68:f9:92:fb:10:aa:dd:2d:0c:e9:df:d3:89:8f",
            "MD5:c1:84:68:f9:92:fb:10:aa:dd:2d:0c:e9:df:d3:89:8f",
            "31:31:78:33:38:eb:39:1b:08:4e:38:f7:ac:27:a3:cd:a3:94:4a:71",
            "auhj7nyyR7mEDCcKU8eMjHEkkhwiLFWj7RwTI+lmK7Y",
            "auhj7nyyR7mEDCcKU8eMjHEkkhwiLFWj7RwTI+lmK7Y=",
            "SHA256:auhj7nyyR7mEDCcKU8eMjHEkkhwiLFWj7RwTI+lmK7Y",
        ] {
            assert!(fits(expected, &key), "{expected}");
        }
        let upper = "c1:84:68:f9:92:fb:10:aa:dd:2d:0c:e9:df:d3:89:8f".to_ascii_uppercase();
        assert!(fits(&upper, &key));
        for other in [
            "",
            "=",
            "auhj7nyyR7mEDCcKU8eMjHEkkhwiLFWj7RwTI+lmK7Y".to_lowercase().as_str(),
            &"00:".repeat(15),
            &"a".repeat(47),
        ] {
            assert!(!fits(other, &key), "{other}");
        }
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        assert!(is_same("", "") && is_same("pw", "pw"));
        assert!(!is_same("pw", "pw ") && !is_same("pw", ""));
    }
}
