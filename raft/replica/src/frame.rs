//! The frame around every value on disk: a checksum over key, version and body, so that a torn,
//! flipped or misplaced record is never believed.
//!
//! `crc32 (4 bytes, little endian) | version (1 byte) | body`

use std::io;

use model::mutant;

/// What the checksum, the version and the length of a frame take.
const HEAD: usize = 5;

/// Frames `body` as the value of `key`.
pub(crate) fn seal(key: &[u8], version: u8, body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(HEAD + body.len());
    framed.extend_from_slice(&checksum(key, version, body).to_le_bytes());
    framed.push(version);
    framed.extend_from_slice(body);
    framed
}

/// The body of the frame stored under `key`, which must be of `version`.
pub(crate) fn open<'a>(
    what: &str,
    key: &[u8],
    version: u8,
    framed: &'a [u8],
) -> io::Result<&'a [u8]> {
    let Some((head, body)) = framed.split_at_checked(HEAD) else {
        return Err(damaged(format!("{what} is cut off after {} bytes", framed.len())));
    };
    let stored = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let found = head[4];
    if stored != checksum(key, found, body) && !mutant!("checksum-ignored") {
        return Err(damaged(format!("{what} does not match its checksum: the disk is damaged")));
    }
    if found != version {
        return Err(damaged(format!(
            "{what} is of version {found}, this program reads version {version}"
        )));
    }
    Ok(body)
}

/// An error about bytes that cannot be right.
pub(crate) fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn checksum(key: &[u8], version: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[version]);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_opens_only_whole_under_its_own_key() {
        let framed = seal(b"key", 1, b"body");
        assert_eq!(open("it", b"key", 1, &framed).unwrap(), b"body");
        for length in 0..framed.len() {
            assert!(open("it", b"key", 1, &framed[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..framed.len() * 8 {
            let mut flipped = framed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open("it", b"key", 1, &flipped).is_err(), "bit {bit}");
        }
        let elsewhere = open("log entry 7", b"yek", 1, &framed).unwrap_err();
        assert_eq!(
            elsewhere.to_string(),
            "log entry 7 does not match its checksum: the disk is damaged"
        );
    }

    #[test]
    fn another_version_is_named() {
        let framed = seal(b"key", 2, b"body");
        assert_eq!(
            open("the vote", b"key", 1, &framed).unwrap_err().to_string(),
            "the vote is of version 2, this program reads version 1"
        );
    }
}
