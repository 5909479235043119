//! The tables of docker.md, section 2, and Docker's own grammar.

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A rootfs and the image it names, in full.
fn check_rootfs(rootfs: &str, image: &str) {
    let image = image.replace("HEX", HEX);
    let reference = Reference::from_rootfs(&rootfs.replace("HEX", HEX)).unwrap();
    assert_eq!(reference.to_string(), image, "{rootfs}");
    let again = Reference::from_rootfs(&reference.to_rootfs()).unwrap();
    assert_eq!(again, reference, "{rootfs} written as {}", reference.to_rootfs());
}

/// A Docker name and the rootfs that Diego is given for it.
fn check_name(name: &str, rootfs: &str) {
    let rootfs = rootfs.replace("HEX", HEX);
    let reference = Reference::from_docker_name(&name.replace("HEX", HEX)).unwrap();
    assert_eq!(reference.to_rootfs(), rootfs, "{name}");
    assert_eq!(Reference::from_docker_name(&reference.to_string()).unwrap(), reference, "{name}");
}

fn reason(result: Result<Reference, Error>) -> String {
    let error = result.unwrap_err();
    let Error::InvalidReference { reason, .. } = error else { panic!("{error}") };
    reason
}

#[test]
fn rootfs_urls_mean_what_a_diego_cell_takes_them_for() {
    check_rootfs("docker:///library/busybox", "docker.io/library/busybox:latest");
    check_rootfs("docker:///busybox", "docker.io/library/busybox:latest");
    check_rootfs("docker:///user/repo#tag", "docker.io/user/repo:tag");
    check_rootfs("docker:///user/repo:tag", "docker.io/user/repo:tag");
    check_rootfs("docker://host:5000/path/repo#tag", "host:5000/path/repo:tag");
    check_rootfs("docker://registry.example.com/repo", "registry.example.com/repo:latest");
    check_rootfs("docker://registry/repo", "registry/repo:latest");
    check_rootfs("docker://[::1]:5000/repo#v1", "[::1]:5000/repo:v1");
    check_rootfs("docker:///user/repo@sha256:HEX", "docker.io/user/repo@sha256:HEX");
    check_rootfs("docker:///user/repo@sha256#HEX", "docker.io/user/repo@sha256:HEX");
    check_rootfs("docker://docker.io/library/image#1", "docker.io/library/image:1");
    check_rootfs("docker://index.docker.io/image", "docker.io/library/image:latest");
    check_rootfs("docker:///10.244.2.6:8080/image", "10.244.2.6:8080/image:latest");
}

#[test]
fn docker_names_get_dockers_defaults() {
    check_name("nginx", "docker:///library/nginx#latest");
    check_name("nginx:1.27", "docker:///library/nginx#1.27");
    check_name("user/image", "docker:///user/image#latest");
    check_name("user/app:v2", "docker:///user/app#v2");
    check_name("user/image@sha256:HEX", "docker:///user/image@sha256:HEX");
    check_name("10.244.2.6:8080/image", "docker://10.244.2.6:8080/image#latest");
    check_name("foobar:8080/image:tag", "docker://foobar:8080/image#tag");
    check_name("localhost/image", "docker://localhost/image#latest");
    check_name("host:5000/repo@sha256:HEX", "docker://host:5000/repo@sha256:HEX");
    check_name("docker.io/image:tag", "docker:///library/image#tag");
    check_name("a/b__c/d--e/f.g_h", "docker:///a/b__c/d--e/f.g_h#latest");
}

#[test]
fn names_outside_the_grammar_are_refused_with_the_reason() {
    let long = "a".repeat(300);
    for (name, expected) in [
        ("", "\"\" is not a part of a repository's name"),
        ("http://x/y", "should not contain a scheme"),
        ("Nginx", "must be lower case"),
        ("a//b", "\"\" is not a part"),
        ("a/../b", "\"..\" is not a part"),
        ("-a", "\"-a\" is not a part"),
        ("a___b", "\"a___b\" is not a part"),
        ("a b", "\"a b\" is not a part"),
        ("ä", "\"ä\" is not a part"),
        ("a:", "\"\" is not a tag"),
        ("a:.x", "\".x\" is not a tag"),
        ("a:b c", "\"b c\" is not a tag"),
        ("a:b:c", "\"b:c\" is not a tag"),
        ("a:v1@sha256:HEX", "a tag and a digest together are not supported"),
        ("a@sha256:12", "64 lower-case hexadecimal digits, not \"sha256:12\""),
        ("a@sha512:HEX", "64 lower-case hexadecimal digits"),
        ("host:0/a", "no port between 1 and 65535"),
        ("host:65536/a", "no port between 1 and 65535"),
        ("host:+1/a", "no port between 1 and 65535"),
        ("user:pass@host.com/a", "no port between 1 and 65535"),
        ("x_y.com/a", "\"x_y.com\" is not the name of a registry's host"),
        ("[::g]:5/a", "\"::g\" is not an IPv6 address"),
        ("[::1/a", "lacks a closing bracket"),
        (&long, "longer than 255 bytes"),
    ] {
        let reason = reason(Reference::from_docker_name(&name.replace("HEX", HEX)));
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

#[test]
fn rootfs_urls_outside_the_grammar_are_refused_with_the_reason() {
    for (rootfs, expected) in [
        ("", "starts with docker://"),
        ("preloaded:cflinuxfs4", "starts with docker://"),
        ("docker:/a", "starts with docker://"),
        ("docker://", "path that names the image is missing"),
        ("docker:///", "path that names the image is missing"),
        ("docker://host", "path that names the image is missing"),
        ("docker://user@host/a", "\"user@host\" is not the name of a registry's host"),
        ("docker:///a#b#c", "\"b#c\" is not a tag"),
        ("docker:///a?x=1", "\"a?x=1\" is not a part"),
        ("docker:///a#v1@sha256:HEX", "a tag and a digest together"),
    ] {
        let reason = reason(Reference::from_rootfs(&rootfs.replace("HEX", HEX)));
        assert!(reason.contains(expected), "{rootfs}: {reason}");
    }
}

#[test]
fn a_digest_takes_the_tags_place() {
    let tagged = Reference::from_docker_name("user/app:v2").unwrap();
    let pinned = tagged.with_digest(Digest::of(b""));
    assert_eq!(pinned.to_rootfs(), format!("docker:///user/app@sha256:{HEX}"));
    assert_eq!((pinned.tag(), pinned.digest()), (None, Some(Digest::of(b""))));
    assert_eq!((tagged.tag(), tagged.digest()), (Some("v2"), None));
}

#[test]
fn only_this_machines_addresses_are_loopback() {
    for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "[::1]"] {
        assert!(is_loopback(host), "{host}");
    }
    for host in ["localhost.example.com", "127.0.0.1.example.com", "128.0.0.1", "[::2]:5000"] {
        assert!(!is_loopback(host), "{host}");
    }
}

#[test]
fn a_repository_of_the_hub_is_not_taken_for_another_registry() {
    check_name("docker.io/ghcr.io/app", "docker://docker.io/ghcr.io/app#latest");
    check_name("docker.io/localhost/app@sha256:HEX", "docker://docker.io/localhost/app@sha256:HEX");
    check_rootfs("docker://docker.io/ghcr.io/app#v1", "docker.io/ghcr.io/app:v1");
}
