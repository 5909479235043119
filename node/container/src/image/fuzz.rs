//! What a fuzzer asks of the image code: functions over bytes that panic where a promise breaks.
//! Only in builds with the feature `fuzz`; `tests/fuzz` drives them and replays the corpus.
//!
//! Bytes never reach the real file system: what unpacks does so in a [`cage`].

mod cage;

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use self::cage::{ROOT, in_cage};
use crate::image::config::Config;
use crate::image::layer::{Ended, Piece, receive_within};
use crate::image::manifest::{self, Blob, Compression, Document, Layer};
use crate::image::unpack::{Bounds, Fault, Meaning, unpack, unpack_as};
use crate::image::{Digest, LayerFault, Reference};
use crate::limits::{CONFIG_BYTES_MAX, IMAGE_LAYERS_MAX, INDEX_ENTRIES_MAX};

/// Small, so that an execution is short.
const BOUNDS: Bounds = Bounds { bytes: 1 << 20, entries: 200 };

/// A layer's tar. The first byte is a switch: odd mends the headers' checksums, which a fuzzer
/// does not guess.
pub fn layer(bytes: &[u8]) {
    check_tar(Meaning::Layer, bytes);
}

/// An archive that is no layer, as a recipe downloads it: the same form.
pub fn archive(bytes: &[u8]) {
    check_tar(Meaning::Whole, bytes);
}

fn check_tar(meaning: Meaning, bytes: &[u8]) {
    let Some((switch, tar)) = bytes.split_first() else { return };
    let mut tar = tar.to_vec();
    if switch % 2 == 1 {
        mend_checksums(&mut tar);
    }
    let unpack_from = move |input: &mut dyn Read| {
        let result = match meaning {
            Meaning::Layer => unpack(input, Path::new(ROOT), BOUNDS),
            Meaning::Whole => unpack_as(Meaning::Whole, input, Path::new(ROOT), BOUNDS),
        };
        if let Err(Fault::Disk { .. } | Fault::Input(_)) = &result {
            panic!("the disk is well and the input is read: {result:?}");
        }
        result
    };
    in_cage(move |cage| {
        let result = unpack_from(&mut tar.as_slice());
        let listing = cage.check(BOUNDS.bytes);
        if let Ok(bytes) = result {
            assert!(listing.bytes <= bytes, "{} bytes, said to be {bytes}", listing.bytes);
        }
        cage.clear();
        // However the bytes arrive, they mean the same.
        let again = unpack_from(&mut Dribble { rest: &tar, step: 0 });
        assert_eq!(format!("{result:?}"), format!("{again:?}"));
        let listing_again = cage.check(BOUNDS.bytes);
        // What a failure leaves half-way is rubbish.
        if result.is_ok() {
            assert_eq!(listing, listing_again);
        }
    });
}

/// Gives a few bytes at a time, as a network does.
struct Dribble<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.step = (self.step + 97) % 512;
        let got = (self.step + 1).min(self.rest.len()).min(buffer.len());
        buffer[..got].copy_from_slice(&self.rest[..got]);
        self.rest = &self.rest[got..];
        Ok(got)
    }
}

/// Writes the right checksum into each header, as far as their sizes lead from one to the next.
fn mend_checksums(tar: &mut [u8]) {
    let mut rest = tar;
    while rest.len() >= 512 {
        let (header, after) = rest.split_at_mut(512);
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[124..136].iter().take_while(|byte| matches!(byte, b'0'..=b'7'));
        let size = digits.fold(0, |size: usize, digit| size * 8 + usize::from(digit - b'0'));
        let has_body = !matches!(header[156], b'1'..=b'6');
        let skipped = if has_body { size.next_multiple_of(512) } else { 0 };
        rest = after.get_mut(skipped..).unwrap_or_default();
    }
}

/// A layer's body as a registry sends it: the first byte chooses the compression, the second the
/// length of the pieces.
pub fn stream(bytes: &[u8]) {
    let [compression, piece, body @ ..] = bytes else { return };
    let compression =
        [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(compression % 3)];
    let piece = usize::from(*piece) + 1;
    let body = Bytes::copy_from_slice(body);
    let digest = Digest::of(&body);
    let receive = move |digest, diff_id| {
        let (sender, receiver) = tokio::sync::mpsc::channel(body.len() / piece + 2);
        let pieces = body.chunks(piece).map(|piece| Piece::Bytes(body.slice_ref(piece)));
        for piece in pieces.chain([Piece::End]) {
            assert!(sender.try_send(piece).is_ok(), "there is room");
        }
        let layer = Layer { blob: Blob { digest, bytes: body.len() as u64 }, compression };
        receive_within(BOUNDS, receiver, layer, diff_id, Path::new(ROOT))
    };
    in_cage(move |cage| {
        let nothing = Digest::of(b"no tar has this");
        let fault = match receive(digest, nothing) {
            Ok(bytes) => panic!("{bytes} bytes with a wrong diff id"),
            Err(Ended::Fault(fault)) => fault,
            Err(ended) => panic!("the disk is well and the input is read: {ended:?}"),
        };
        cage.check(BOUNDS.bytes);
        assert!(!matches!(fault, LayerFault::Digest { .. }), "{fault:?}");
        cage.clear();
        let LayerFault::DiffId { actual, .. } = fault else { return };
        let received = receive(digest, actual);
        assert!(received.is_ok(), "the diff id is right: {received:?}");
        cage.check(BOUNDS.bytes);
        cage.clear();
        let wrong = receive(nothing, actual);
        assert!(
            matches!(wrong, Err(Ended::Fault(LayerFault::Digest { .. }))),
            "the digest is wrong: {wrong:?}"
        );
    });
}

