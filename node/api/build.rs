//! Compiles Diego's messages, which stand in `proto/`, in pure Rust: no `protoc` to install.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new("proto");
    let mut files: Vec<_> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&files, [dir])?;
    prost_build::Config::new()
        // In the order of their keys, so that equal messages have equal bytes.
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
