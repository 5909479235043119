//! What is fuzzed: functions over bytes that panic where a promise breaks.
//! The fuzzer and the replay of its corpus call the same.

use container::container::shim;
use container::image;

/// One kind of bytes that come from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As its corpus and its dictionary are named.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "layer", run: image::fuzz::layer },
    Target { name: "archive", run: image::fuzz::archive },
    Target { name: "stream", run: image::fuzz::stream },
    Target { name: "config", run: image::fuzz::config },
    Target { name: "manifest", run: image::fuzz::manifest },
    Target { name: "reference", run: image::fuzz::reference },
    Target { name: "user", run: shim::fuzz::user },
    Target { name: "environment", run: executor::fuzz::environment },
    Target { name: "bbs", run: api::fuzz::bbs },
    Target { name: "recipe", run: api::fuzz::recipe },
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