/// An image's config.
pub fn config(bytes: &[u8]) {
    let Ok(config) = Config::parse(bytes) else { return };
    assert!(config.diff_ids.len() <= IMAGE_LAYERS_MAX);
    for ports in [&config.image.exposed_ports, &config.image.exposed_udp_ports] {
        assert!(ports.is_sorted_by(|low, high| low < high), "{ports:?}");
    }
    let written = config_json(&config).to_string();
    let again = Config::parse(written.as_bytes()).expect("what is written reads back");
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
}

fn config_json(config: &Config) -> Value {
    use crate::image::HealthcheckTest::{Exec, Off, Shell};
    let image = &config.image;
    let ports = |ports: &[u16], protocol| -> Vec<String> {
        ports.iter().map(|port| format!("{port}/{protocol}")).collect()
    };
    let exposed =
        [ports(&image.exposed_ports, "tcp"), ports(&image.exposed_udp_ports, "udp")].concat();
    let set = |names: Vec<String>| -> Value {
        names.into_iter().map(|name| (name, json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let nanos = |time: Option<std::time::Duration>| {
        time.and_then(|time| u64::try_from(time.as_nanos()).ok())
    };
    let check = image.healthcheck.as_ref().map(|check| {
        let test = match &check.test {
            Off => vec!["NONE".to_owned()],
            Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
            Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        json!({"Test": test, "Interval": nanos(check.interval), "Timeout": nanos(check.timeout),
               "StartPeriod": nanos(check.start_period), "Retries": check.retries})
    });
    let diff_ids: Vec<String> = config.diff_ids.iter().map(Digest::to_string).collect();
    json!({
        "os": config.os, "architecture": config.architecture,
        "rootfs": {"diff_ids": diff_ids},
        "config": {
            "Entrypoint": image.entrypoint, "Cmd": image.cmd, "Env": image.env,
            "User": image.user, "WorkingDir": image.working_dir, "ExposedPorts": set(exposed),
            "Labels": image.labels, "Volumes": set(image.volumes.iter().cloned().collect()),
            "StopSignal": image.stop_signal, "Healthcheck": check,
        },
    })
}

/// A manifest or an index, after a first line with the answer's content type.
pub fn manifest(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (content_type, document) = bytes.split_at(line);
    let Ok(content_type) = str::from_utf8(content_type) else { return };
    let Ok(document) = manifest::parse(document, content_type) else { return };
    let written = match &document {
        Document::Image(image) => {
            assert!(image.layers.len() <= IMAGE_LAYERS_MAX);
            assert!(image.config.bytes <= CONFIG_BYTES_MAX);
            let layers: Vec<Value> = image.layers.iter().map(layer_json).collect();
            let config = json!({
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": image.config.digest.to_string(), "size": image.config.bytes,
            });
            json!({"schemaVersion": 2, "config": config, "layers": layers})
        }
        Document::Index(entries) => {
            assert!(entries.len() <= INDEX_ENTRIES_MAX);
            if let Some(picked) = manifest::pick(entries, "linux/amd64") {
                let rest = picked.platform.strip_prefix("linux/amd64");
                assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
            }
            return;
        }
    };
    let again = manifest::parse(written.to_string().as_bytes(), "");
    let again = again.expect("what is written reads back");
    assert_eq!(format!("{document:?}"), format!("{again:?}"));
}

fn layer_json(layer: &Layer) -> Value {
    let suffix = match layer.compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    json!({
        "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
        "digest": layer.blob.digest.to_string(), "size": layer.blob.bytes,
    })
}

/// An image's name, as a `rootfs` and as `docker pull` takes it.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let names = [Reference::from_rootfs(text), Reference::from_docker_name(text)];
    for reference in names.into_iter().flatten() {
        let (rootfs, name) = (reference.to_rootfs(), reference.to_string());
        assert_eq!(Reference::from_rootfs(&rootfs).as_ref().ok(), Some(&reference), "{rootfs}");
        // A host without a dot is a registry in a URL only.
        let registry = reference.registry();
        if registry.contains(['.', ':']) || registry == "localhost" {
            let read = Reference::from_docker_name(&name);
            assert_eq!(read.as_ref().ok(), Some(&reference), "{name}");
        }
        // What is asked of the registry is the manifest of this repository and nothing else.
        let (repository, version) = (reference.repository(), reference.version());
        let path = format!("/v2/{repository}/manifests/{version}");
        if let Ok(url) = reqwest::Url::parse(&format!("https://{}{path}", reference.endpoint())) {
            assert_eq!(url.path(), path);
            assert!(url.query().is_none(), "{url}");
            assert!(url.fragment().is_none(), "{url}");
            assert!(url.username().is_empty(), "{url}");
        }
    }
}
