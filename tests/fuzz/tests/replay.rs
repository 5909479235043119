//! Every input of the stored corpus, once through its target: what a fuzzer has found stays
//! mended. Unpacks for real, so it needs root's rights, as containers do.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(of: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(corpus().join(of)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_input_of_the_corpus_is_taken() {
    for target in fuzz::TARGETS {
        let inputs = inputs(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for path in inputs {
            let bytes = fs::read(&path).unwrap();
            let taken = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes)));
            assert!(taken.is_ok(), "{}: the panic above", path.display());
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let known: BTreeSet<_> = fuzz::TARGETS.map(|target| target.name.to_owned()).into();
    let stored = fs::read_dir(corpus()).unwrap();
    let stored: BTreeSet<_> =
        stored.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(stored, known);
}
