//! Removes what no kept image needs. When to collect, and what to keep, is for the caller.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::image::steps::step;
use crate::image::store::{Store, lock, on_a_thread};
use crate::image::{Digest, Error};
use crate::limits::LAYER_FETCH_MAX;

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
                self.remove_document(digest, &path)?;
            }
        }
        for path in doomed {
            on_a_thread(&path.clone(), move || fs::remove_dir_all(path)).await?;
        }
        Ok(collected)
    }

    /// Removes layers until those that are left are within `bytes_max`: the longest unused first,
    /// and none that an image in `keep` has, an [`Image`](crate::image::Image) value that is alive,
    /// or a pull under way. Documents of images that lack a layer then go, too, once they are old.
    ///
    /// # Errors
    /// [`Error::Disk`]. What was removed until then stays removed; the store is whole.
    pub async fn trim(&self, bytes_max: u64, keep: &BTreeSet<Digest>) -> Result<Collected, Error> {
        let mut kept = BTreeSet::new();
        for digest in keep {
            if let Some((_, diff_ids)) = self.inner.kept(*digest)? {
                kept.extend(diff_ids);
            }
        }
        let (mut total, mut found) = (0_u64, Vec::new());
        for (diff_id, path) in self.named(&self.inner.dir.join("layers"))? {
            let bytes = self.inner.layer_bytes(diff_id).unwrap_or_default();
            total = total.saturating_add(bytes);
            found.push((self.inner.last_used(diff_id), diff_id, bytes, path));
        }
        found.sort();
        let mut collected = Collected::default();
        let mut doomed = Vec::new();
        for (_, diff_id, bytes, path) in found {
            if total <= bytes_max {
                break;
            }
            // Between this look at the leases and the rename no pull may take one.
            let leases = lock(&self.inner.leases);
            if kept.contains(&diff_id) || leases.contains_key(&diff_id) {
                continue;
            }
            let away = self.inner.incomplete_path(diff_id);
            fs::rename(&path, &away).map_err(Error::disk(&path))?;
            drop(leases);
            step("layer taken away");
            doomed.push(away);
            total = total.saturating_sub(bytes);
            collected.layers += 1;
            collected.bytes = collected.bytes.saturating_add(bytes);
        }
        for path in doomed {
            on_a_thread(&path.clone(), move || fs::remove_dir_all(path)).await?;
        }
        if collected.layers > 0 {
            self.trim_documents(keep)?;
        }
        Ok(collected)
    }

    fn trim_documents(&self, keep: &BTreeSet<Digest>) -> Result<(), Error> {
        let found = self.named(&self.inner.dir.join("blobs"))?;
        let mut needed = keep.clone();
        for (digest, _) in &found {
            if let Some((config, diff_ids)) = self.inner.kept(*digest)? {
                let is_here = |diff_id: &Digest| self.inner.layer_dir(*diff_id).exists();
                if keep.contains(digest) || diff_ids.iter().all(is_here) {
                    needed.extend([*digest, config]);
                }
            }
        }
        for (digest, path) in found {
            let age = fs::metadata(&path).and_then(|found| found.modified());
            let age = age.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
            // A younger one may be a pull's that is under way.
            if !needed.contains(&digest) && age > LAYER_FETCH_MAX {
                self.remove_document(digest, &path)?;
            }
        }
        Ok(())
    }

    /// A document goes after its proofs, which nothing else would remove.
    fn remove_document(&self, digest: Digest, path: &Path) -> Result<(), Error> {
        self.inner.proofs(digest).forget().map_err(Error::disk(path))?;
        fs::remove_file(path).map_err(Error::disk(path))
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
