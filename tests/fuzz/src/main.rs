//! libFuzzer over one target, which the environment names: `GAVEL_FUZZ_TARGET=layer fuzz CORPUS`.
//! All other arguments are libFuzzer's own. `make fuzz` builds and runs it.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("GAVEL_FUZZ_TARGET").unwrap_or_default();
    let names = fuzz::TARGETS.map(|target| target.name).join(", ");
    fuzz::target(&name)
        .unwrap_or_else(|| panic!("GAVEL_FUZZ_TARGET is {name:?} and not one of: {names}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
