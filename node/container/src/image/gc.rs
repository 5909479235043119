//! Removes what no kept image needs. When to collect, and what to keep, is for the caller.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::image::store::{Store, lock, on_a_thread};
use crate::image::{Digest, Error};

/// What a collection has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers removed.
    pub layers: usize,
    /// Length of their files together.
    pub bytes: u64,
}

impl Store {
    /// Removes every layer and document that is neither of an image in `keep` (digests of
    /// manifests) nor of an [`Image`](crate::image::Image) value that is alive, nor of a pull
    /// under way. As in Diego all of these go at once; which to keep longer is the caller's
    /// choice.
    ///
    /// # Errors
    /// [`Error::Disk`]. What was removed until then stays removed; the store is whole.
    pub async fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Collected, Error> {
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for digest in keep {
            if let Some((config, diff_ids)) = self.inner.kept(*digest)? {
                blobs.extend([*digest, config]);
                layers.extend(diff_ids);
            }
        }
        let mut collected = Collected::default();
        let mut doomed = Vec::new();
        for (diff_id, path) in self.named(&self.inner.dir.join("layers"))? {
            let bytes = self.inner.layer_bytes(diff_id).unwrap_or_default();
            // Between this look at the leases and the rename no pull may take one.
            let leases = lock(&self.inner.leases);
            if layers.contains(&diff_id) || leases.contains_key(&diff_id) {
                continue;
            }
            let away = self.inner.incomplete_path(diff_id);
            fs::rename(&path, &away).map_err(Error::disk(&path))?;
            drop(leases);
            doomed.push(away);
            collected.layers += 1;
            collected.bytes = collected.bytes.saturating_add(bytes);
        }
        for (digest, path) in self.named(&self.inner.dir.join("blobs"))? {
            if !blobs.contains(&digest) {
                fs::remove_file(&path).map_err(Error::disk(&path))?;
            }
        }
        for path in doomed {
            on_a_thread(&path.clone(), move || fs::remove_dir_all(path)).await?;
        }
        Ok(collected)
    }

    /// The entries of a directory that are named by digests.
    fn named(&self, dir: &Path) -> Result<Vec<(Digest, PathBuf)>, Error> {
        let mut named = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::disk(dir))? {
            let path = entry.map_err(Error::disk(dir))?.path();
            let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(digest) = format!("sha256:{hex}").parse() {
                named.push((digest, path));
            }
        }
        Ok(named)
    }
}
