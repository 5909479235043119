//! What a download must add up to.

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::DownloadError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    /// Of image layers only: validation refuses it elsewhere.
    Sha512,
}

/// An algorithm and its value: hexadecimal in lower case, and of the right length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    algorithm: Algorithm,
    value: String,
}

impl Checksum {
    /// None where neither is given. The value is hexadecimal, with or without quotes around it.
    pub(super) fn parse(algorithm: &str, value: &str) -> Result<Option<Self>, DownloadError> {
        let (algorithm, length) = match algorithm.to_ascii_lowercase().as_str() {
            "" if value.is_empty() => return Ok(None),
            "md5" => (Algorithm::Md5, 16),
            "sha1" => (Algorithm::Sha1, 20),
            "sha256" => (Algorithm::Sha256, 32),
            "sha512" => (Algorithm::Sha512, 64),
            _ => return Err(DownloadError::Algorithm(algorithm.to_owned())),
        };
        let decoded = hex::decode(value.trim_matches('"')).ok();
        match decoded.filter(|value| value.len() == length) {
            Some(value) => Ok(Some(Self { algorithm, value: hex::encode(value) })),
            None => Err(DownloadError::Value(value.to_owned())),
        }
    }

    pub(super) fn sum(&self) -> Sum {
        match self.algorithm {
            Algorithm::Md5 => Sum::Md5(Md5::new()),
            Algorithm::Sha1 => Sum::Sha1(Sha1::new()),
            Algorithm::Sha256 => Sum::Sha256(Sha256::new()),
            Algorithm::Sha512 => Sum::Sha512(Sha512::new()),
        }
    }

    pub(super) fn verify(&self, sum: Sum) -> Result<(), DownloadError> {
        let got = hex::encode(sum.finish());
        if got == self.value {
            return Ok(());
        }
        Err(DownloadError::Mismatch { expected: self.value.clone(), got })
    }
}

/// A sum being made.
#[derive(Clone, Debug)]
pub(super) enum Sum {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Sum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(sum) => sum.update(bytes),
            Self::Sha1(sum) => sum.update(bytes),
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Md5(sum) => sum.finalize().to_vec(),
            Self::Sha1(sum) => sum.finalize().to_vec(),
            Self::Sha256(sum) => sum.finalize().to_vec(),
            Self::Sha512(sum) => sum.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(algorithm: &str, value: &str, content: &str) -> String {
        let verified = Checksum::parse(algorithm, value).and_then(|checksum| {
            let checksum = checksum.expect("one is given");
            let mut sum = checksum.sum();
            content.as_bytes().chunks(2).for_each(|piece| sum.update(piece));
            checksum.verify(sum)
        });
        verified.map_or_else(|error| error.to_string(), |()| "verified".to_owned())
    }

    // Values of "hello": md5sum, sha1sum, sha256sum of coreutils.
    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";
    const SHA1: &str = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
    const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn each_algorithm_verifies_its_value() {
        for (algorithm, value) in [("md5", MD5), ("sha1", SHA1), ("sha256", SHA256)] {
            assert_eq!(verify(algorithm, value, "hello"), "verified");
            assert_eq!(
                verify(&algorithm.to_uppercase(), &value.to_uppercase(), "hello"),
                "verified"
            );
            assert_eq!(verify(algorithm, &format!("{value:?}"), "hello"), "verified");
            let refused = verify(algorithm, value, "hell");
            assert!(refused.starts_with(&format!("checksum mismatch: expected {value}, got ")));
        }
        let sha512 = hex::encode(Sha512::digest("hello"));
        assert_eq!(verify("sha512", &sha512, "hello"), "verified");
    }

    #[test]
    fn what_is_no_checksum_is_refused() {
        assert!(matches!(Checksum::parse("", ""), Ok(None)));
        expect_test::expect![[r#"checksum algorithm "crc32" is not one of md5, sha1, sha256"#]]
            .assert_eq(&verify("crc32", "00", ""));
        expect_test::expect![[r#"checksum algorithm "" is not one of md5, sha1, sha256"#]]
            .assert_eq(&verify("", MD5, ""));
        for value in ["", "5d4", "xx41402abc4b2a76b9719d911017c592", SHA1] {
            assert_eq!(verify("md5", value, ""), format!("checksum value {value:?} is none"));
        }
    }
}
