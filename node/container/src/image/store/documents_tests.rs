//! What registries offer besides one image in gzip: indexes, formats of the past, other packings,
//! documents that are not what they are named by, layers that end in mid-way or come all at once.

use std::sync::Mutex as Lock;
use std::sync::atomic::AtomicUsize;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::RANGE;
use hyper::{Response, StatusCode};
use oci_distribution::manifest::{IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::registry_tests::{image, is_layer, pull, quick, registry, store};
use super::*;
use crate::image::layout::{Packed, PackedLayer, pack};
use crate::image::serve::{Body, Registry, answer, refusal, serve_with};
use crate::image::{ImageConfig, Silent};

/// `FILE.zst` by RFC 8878.
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A tar of one file of one letter.
fn tar_of(name: &str, bytes: usize) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &vec![b'a'; bytes][..]).unwrap();
    tar.into_inner().unwrap()
}

fn layer_of(media_type: &str, tar: &[u8]) -> PackedLayer {
    let bytes = match media_type {
        LAYER_ZSTD => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(tar, level)
        }
        IMAGE_LAYER_MEDIA_TYPE => tar.to_vec(),
        other => panic!("{other}"),
    };
    PackedLayer { media_type: media_type.to_owned(), bytes: bytes.into(), diff_id: Digest::of(tar) }
}

/// Serves these images, and other manifests: repository, version, media type, bytes.
async fn serve(images: &[(&str, &Packed)], manifests: &[(&str, &str, &str, Bytes)]) -> String {
    let mut registry = Registry::default();
    for (name, image) in images {
        registry.add(name, "latest", image);
    }
    for (name, version, media, bytes) in manifests {
        registry.add_manifest(name, version, media, bytes.clone());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(registry.serve(listener));
    host
}

async fn pull_from(store: &Store, host: &str, name: &str) -> Result<Image, Error> {
    let reference = Reference::from_docker_name(&format!("{host}/{name}")).unwrap();
    store.pull(&reference, None, &Silent).await
}

/// An index as BuildKit makes it: each image with an attestation beside it.
fn index(images: &[(&str, &Packed)]) -> Bytes {
    let mut entries = Vec::new();
    for (platform, image) in images {
        let (os, architecture) = platform.split_once('/').unwrap();
        let of = image.digest().to_string();
        let entry = |digest: String, os: &str, architecture: &str, annotations: Value| {
            json!({
                "mediaType": image.media_type, "digest": digest, "size": image.manifest.len(),
                "platform": { "os": os, "architecture": architecture },
                "annotations": annotations,
            })
        };
        let nothing = Digest::of(platform.as_bytes()).to_string();
        let attestation = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": of,
        });
        entries.push(entry(nothing, "unknown", "unknown", attestation));
        entries.push(entry(of, os, architecture, json!({})));
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": entries,
    });
    serde_json::to_vec(&index).unwrap().into()
}

/// The image with other bytes for its config, and a manifest that names them.
fn with_config(image: &Packed, change: impl Fn(&str) -> String) -> Packed {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let old: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config: Bytes = change(std::str::from_utf8(&image.blobs[&old]).unwrap()).into();
    manifest["config"]["digest"] = json!(Digest::of(&config).to_string());
    manifest["config"]["size"] = json!(config.len());
    let mut blobs = image.blobs.clone();
    blobs.insert(Digest::of(&config), config);
    let manifest = serde_json::to_vec(&manifest).unwrap().into();
    Packed { manifest, media_type: image.media_type.clone(), blobs }
}

fn other_platform() -> &'static str {
    if manifest::this_platform() == "linux/arm64" { "linux/amd64" } else { "linux/arm64" }
}

