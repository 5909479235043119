//! Pull and unpack of an image of 8 layers, 300 MiB unpacked, from Debian's docker-registry on
//! loopback: beside podman, and beside the floor, which is to inflate the same bytes on one thread
//! and drop them. Then a second image that shares 7 of the layers; what is fetched for it is
//! counted in the registry's log.
//!
//! Needs root, docker-registry, skopeo and podman (Debian's). `cargo bench -p gavel-benches --bench
//! images [-- ROUNDS]`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::print_stdout, reason = "its figures")]

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use container::image::layout::{Packed, PackedLayer, pack};
use container::image::{ImageConfig, Reference, Registries, Silent, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LAYERS: u64 = 8;
const FILES: u64 = 300;
const FILE_BYTES: usize = 128 << 10;
const ROUNDS: usize = 5;

/// Files that gzip shrinks to about a half, different for each seed.
fn layer(seed: u64) -> PackedLayer {
    let mut tar = tar::Builder::new(Vec::new());
    let mut state = seed + 1;
    for file in 0..FILES {
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        while bytes.len() < FILE_BYTES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            bytes.extend_from_slice(&state.to_be_bytes()[..4]);
            bytes.extend_from_slice(b"text");
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("layer-{seed}/file-{file}"), &bytes[..]).unwrap();
    }
    PackedLayer::gzip(&tar.into_inner().unwrap()).unwrap()
}

/// An OCI image layout of one image.
fn write_layout(image: &Packed, directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(image.digest().hex()), &image.manifest).unwrap();
    for (digest, bytes) in &image.blobs {
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
    }
    let (kind, digest, size) = (&image.media_type, image.digest(), image.manifest.len());
    let entry = format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}");
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{entry}]}}");
    fs::write(directory.join("index.json"), index).unwrap();
    fs::write(directory.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

/// Debian's registry, until it is dropped.
struct Registry {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (config, log) = (dir.join("registry.yml"), dir.join("registry.log"));
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {host}\n",
            dir.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        let out = File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, host, log };
        let patience = Instant::now();
        while std::net::TcpStream::connect(&registry.host).is_err() {
            assert!(patience.elapsed() < Duration::from_secs(10), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Layers and configs of a repository that were asked for so far, by the access log.
    fn blobs_sent(&self, repository: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap();
        let asked = format!("\"GET /v2/{repository}/blobs/");
        log.lines().filter(|line| line.contains(&asked)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn tell(what: &str, times: &mut [Duration]) {
    let middle = median(times);
    let [middle, first, last] = [middle, times[0], times[times.len() - 1]].map(|it| it.as_millis());
    println!("{what:<40} {middle:>6} ms   ({first} to {last})");
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut layers: Vec<PackedLayer> = (0..LAYERS).map(layer).collect();
    let packed: usize = layers.iter().map(|layer| layer.bytes.len()).sum();
    println!("{} layers, {} MiB packed", layers.len(), packed >> 20);
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
    let mut floor = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        for layer in &layers {
            let mut plain = flate2::read::GzDecoder::new(&layer.bytes[..]);
            io::copy(&mut plain, &mut io::sink()).unwrap();
        }
        floor.push(began.elapsed());
    }
    let registry = Registry::start(dir.path());
    let images = ["first", "second"];
    for name in images {
        if name == "second" {
            layers.pop();
            layers.push(layer(LAYERS));
        }
        let layout = dir.path().join(name);
        write_layout(&pack(&layers, &ImageConfig::default()).unwrap(), &layout);
        let (from, to) = (format!("oci:{}", layout.display()), &registry.host);
        let to = format!("docker://{to}/{name}:latest");
        run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to]);
    }
    let (mut ours, mut theirs) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..rounds {
        let home = tempfile::tempdir_in(dir.path()).unwrap();
        let store = Store::open(home.path(), Registries::default()).unwrap();
        for (name, times) in images.iter().zip(&mut ours) {
            let reference = format!("{}/{name}", registry.host);
            let reference = Reference::from_docker_name(&reference).unwrap();
            run("sync", &[]);
            let before = registry.blobs_sent(name);
            let began = Instant::now();
            drop(store.pull(&reference, None, &Silent).await.unwrap());
            times.push(began.elapsed());
            let sent = registry.blobs_sent(name) - before;
            // And the config.
            assert_eq!(sent, if *name == "first" { 9 } else { 2 }, "of the image {name}");
        }
        drop((store, home));
        let home = tempfile::tempdir_in(dir.path()).unwrap();
        let (root, state) = (home.path().join("root"), home.path().join("run"));
        let (root, state) = (root.to_str().unwrap(), state.to_str().unwrap());
        let podman = ["--root", root, "--runroot", state];
        // What it makes of an empty directory is not the pull's.
        run("podman", &[&podman[..], &["images"]].concat());
        for (name, times) in images.iter().zip(&mut theirs) {
            let image = format!("{}/{name}", registry.host);
            run("sync", &[]);
            let began = Instant::now();
            run("podman", &[&podman[..], &["pull", "-q", "--tls-verify=false", &image]].concat());
            times.push(began.elapsed());
        }
        run("podman", &[&podman[..], &["system", "reset", "--force"]].concat());
    }
    tell("inflating alone, one thread", &mut floor);
    tell("gavel: the image", &mut ours[0]);
    tell("podman: the image", &mut theirs[0]);
    tell("gavel: the second, one layer fetched", &mut ours[1]);
    tell("podman: the second", &mut theirs[1]);
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
}
