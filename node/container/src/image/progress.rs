//! How a pull tells how far it is.

use crate::image::Digest;

/// Told how a pull goes, layer by layer, so that a person can be shown a bar. Called from within
/// the pull: it must return at once. Layers come in any order and at the same time; `layer` is
/// the digest in the manifest.
///
/// A layer that the store has already is started and done with nothing between. Advances of one
/// layer never add up to more than its bytes; they need not add up to all, as the last ones are
/// merged when they come fast.
pub trait Progress: Send + Sync {
    /// The layer is wanted; so many compressed bytes make it up.
    fn started(&self, _layer: Digest, _bytes: u64) {}
    /// So many more compressed bytes have come.
    fn advanced(&self, _layer: Digest, _bytes: u64) {}
    /// The layer is on the disk, verified.
    fn done(&self, _layer: Digest) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