#[tokio::test]
async fn an_index_leads_past_attestations_to_the_image_for_this_machine() {
    let (ours, _) = image();
    let (here, there) = (manifest::this_platform(), other_platform());
    let theirs = with_config(&ours, |config| {
        config.replace(here.split_once('/').unwrap().1, there.split_once('/').unwrap().1)
    });
    assert_ne!(ours.digest(), theirs.digest());
    let both = index(&[(there, &theirs), (&here, &ours)]);
    let foreign = index(&[(there, &theirs)]);
    let host = serve(
        &[("here", &ours), ("there", &theirs)],
        &[
            ("both", "latest", OCI_IMAGE_INDEX_MEDIA_TYPE, both),
            ("both", &ours.digest().to_string(), &ours.media_type, ours.manifest.clone()),
            ("foreign", "latest", OCI_IMAGE_INDEX_MEDIA_TYPE, foreign),
        ],
    )
    .await;
    let (_dir, store) = store(quick());
    assert_eq!(pull_from(&store, &host, "both").await.unwrap().digest, ours.digest());
    // In an index, and in an image that names its platform itself.
    for name in ["foreign", "there"] {
        let error = pull_from(&store, &host, name).await.unwrap_err().to_string();
        let expected = format!("{host}/{name}:latest has no image for {here}; it has {there}");
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn what_is_of_the_past_is_refused_with_what_to_do() {
    let schema_1 = json!({ "schemaVersion": 1, "name": "old", "fsLayers": [] }).to_string();
    let host = serve(&[], &[("old", "latest", SCHEMA_1, schema_1.into())]).await;
    let (_dir, store) = store(quick());
    let error = pull_from(&store, &host, "old").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{host}/old:latest: the image is in Docker's")), "{error}");
    assert!(error.contains("push it again with Docker 1.10 or newer, or convert it"), "{error}");

    // A registry of version 1 has `/v1/`, and nothing else.
    let (host, _) = registry(|request, _| {
        let is_known = request.uri.path().starts_with("/v1/");
        (!is_known).then(|| answer(StatusCode::NOT_FOUND, "text/plain", "no page".into()))
    })
    .await;
    let error = pull(&store, &host, None).await.unwrap_err().to_string();
    let expected = format!("{host} does not speak version 2 of the registry API");
    assert!(error.contains(&expected), "{error}");
    assert!(error.ends_with("push the image to one of version 2"), "{error}");
}

#[tokio::test]
async fn documents_are_what_they_are_named_by_or_refused() {
    let (_dir, store) = store(quick());
    let (packed, _) = image();
    let digest = packed.digest().to_string();
    let wanted = digest.clone();
    let (host, _) = registry(move |request, packed| {
        let other = [&packed.manifest[..], b"\n"].concat();
        request
            .uri
            .path()
            .ends_with(&wanted)
            .then(|| answer(StatusCode::OK, &packed.media_type, other.into()))
    })
    .await;
    let name = format!("{host}/app@{digest}");
    let reference = Reference::from_docker_name(&name).unwrap();
    let error = store.pull(&reference, None, &Silent).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{name}: manifest digest mismatch; expected: {digest}")),
        "{error}"
    );

    let config = |request: &hyper::http::request::Parts| {
        request.uri.path().contains("/blobs/") && !is_layer(request)
    };
    let (host, _) = registry(move |request, _| {
        config(request).then(|| answer(StatusCode::OK, "application/json", "{}".into()))
    })
    .await;
    let error = pull(&store, &host, None).await.unwrap_err().to_string();
    assert!(error.contains("config digest mismatch; expected: sha256:"), "{error}");

    // A config that names another tar than the layer's.
    let diff_id = Digest::of(b"another tar");
    let lying = with_config(&packed, |config| {
        let mut config: Value = serde_json::from_str(config).unwrap();
        config["rootfs"]["diff_ids"] = json!([diff_id.to_string()]);
        config.to_string()
    });
    let host = serve(&[("lying", &lying)], &[]).await;
    let error = pull_from(&store, &host, "lying").await.unwrap_err().to_string();
    assert!(error.contains(&format!("diffID digest mismatch; expected: {diff_id}")), "{error}");
    assert!(!store.inner.has_layer(diff_id));
}

#[tokio::test]
async fn documents_without_an_end_are_given_up() {
    let endless = || {
        let chunk = Bytes::from(vec![b' '; 1 << 20]);
        let chunks = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
        Response::new(BodyExt::boxed(StreamBody::new(chunks)))
    };
    for (what, path) in [("manifest", "/manifests/"), ("config", "/blobs/")] {
        let (host, _) = registry(move |request, _| {
            let is_it = request.uri.path().contains(path) && !is_layer(request);
            is_it.then(endless)
        })
        .await;
        let (_dir, store) = store(quick());
        let error = pull(&store, &host, None).await.unwrap_err().to_string();
        assert!(error.contains(&format!("rubbish for the {what}: it is longer than")), "{error}");
    }
}

#[tokio::test]
async fn layers_are_taken_in_gzip_in_zstd_and_plain() {
    let tars = ["gzip", "zstd", "plain"].map(|name| tar_of(name, 70_000));
    let layers = [
        PackedLayer::gzip(&tars[0]).unwrap(),
        layer_of(LAYER_ZSTD, &tars[1]),
        layer_of(IMAGE_LAYER_MEDIA_TYPE, &tars[2]),
    ];
    assert!(layers[1].bytes.len() < 10_000, "it is compressed");
    let packed = pack(&layers, &ImageConfig::default()).unwrap();
    let host = serve(&[("app", &packed)], &[]).await;
    let (_dir, store) = store(quick());
    let image = pull(&store, &host, None).await.unwrap();
    for (layer, name) in image.layers.iter().zip(["gzip", "zstd", "plain"]) {
        assert_eq!(fs::read(layer.join(name)).unwrap(), vec![b'a'; 70_000], "{name}");
    }
}

#[tokio::test]
async fn images_share_layers_and_only_the_new_one_is_fetched() {
    let layers =
        ["one", "two", "three"].map(|name| PackedLayer::gzip(&tar_of(name, 1000)).unwrap());
    let first = pack(&layers[..2], &ImageConfig::default()).unwrap();
    let second = pack(&layers, &ImageConfig::default()).unwrap();
    let mut offered = Registry::default();
    offered.add("first", "latest", &first);
    offered.add("second", "latest", &second);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (digests, asked) =
        (layers.map(|layer| Digest::of(&layer.bytes).to_string()), Lock::new(vec![]));
    let asked = Arc::new(asked);
    let log = Arc::clone(&asked);
    tokio::spawn(serve_with(listener, move |request| {
        let layer = digests.iter().position(|digest| request.uri.path().ends_with(digest));
        log.lock().unwrap().extend(layer);
        offered.answer(request)
    }));
    let (_dir, store) = store(quick());
    pull_from(&store, &host, "first").await.unwrap();
    let image = pull_from(&store, &host, "second").await.unwrap();
    assert_eq!(image.layers.len(), 3);
    let mut asked = asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2]);
}

