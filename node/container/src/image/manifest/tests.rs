//! Documents as registries send them, good and bad.

use expect_test::{Expect, expect};

use super::*;

fn hex(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

fn descriptor(media_type: &str, of: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, hex(of), of.len())
}

fn manifest(media_type: &str, layers: &[&str]) -> String {
    let config = descriptor("application/vnd.oci.image.config.v1+json", "config");
    let layers: Vec<_> = layers.iter().map(|media| descriptor(media, media)).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{}]}}"#,
        layers.join(",")
    )
}

fn compressions(json: &str, content_type: &str) -> Vec<Compression> {
    match parse(json.as_bytes(), content_type).unwrap() {
        Document::Image(image) => image.layers.iter().map(|layer| layer.compression).collect(),
        Document::Index(entries) => panic!("an index: {entries:?}"),
    }
}

fn check_fault(json: &str, content_type: &str, expected: Expect) {
    expected.assert_eq(&format!("{:?}", parse(json.as_bytes(), content_type).unwrap_err()));
}

#[test]
fn both_image_formats_are_read_and_layers_keep_their_order() {
    use Compression::{Gzip, None, Zstd};
    let layers = [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "",
    ];
    for media_type in [IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE] {
        let json = manifest(media_type, &layers);
        assert_eq!(compressions(&json, media_type), [Gzip, Zstd, None, Gzip, Gzip]);
        // A registry that does not know what it serves.
        assert_eq!(compressions(&json, "text/plain; charset=utf-8").len(), 5);
    }
    let nameless = manifest("x", &[""]).replace(r#""mediaType":"x","#, "");
    assert_eq!(compressions(&nameless, ""), [Gzip]);
}

#[test]
fn an_index_offers_images_only() {
    let entry = |media: &str, os: &str, arch: &str, more: &str| {
        format!(
            r#"{{"mediaType":"{media}","digest":"{}","size":7{more},
                 "platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
            hex(&format!("{os}{arch}{more}"))
        )
    };
    let attestation = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
    let oci = OCI_IMAGE_MEDIA_TYPE;
    let entries = [
        entry(oci, "linux", "arm64", ""),
        entry(oci, "unknown", "unknown", ""),
        entry(oci, "linux", "amd64", attestation),
        entry("application/vnd.other+json", "linux", "amd64", ""),
        entry(oci, "linux", "amd64", ""),
        format!(r#"{{"mediaType":"{oci}","digest":"{}","size":1}}"#, hex("no platform")),
    ];
    let json = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    for media_type in [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, "text/plain"] {
        let Document::Index(entries) = parse(json.as_bytes(), media_type).unwrap() else {
            panic!("not an index");
        };
        let platforms: Vec<_> = entries.iter().map(|entry| entry.platform.as_str()).collect();
        assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
        let picked = pick(&entries, "linux/amd64").unwrap();
        assert_eq!(picked.digest.to_string(), hex("linuxamd64"));
        assert_eq!(pick(&entries, "linux/arm"), None);
    }
}

#[test]
fn the_plainest_variant_is_picked() {
    let entry = |platform: &str| Entry {
        digest: Digest::of(platform.as_bytes()),
        platform: platform.to_owned(),
    };
    let both = [entry("linux/amd64/v3"), entry("linux/amd64"), entry("linux/amd64/v2")];
    assert_eq!(pick(&both, "linux/amd64").unwrap().platform, "linux/amd64");
    let arm = [entry("linux/arm64/v8")];
    assert_eq!(pick(&arm, "linux/arm64").unwrap().platform, "linux/arm64/v8");
}

#[test]
fn what_is_not_an_image_is_refused_with_a_word_on_what_to_do() {
    check_fault(
        r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        expect![[
            r#"Unsupported("the image is in Docker's manifest version 2 schema 1, which is not supported; push it again with Docker 1.10 or newer, or convert it: skopeo copy --format v2s2 docker://IMAGE docker://IMAGE")"#
        ]],
    );
    check_fault(
        "<html>",
        "text/html",
        expect![[r#"Rubbish("expected value at line 1 column 1")"#]],
    );
    check_fault("{}", "", expect![[r#"Rubbish("it has no schemaVersion 2")"#]]);
    check_fault(
        r#"{"schemaVersion":2,"mediaType":"application/x"}"#,
        "",
        expect![[
            r#"Unsupported("its manifest is of type \"application/x\", which is not an image's")"#
        ]],
    );
    check_fault(
        r#"{"schemaVersion":2}"#,
        OCI_IMAGE_MEDIA_TYPE,
        expect![[r#"Rubbish("missing field `config` at line 1 column 19")"#]],
    );
    let helm = manifest(OCI_IMAGE_MEDIA_TYPE, &[])
        .replace("vnd.oci.image.config.v1", "vnd.cncf.helm.config.v1");
    check_fault(
        &helm,
        "",
        expect![[
            r#"Unsupported("its config is of type \"application/vnd.cncf.helm.config.v1+json\": an artifact in a registry, not an image to run")"#
        ]],
    );
    let negative = manifest(OCI_IMAGE_MEDIA_TYPE, &[]).replace(r#""size":6"#, r#""size":-1"#);
    assert!(matches!(parse(negative.as_bytes(), ""), Err(Fault::Rubbish(_))));
    let many = manifest(OCI_IMAGE_MEDIA_TYPE, &[""; IMAGE_LAYERS_MAX + 1]);
    check_fault(&many, "", expect![[r#"Rubbish("more than 128 layers")"#]]);
}
