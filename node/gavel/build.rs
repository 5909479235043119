//! Builds the sample app to a static binary, which `src/dev/sample.rs` takes into the one that is
//! shipped: on a machine without internet there is then still an image to run.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=sample/hello.rs");
    let variable = |name: &str| std::env::var(name).expect("cargo sets it for build scripts");
    let output = Path::new(&variable("OUT_DIR")).join("hello");
    // Alike in every profile: it is the image's content, and its digest should not differ
    // between a debug and a release build.
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "hello", "--crate-type", "bin", "-O"])
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["--target", &variable("TARGET"), "-o"])
        .arg(&output)
        .arg("sample/hello.rs")
        .status()
        .expect("the compiler that builds this builds the sample too");
    assert!(status.success(), "sample/hello.rs does not build: {status}");
}
