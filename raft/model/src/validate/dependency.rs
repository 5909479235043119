//! Cached dependencies and image layers.

use super::BadFields;
use crate::dependency::{CachedDependency, DigestAlgorithm, ImageLayer, LayerMediaType, LayerType};

pub(super) fn cached_dependencies(bad: &mut BadFields, dependencies: &[CachedDependency]) {
    for dependency in dependencies {
        let mut of_one = BadFields::default();
        of_one.field("from", dependency.from.is_empty());
        of_one.field("to", dependency.to.is_empty());
        checksum(&mut of_one, &dependency.checksum_algorithm, &dependency.checksum_value);
        bad.part("cached_dependency", of_one);
    }
}

/// Exclusive layers are unpacked by a user, who must be named.
pub(super) fn image_layers(bad: &mut BadFields, layers: &[ImageLayer], download_user: &str) {
    for layer in layers {
        let is_exclusive = layer.layer_type == LayerType::Exclusive;
        let has_algorithm = layer.digest_algorithm != DigestAlgorithm::Invalid;
        let has_value = !layer.digest_value.is_empty();
        let mut of_one = BadFields::default();
        of_one.field("url", layer.url.is_empty());
        of_one.field("destination_path", layer.destination_path.is_empty());
        of_one.field("layer_type", layer.layer_type == LayerType::LayerTypeInvalid);
        of_one.field("media_type", layer.media_type == LayerMediaType::MediaTypeInvalid);
        of_one.field("digest_algorithm", (has_value || is_exclusive) && !has_algorithm);
        of_one.field("digest_value", (has_algorithm || is_exclusive) && !has_value);
        // Diego asks twice.
        of_one.field("digest_algorithm", has_value && !has_algorithm);
        bad.part("image_layer", of_one);
    }
    let is_any_exclusive = layers.iter().any(|layer| layer.layer_type == LayerType::Exclusive);
    bad.field("legacy_download_user", is_any_exclusive && download_user.is_empty());
}

pub(super) fn checksum(bad: &mut BadFields, algorithm: &str, value: &str) {
    let is_known = ["md5", "sha1", "sha256"].iter().any(|it| algorithm.eq_ignore_ascii_case(it));
    bad.field("checksum algorithm", algorithm.is_empty() && !value.is_empty());
    bad.field("checksum value", !algorithm.is_empty() && value.is_empty());
    bad.field("invalid algorithm", !algorithm.is_empty() && !value.is_empty() && !is_known);
}
