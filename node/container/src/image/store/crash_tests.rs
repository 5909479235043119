//! `kill -9` at every step of a pull and of a collection: a process of its own is told where to
//! die, and what it leaves is opened by the next.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::registry_tests::{image, pull, quick, registry};
use super::*;
use crate::image::layout::{PackedLayer, pack};
use crate::image::steps::DIE_AT;
use crate::image::{ImageConfig, Silent};

const DIR: &str = "GAVEL_TEST_DIR";
const HOST: &str = "GAVEL_TEST_HOST";
const JOB: &str = "GAVEL_TEST_JOB";

/// What the process that dies was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Pull,
    Share,
    Trim,
}

/// The other process, which only [`die`] starts.
#[tokio::test]
async fn child() {
    let (Some(dir), Ok(host)) = (std::env::var_os(DIR), std::env::var(HOST)) else { return };
    let store = Store::open(Path::new(&dir), quick()).unwrap();
    match std::env::var(JOB).unwrap().as_str() {
        "Pull" => drop(pull(&store, &host, None).await.unwrap()),
        "Share" => {
            let image = Reference::from_docker_name(&format!("{host}/app")).unwrap();
            let (packed, layer) = self::image();
            let bytes = packed.blobs[&layer].len() as u64;
            let wanted = Wanted { image, layer, bytes, user: None };
            let mut shared = store.share(&wanted).unwrap();
            while shared.next().await.unwrap().is_some() {}
            // Who reads it has all of it a moment before it is in place.
            while !lock(&store.inner.packs).is_empty() {
                tokio::task::yield_now().await;
            }
        }
        "Trim" => {
            drop(pull(&store, &host, None).await.unwrap());
            store.trim(0, &BTreeSet::new()).await.unwrap();
        }
        job => panic!("{job}"),
    }
}

/// Has another process die at a step.
async fn die(dir: &Path, host: &str, job: Job, step: &'static str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "image::store::crash_tests::child", "--nocapture"]);
    command.env(DIR, dir).env(HOST, host).env(JOB, format!("{job:?}")).env(DIE_AT, step);
    // The registry that it asks is this process's.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.signal(), Some(9), "{job:?} does not pass {step:?}: {said}");
}

/// What stands in the store under a final name is whole.
fn check(dir: &Path, host: &str, step: &str) {
    assert_eq!(fs::read_dir(dir.join("incomplete")).unwrap().count(), 0, "{step}");
    for entry in fs::read_dir(dir.join("layers")).unwrap() {
        let layer = entry.unwrap().path();
        assert_eq!(fs::metadata(layer.join("root/file")).unwrap().len(), 300_000, "{step}");
        assert_eq!(fs::read_to_string(layer.join("bytes")).unwrap(), "300000", "{step}");
    }
    let app = Reference::from_docker_name(&format!("{host}/app")).unwrap();
    for kept in ["blobs", "packed"] {
        for entry in fs::read_dir(dir.join(kept)).unwrap() {
            let path = entry.unwrap().path();
            let digest = Digest::of(&fs::read(&path).unwrap());
            let name = if kept == "packed" { origin(&app, digest) } else { digest };
            assert!(path.ends_with(name.hex()), "{step}: {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_process_killed_at_any_step_leaves_a_store_that_is_whole() {
    const STEPS: [(Job, &str); 14] = [
        (Job::Pull, "document begun"),
        (Job::Pull, "document written"),
        (Job::Pull, "document in place"),
        (Job::Pull, "layer begun"),
        (Job::Pull, "layer half-way"),
        (Job::Pull, "layer unpacked"),
        (Job::Pull, "layer measured"),
        (Job::Pull, "layer synced"),
        (Job::Pull, "layer in place"),
        (Job::Share, "pack begun"),
        (Job::Share, "pack half-way"),
        (Job::Share, "pack whole"),
        (Job::Share, "pack in place"),
        (Job::Trim, "layer taken away"),
    ];
    let (host, _) = registry(|_, _| None).await;
    for (job, step) in STEPS {
        let dir = tempfile::tempdir().unwrap();
        die(dir.path(), &host, job, step).await;
        let store = Store::open(dir.path(), quick()).unwrap();
        check(dir.path(), &host, step);
        let image = pull(&store, &host, None).await.unwrap();
        let file = fs::read(image.layers[0].join("file")).unwrap();
        assert_eq!(file.len(), 300_000, "{step}");
    }
}

/// An image with one file of so many bytes, of one letter.
fn of_one_file(letter: u8, bytes: usize) -> crate::image::layout::Packed {
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &vec![letter; bytes][..]).unwrap();
    let layer = PackedLayer::gzip(&tar.into_inner().unwrap()).unwrap();
    pack(&[layer], &ImageConfig::default()).unwrap()
}

#[tokio::test]
async fn the_longest_unused_go_first_and_what_runs_stays() {
    let mut offered = crate::image::serve::Registry::default();
    for letter in *b"abcd" {
        offered.add(&char::from(letter).to_string(), "latest", &of_one_file(letter, 1000));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(offered.serve(listener));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), quick()).unwrap();
    let pull = async |name: &str| {
        let reference = Reference::from_docker_name(&format!("{host}/{name}")).unwrap();
        store.pull(&reference, None, &Silent).await.unwrap()
    };
    let paths = async |name: &str| {
        let image = pull(name).await;
        (image.digest, image.layers[0].clone())
    };
    let (runs, a) = paths("a").await;
    let (_, b) = paths("b").await;
    let (_, c) = paths("c").await;
    let d = pull("d").await;
    // b is used again, so c is now the longest unused of those that may go.
    let _ = paths("b").await;
    let collected = store.trim(3000, &BTreeSet::from([runs])).await.unwrap();
    assert_eq!((collected.layers, collected.bytes), (1, 1000));
    assert_eq!([&a, &b, &c, &d.layers[0]].map(|path| path.exists()), [true, true, false, true]);
    // However tight, what runs and what is held stay.
    let collected = store.trim(0, &BTreeSet::from([runs])).await.unwrap();
    assert_eq!(collected.layers, 1);
    assert_eq!([&a, &b, &d.layers[0]].map(|path| path.exists()), [true, false, true]);
    // What was taken comes again.
    assert!(paths("c").await.1.exists());
}
