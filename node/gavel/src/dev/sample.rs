//! The sample app as an image, on offer from a registry on loopback: something to run on a
//! machine without internet, pulled the way any image is.

use std::io;

use container::image::ImageConfig;
use container::image::layout::pack_program;
use container::image::serve::Registry;

/// The image's name in the registry.
pub(super) const NAME: &str = "hello";

/// `sample/hello.rs`, built by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// A registry with the sample as `hello:latest`.
///
/// # Errors
///
/// The image cannot be packed.
pub(super) fn registry() -> io::Result<Registry> {
    let config = ImageConfig {
        entrypoint: vec!["/hello".to_owned()],
        // Numeric: the image has no /etc/passwd.
        user: "1000:1000".to_owned(),
        working_dir: "/".to_owned(),
        exposed_ports: vec![8080],
        ..ImageConfig::default()
    };
    let mut registry = Registry::default();
    registry.add(NAME, "latest", &pack_program("/hello", PROGRAM, &config)?);
    Ok(registry)
}
