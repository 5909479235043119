//! Who may have what the store has. A digest is no secret: whoever knows it could name it in a
//! recipe, or in an image of his own at a registry of his own, and would get from the disk what its
//! registry would not give him. So nothing on the disk is used for an image before that image's
//! registry has given it once:
//!
//! - a document (manifest, index, config) to this repository's user: what the recipe names, or
//!   whoever the node is to that repository;
//! - a layer to an image of the same registry, by the same digest in its manifest. A registry takes
//!   no manifest from somebody who may not read its layers (OCI distribution specification,
//!   "Pushing Manifests"), so that who may read the manifest may read these. Another registry has to
//!   send the bytes.
//!
//! What was given once is not asked for again: a registry that is away stops no restart, and one
//! that has turned a user away since does not stop him here. Kubernetes: KEP-2535.
//!
//! Proofs are empty files named by digests, so that they can be lost and not be half there. A
//! password is in its name only together with a key that is not on this disk ([`ProofKey`]).

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::image::{Credentials, Digest, Reference};
use crate::limits::PROOFS_MAX;

/// Keeps what proofs are named by from being guessed back to passwords. The same over restarts,
/// or every user is asked for again. `Debug` hides it.
#[derive(Clone, Copy)]
pub struct ProofKey([u8; 32]);

impl ProofKey {
    /// From bytes that nobody else knows.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// One that nobody has had before.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofKey").finish_non_exhaustive()
    }
}

/// Whom a repository's documents are given to, as their proofs are named.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// The recipe's own user, where it has one.
    own: Option<Digest>,
    /// Whoever this node is to the repository: every recipe may be that.
    node: Digest,
}

impl Asker {
    /// `node` is the node's user, of which the name is enough: his password comes from a file of
    /// the operator's, not from whoever asks.
    pub(super) fn new(
        key: &ProofKey,
        image: &Reference,
        own: Option<&Credentials>,
        node: Option<&Credentials>,
    ) -> Self {
        let (registry, repository) = (image.registry(), image.repository());
        let own = own.map(|Credentials { username, password }| {
            name(&[
                b"own",
                &key.0,
                registry.as_bytes(),
                repository.as_bytes(),
                username.as_bytes(),
                password.as_bytes(),
            ])
        });
        let username = node.map_or("", |user| &user.username);
        let node =
            name(&[b"node", registry.as_bytes(), repository.as_bytes(), username.as_bytes()]);
        Self { own, node }
    }
}

/// Where a layer is from: who had it by this digest.
pub(super) fn origin(image: &Reference, layer: Digest) -> Digest {
    name(&[b"layer", image.registry().as_bytes(), layer.to_string().as_bytes()])
}

/// One name for these parts, and for no others.
fn name(parts: &[&[u8]]) -> Digest {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    Digest::of(&text)
}

/// Proofs of one thing: a directory of empty files, of which the oldest go.
#[derive(Debug)]
pub(super) struct Proofs {
    dir: PathBuf,
}

impl Proofs {
    pub(super) fn of(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn has(&self, name: Digest) -> bool {
        self.dir.join(name.hex()).exists()
    }

    /// Whether a document was given to him.
    pub(super) fn has_any(&self, asker: &Asker) -> bool {
        self.has(asker.node) || asker.own.is_some_and(|own| self.has(own))
    }

    /// A document was given to him.
    pub(super) fn add_asker(&self, asker: &Asker) -> io::Result<()> {
        self.add(asker.own.unwrap_or(asker.node))
    }

    /// Not synced: one that is lost is asked for again.
    pub(super) fn add(&self, name: Digest) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        File::create(self.dir.join(name.hex()))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let made = entry.metadata().and_then(|found| found.modified());
            found.push((made.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
        let excess = found.len().saturating_sub(PROOFS_MAX);
        if excess > 0 {
            found.sort();
            for (_, path) in found.drain(..excess) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Nobody was given it.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(username: &str, password: &str) -> Credentials {
        Credentials { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn a_proof_is_for_one_user_of_one_repository() {
        let key = ProofKey::new([7; 32]);
        let image = |name: &str| Reference::from_docker_name(name).unwrap();
        let own = |key: &ProofKey, name: &str, username: &str, password: &str| {
            Asker::new(key, &image(name), Some(&user(username, password)), None).own.unwrap()
        };
        let node = |name: &str, user: Option<&Credentials>| {
            Asker::new(&key, &image(name), None, user).node
        };
        let me = own(&key, "r.lan/app", "me", "hush");
        assert_eq!(me, own(&key, "r.lan/app:v2", "me", "hush"), "tags are of one repository");
        for other in [
            own(&ProofKey::new([8; 32]), "r.lan/app", "me", "hush"),
            own(&key, "r.lan/other", "me", "hush"),
            own(&key, "s.lan/app", "me", "hush"),
            own(&key, "r.lan/app", "you", "hush"),
            own(&key, "r.lan/app", "me", "guess"),
            own(&key, "r.lan/app", "meh", "ush"),
            node("r.lan/app", Some(&user("me", "hush"))),
        ] {
            assert_ne!(me, other);
        }
        let nobody = node("r.lan/app", None);
        assert_ne!(nobody, node("r.lan/app", Some(&user("me", "hush"))));
        assert_ne!(nobody, node("r.lan/other", None));
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(origin(&image("r.lan/app"), one), origin(&image("r.lan/other"), one));
        assert_ne!(origin(&image("r.lan/app"), one), origin(&image("s.lan/app"), one));
        assert_ne!(origin(&image("r.lan/app"), one), origin(&image("r.lan/app"), two));
    }

    #[test]
    fn proofs_are_bounded_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let proofs = Proofs::of(dir.path().join("of one"));
        let named = |n: usize| Digest::of(&n.to_be_bytes());
        for n in 0..PROOFS_MAX + 3 {
            proofs.add(named(n)).unwrap();
            let file = File::options().write(true).open(proofs.dir.join(named(n).hex())).unwrap();
            let age = std::time::Duration::from_secs((PROOFS_MAX + 3 - n) as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert_eq!(fs::read_dir(&proofs.dir).unwrap().count(), PROOFS_MAX);
        assert!(!proofs.has(named(0)) && !proofs.has(named(2)) && proofs.has(named(3)));
        proofs.forget().unwrap();
        assert!(!proofs.has(named(3)));
        proofs.forget().unwrap();
    }
}
