//! Images: references, registries, and the content-addressed store of unpacked layers.