#[tokio::test]
async fn layers_of_an_image_are_fetched_at_once() {
    let layers =
        ["one", "two", "three"].map(|name| PackedLayer::gzip(&tar_of(name, 1000)).unwrap());
    let packed = pack(&layers, &ImageConfig::default()).unwrap();
    let mut offered = Registry::default();
    offered.add("app", "latest", &packed);
    let digests = layers.map(|layer| (Digest::of(&layer.bytes).to_string(), layer.bytes));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // No layer comes before all are asked for.
    let asked = watch::Sender::new(0);
    tokio::spawn(serve_with(listener, move |request| {
        let layer = digests.iter().find(|(digest, _)| request.uri.path().ends_with(digest));
        let Some((_, bytes)) = layer else { return offered.answer(request) };
        asked.send_modify(|asked| *asked += 1);
        let (mut all, bytes) = (asked.subscribe(), bytes.clone());
        let body = futures_util::stream::once(async move {
            all.wait_for(|asked| *asked == 3).await.map_err(io::Error::other)?;
            Ok(Frame::data(bytes))
        });
        Response::new(BodyExt::boxed(StreamBody::new(body)))
    }));
    let (_dir, store) = store(quick());
    assert_eq!(pull(&store, &host, None).await.unwrap().layers.len(), 3);
}

/// How a registry goes on with a layer whose first half it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumes {
    FromTheStart,
    Elsewhere,
}

#[tokio::test]
async fn a_layer_is_whole_though_its_registry_does_not_resume_and_not_spoilt_if_it_resumes_elsewhere()
 {
    for manner in [Resumes::FromTheStart, Resumes::Elsewhere] {
        let asked = AtomicUsize::new(0);
        let (host, seen) = registry(move |request, image| {
            if !is_layer(request) {
                return None;
            }
            let whole = image.blobs.values().max_by_key(|bytes| bytes.len()).unwrap();
            if asked.fetch_add(1, Ordering::Relaxed) > 0 {
                let mut whole = answer(StatusCode::OK, "application/octet-stream", whole.clone());
                if manner == Resumes::Elsewhere {
                    *whole.status_mut() = StatusCode::PARTIAL_CONTENT;
                    whole.headers_mut().insert("content-range", "bytes 7-".parse().unwrap());
                }
                return Some(whole);
            }
            Some(half(whole))
        })
        .await;
        let (_dir, store) = store(quick());
        let pulled = pull(&store, &host, None).await;
        match manner {
            Resumes::FromTheStart => {
                let file = pulled.unwrap().layers[0].join("file");
                assert_eq!(fs::metadata(file).unwrap().len(), 300_000);
            }
            Resumes::Elsewhere => {
                let error = pulled.unwrap_err().to_string();
                assert!(error.contains("it resumes elsewhere than asked"), "{error}");
            }
        }
        let seen = lock(&seen);
        assert!(seen.iter().any(|line| line.contains(" bytes=")), "{RANGE} was asked: {seen:#?}");
    }
}

/// The first half of a body, and the end of its connection.
fn half(whole: &Bytes) -> Response<Body> {
    let (head, length) = (whole.slice(..whole.len() / 2), whole.len());
    let cut = async {
        // Not before the half is on its way: what waits to be written goes with the connection.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        Err(io::Error::other("cut"))
    };
    let head = futures_util::stream::iter([Ok(Frame::data(head))]);
    let body = futures_util::StreamExt::chain(head, futures_util::stream::once(cut));
    let mut cut = Response::new(BodyExt::boxed(StreamBody::new(body)));
    cut.headers_mut().insert("content-length", length.to_string().parse().unwrap());
    cut
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let (host, seen) = registry(|request, _| {
        is_layer(request).then(|| {
            let mut moved = refusal(StatusCode::TEMPORARY_REDIRECT, "UNKNOWN", "there");
            let to = request.uri.path().parse().unwrap();
            moved.headers_mut().insert(hyper::header::LOCATION, to);
            moved
        })
    })
    .await;
    let (_dir, store) = store(quick());
    let error = pull(&store, &host, None).await.unwrap_err().to_string();
    assert!(error.contains("too many redirects"), "{error}");
    assert!(lock(&seen).len() < 15);
}
