//! The tree's own rules: who may import whom, what may lie where, and that documents do not lie.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files that git knows, relative to the root.
fn files() -> Vec<String> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files: {output:?}");
    let files = String::from_utf8(output.stdout).unwrap();
    // What is removed and not committed yet is still listed.
    files.lines().filter(|path| root().join(path).exists()).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_top_level_is_what_the_design_says() {
    const DIRS: [&str; 6] = ["node", "raft", "sim", "tests", "benches", "docs"];
    const FILES: [&str; 5] = ["Cargo.toml", "Cargo.lock", "Makefile", "LICENSE", "deny.toml"];
    const TOOLS: [&str; 2] = ["clippy.toml", "rustfmt.toml"];
    let tops: BTreeSet<String> =
        files().iter().map(|path| path.split('/').next().unwrap().to_owned()).collect();
    for top in tops {
        let is_document = top.ends_with(".md") || top.starts_with('.');
        let known = [&DIRS[..], &FILES, &TOOLS].iter().any(|names| names.contains(&&*top));
        assert!(is_document || known, "{top} is new at the top level");
    }
}

/// Of our own crates, those that each may depend on (design: "Who may import whom").
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("gavel-model", &[]),
    ("gavel-plan", &["gavel-model"]),
    ("gavel-replica", &["gavel-model"]),
    ("gavel-rocks", &["gavel-replica"]),
    ("gavel-agent", &["gavel-model", "gavel-plan", "gavel-replica"]),
    ("gavel-container", &[]),
    ("gavel-executor", &["gavel-container", "gavel-model"]),
    ("gavel-router", &["gavel-model"]),
    ("gavel-ssh", &["gavel-model"]),
    ("gavel-api", &["gavel-model"]),
    (
        "gavel-server",
        &[
            "gavel-agent",
            "gavel-api",
            "gavel-container",
            "gavel-executor",
            "gavel-model",
            "gavel-plan",
            "gavel-replica",
            "gavel-rocks",
            "gavel-router",
            "gavel-ssh",
        ],
    ),
    ("gavel", &["gavel-api", "gavel-container", "gavel-model", "gavel-router", "gavel-server"]),
    ("gavel-sim", &["gavel-agent", "gavel-model", "gavel-plan", "gavel-replica"]),
    ("gavel-tests", &[]),
    ("gavel-fuzz", &["gavel-api", "gavel-container", "gavel-executor"]),
    (
        "gavel-benches",
        &[
            "gavel-agent",
            "gavel-api",
            "gavel-model",
            "gavel-plan",
            "gavel-replica",
            "gavel-rocks",
            "gavel-router",
        ],
    ),
];

/// What the pure crates may take from outside.
const PURE: [(&str, &[&str]); 2] = [
    ("gavel-model", &["imbl", "postcard", "serde", "thiserror", "xxhash-rust"]),
    ("gavel-plan", &["imbl", "serde", "thiserror"]),
];

#[test]
fn crates_import_only_whom_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = MAY_IMPORT.into_iter().collect();
    let pure: BTreeMap<_, _> = PURE.into_iter().collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let (other, kind) = (dependency["name"].as_str().unwrap(), &dependency["kind"]);
            if *kind != serde_json::Value::Null {
                continue;
            }
            if dependency["path"].is_string() {
                assert!(may.contains(&other), "{name} may not import {other}");
            } else if let Some(outside) = pure.get(name) {
                assert!(outside.contains(&other), "{name} is pure and may not import {other}");
            }
        }
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    // Put together, so that this file does not find itself.
    let markers = [["FIX", "ME"], ["TO", "DO"], ["XX", "X"]].map(|halves| halves.concat());
    let ignored = ["#[ig", "nore"].concat();
    for path in files().iter().filter(|path| path.ends_with(".rs") || path.ends_with(".sh")) {
        for (number, line) in read(path).lines().enumerate() {
            let has = |marker: &String| line.contains(marker.as_str());
            assert!(!markers.iter().any(has), "{path}:{}: {line}", number + 1);
            assert!(!line.contains(&ignored), "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    for path in files().iter().filter(|path| path.ends_with(".md")) {
        let text = read(path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let target = root().join(path).parent().unwrap().join(target);
            assert!(target.exists(), "{path}: {link}");
        }
    }
}

#[test]
fn commands_in_documents_exist() {
    let makefile = read("Makefile");
    let cli = read("node/gavel/src/cli.rs").to_lowercase().replace(['-', '_'], "");
    for path in ["README.md", "docs/operating.md"] {
        let text = read(path);
        for words in text.split("make ").skip(1).filter(|_| text.contains("```")) {
            let target = words.split(|c: char| !c.is_ascii_lowercase()).next().unwrap();
            let is_quoted = text.contains(&format!("`make {target}`"))
                || text.lines().any(|line| line.starts_with(&format!("make {target}")));
            if is_quoted {
                assert!(makefile.contains(&format!("\n{target}:")), "{path}: make {target}");
            }
        }
        for words in text.split("`gavel ").skip(1) {
            let word = words.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
            let known = cli.contains(&format!("{}(", word.replace('-', "")))
                || cli.contains(&word.replace('-', ""));
            assert!(known, "{path}: gavel {word}");
        }
    }
}
