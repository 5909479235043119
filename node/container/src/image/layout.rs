//! Makes images: tars, a config and a manifest, in memory. For the sample app and for tests;
//! people build theirs with tools of their own. The same input gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use oci_distribution::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
    OciImageManifest,
};
use serde_json::{Map, Value, json};

use crate::image::{Digest, ImageConfig, manifest};

/// An OCI image in memory.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The manifest's bytes; their digest is the image's.
    pub manifest: Bytes,
    /// Media type of the manifest.
    pub media_type: String,
    /// Config and layers.
    pub blobs: BTreeMap<Digest, Bytes>,
}

impl Packed {
    /// The image's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// One layer as the registry holds it.
#[derive(Debug, Clone)]
pub struct PackedLayer {
    /// How the bytes are packed.
    pub media_type: String,
    /// The tar, packed.
    pub bytes: Bytes,
    /// Digest of the tar, unpacked.
    pub diff_id: Digest,
}

impl PackedLayer {
    /// A tar, compressed with gzip, without a time or a name in its header.
    ///
    /// # Errors
    /// None in practice: memory takes all that is written to it.
    pub fn gzip(tar: &[u8]) -> io::Result<Self> {
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
        gzip.write_all(tar)?;
        Ok(Self {
            media_type: IMAGE_LAYER_GZIP_MEDIA_TYPE.to_owned(),
            bytes: gzip.finish()?.into(),
            diff_id: Digest::of(tar),
        })
    }
}

/// An image for machines like this one that holds one program: a static binary at `path`
/// (absolute), and nothing else. What `config` does not say, the image does not say.
///
/// # Errors
/// A `path` that a tar cannot hold.
pub fn pack_program(path: &str, program: &[u8], config: &ImageConfig) -> io::Result<Packed> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    tar.append_data(&mut header, path.trim_start_matches('/'), program)?;
    let layer = PackedLayer::gzip(&tar.into_inner()?)?;
    pack(&[layer], config)
}

/// An image for machines like this one, of these layers, lowest first.
///
/// # Errors
/// None in practice: the documents are plain data.
pub fn pack(layers: &[PackedLayer], config: &ImageConfig) -> io::Result<Packed> {
    let platform = manifest::this_platform();
    let (os, architecture) = platform.split_once('/').unwrap_or_default();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config: Bytes = serde_json::to_vec(&json!({
        "os": os,
        "architecture": architecture,
        "config": run(config),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))?
    .into();
    let manifest = OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
        config: descriptor(IMAGE_CONFIG_MEDIA_TYPE, &config),
        layers: layers.iter().map(|layer| descriptor(&layer.media_type, &layer.bytes)).collect(),
        ..OciImageManifest::default()
    };
    let blobs = layers.iter().map(|layer| &layer.bytes).chain([&config]);
    Ok(Packed {
        manifest: serde_json::to_vec(&manifest)?.into(),
        media_type: OCI_IMAGE_MEDIA_TYPE.to_owned(),
        blobs: blobs.map(|bytes| (Digest::of(bytes), bytes.clone())).collect(),
    })
}

pub(super) fn descriptor(media_type: &str, bytes: &Bytes) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size: i64::try_from(bytes.len()).expect("a slice is no longer than isize::MAX"),
        ..OciDescriptor::default()
    }
}

/// The `config` object of an image's config.
fn run(config: &ImageConfig) -> Map<String, Value> {
    let tcp = config.exposed_ports.iter().map(|port| format!("{port}/tcp"));
    let udp = config.exposed_udp_ports.iter().map(|port| format!("{port}/udp"));
    let ports: Map<_, _> = tcp.chain(udp).map(|port| (port, json!({}))).collect();
    let volumes: Map<_, _> = config.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
    [
        ("Entrypoint", json!(config.entrypoint)),
        ("Cmd", json!(config.cmd)),
        ("Env", json!(config.env)),
        ("User", json!(config.user)),
        ("WorkingDir", json!(config.working_dir)),
        ("ExposedPorts", Value::Object(ports)),
        ("Volumes", Value::Object(volumes)),
        ("Labels", json!(config.labels)),
        ("StopSignal", json!(config.stop_signal)),
    ]
    .into_iter()
    .filter(|(_, value)| !is_empty(value))
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::Config;

    #[test]
    fn the_same_input_gives_the_same_image_and_the_config_reads_back() {
        let config = ImageConfig {
            entrypoint: vec!["/hello".to_owned()],
            env: vec!["A=1".to_owned()],
            user: "1000".to_owned(),
            exposed_ports: vec![80, 8080],
            exposed_udp_ports: vec![53],
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..ImageConfig::default()
        };
        let packed = pack_program("/hello", b"program", &config).unwrap();
        let again = pack_program("/hello", b"program", &config).unwrap();
        assert_eq!(packed.digest(), again.digest());
        let raw: OciImageManifest = serde_json::from_slice(&packed.manifest).unwrap();
        let bytes = &packed.blobs[&raw.config.digest.parse().unwrap()];
        assert_eq!(Config::parse(bytes).unwrap().image, config);
    }
}
