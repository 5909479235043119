//! Images as tools write them are imported, and hostile ones are refused by name.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::image::layout::{Packed, PackedLayer, pack};
use crate::image::{ImageConfig, Registries};

/// A directory with a layout of an image of two layers, to be spoilt or copied, and a store.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    image: Packed,
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // No name is refused here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn tar_layers() -> [Vec<u8>; 2] {
    [tar_of(&[("lower", b"below"), ("both", b"below")]), tar_of(&[("both", b"above")])]
}

impl World {
    fn new() -> Self {
        let layers = tar_layers().map(|tar| PackedLayer::gzip(&tar).unwrap());
        let config = ImageConfig { env: vec!["A=1".to_owned()], ..ImageConfig::default() };
        let image = pack(&layers, &config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Registries::default()).unwrap();
        let world = Self { dir, store, image };
        fs::create_dir_all(world.layout("blobs/sha256")).unwrap();
        fs::write(world.layout("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        world.put(&world.image.manifest);
        world.image.blobs.values().for_each(|bytes| world.put(bytes));
        world.index(json!([world.entry()]));
        world
    }

    fn layout(&self, name: &str) -> PathBuf {
        self.dir.path().join("layout").join(name)
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.layout(&blob_name(Digest::of(bytes))), bytes).unwrap();
    }

    fn entry(&self) -> Value {
        json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "size": self.image.manifest.len(),
               "digest": self.image.digest().to_string()})
    }

    fn index(&self, manifests: Value) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.layout("index.json"), index.to_string()).unwrap();
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Whatever `path` is, it is the image.
    async fn check(&self, path: &Path) -> Image {
        let image = self.store.import(path).await.unwrap();
        assert_eq!(image.config.env, ["A=1"]);
        assert_eq!(image.bytes, 15);
        let read = |layer: usize, name| fs::read_to_string(image.layers[layer].join(name)).unwrap();
        assert_eq!((read(0, "lower"), read(1, "both")), ("below".into(), "above".into()));
        image
    }

    async fn refusal(&self, path: &Path) -> String {
        let error = self.store.import(path).await.unwrap_err().to_string();
        let layers = fs::read_dir(self.dir.path().join("store/incomplete")).unwrap().count();
        assert_eq!(layers, 0, "{error}");
        assert!(error.contains(path.to_str().unwrap()), "it names the file: {error}");
        error.replace(self.dir.path().to_str().unwrap(), "")
    }

    /// What the config of a file of `docker save` is, by its name there.
    fn config(&self) -> (String, Vec<u8>) {
        let is_config = |bytes: &&Bytes| bytes.starts_with(b"{");
        let bytes = self.image.blobs.values().find(is_config).unwrap();
        (format!("{}.json", Digest::of(bytes).hex()), bytes.to_vec())
    }

    /// A file of `docker save`, as a test would have its parts.
    fn saved(&self, config: &str, layers: &[&str], files: &[(&str, &[u8])]) -> PathBuf {
        let manifest = json!([{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]);
        let manifest = manifest.to_string();
        let files = [files, &[("manifest.json", manifest.as_bytes())]].concat();
        self.file("saved.tar", &tar_of(&files))
    }
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

#[tokio::test]
async fn a_layout_is_imported_as_a_directory_and_as_a_tar() {
    let world = World::new();
    let layout = world.layout("");
    let image = world.check(&layout).await;
    assert_eq!(image.digest, world.image.digest());
    // Names with ./ and directories among them, as tar(1) writes them.
    let archive = world.dir.path().join("layout.tar");
    run("tar", &["-C", layout.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    let store = Store::open(&world.dir.path().join("other"), Registries::default()).unwrap();
    let world = World { store, ..world };
    assert_eq!(world.check(&archive).await.digest, world.image.digest());
}

#[tokio::test]
async fn what_skopeo_writes_for_docker_is_imported() {
    let world = World::new();
    let archive = world.dir.path().join("saved.tar");
    let from = format!("oci:{}", world.layout("").display());
    let to = format!("docker-archive:{}:app:v1", archive.display());
    run("skopeo", &["copy", "--quiet", &from, &to]);
    let first = world.check(&archive).await;
    // What the store has is not read again, and keeps its name.
    assert_eq!(world.check(&archive).await.digest, first.digest);
    let kept = world.store.inner.kept(first.digest).unwrap().unwrap();
    assert_eq!(kept.1.len(), 2, "collection finds its layers");
}

#[tokio::test]
async fn older_files_of_docker_save_hold_links_and_compressed_layers() {
    let world = World::new();
    let (name, config) = world.config();
    let [lower, upper] = tar_layers();
    let upper = PackedLayer::gzip(&upper).unwrap().bytes;
    let mut tar = ::tar::Builder::new(Vec::new());
    let manifest = json!([{"Config": name, "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    let manifest = manifest.to_string();
    let files: [(&str, &[u8]); 4] = [
        ("real/layer.tar", &lower),
        ("two/layer.tar", &upper),
        (&name, &config),
        ("manifest.json", manifest.as_bytes()),
    ];
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "one/layer.tar", "../real/layer.tar").unwrap();
    let path = world.file("old.tar", &tar.into_inner().unwrap());
    world.check(&path).await;
}

#[tokio::test]
async fn of_several_images_the_one_for_this_machine_is_taken() {
    let world = World::new();
    let mut entries = vec![world.entry(), world.entry(), world.entry()];
    let (os, architecture) = manifest::this_platform()
        .split_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    entries[0]["platform"] = json!({"os": os, "architecture": architecture});
    entries[1]["platform"] = json!({"os": "plan9", "architecture": "mips"});
    entries[1]["digest"] = json!(Digest::of(b"not there").to_string());
    entries[2]["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    world.index(json!(entries));
    world.check(&world.layout("")).await;

    // buildx writes an index of them.
    let index = json!({"schemaVersion": 2, "manifests": entries,
                       "mediaType": "application/vnd.oci.image.index.v1+json"});
    let index = index.to_string();
    world.put(index.as_bytes());
    let digest = Digest::of(index.as_bytes()).to_string();
    world.index(json!([{"mediaType": "application/vnd.oci.image.index.v1+json",
                        "digest": digest, "size": index.len()}]));
    world.check(&world.layout("")).await;

    entries.remove(0);
    world.index(json!(entries[..1]));
    let refusal = world.refusal(&world.layout("")).await;
    assert!(refusal.ends_with("which it does not hold"), "{refusal}");
    world.index(json!([world.entry(), world.entry()]));
    assert_eq!(
        world.refusal(&world.layout("")).await,
        "cannot import /layout/: it holds 2 images for this machine, and one is expected: copy it \
         alone, as skopeo copy oci:DIRECTORY:TAG does"
    );
}

#[tokio::test]
async fn spoilt_layouts_are_refused_by_name() {
    let world = World::new();
    let layout = world.layout("");
    let (config_name, config) = world.config();
    let config_name = format!("blobs/sha256/{}", config_name.strip_suffix(".json").unwrap());
    let is_layer = |bytes: &&Bytes| !bytes.starts_with(b"{");
    let layer = world.image.blobs.values().find(is_layer).unwrap();
    let layer_digest = Digest::of(layer);
    let layer_name = blob_name(layer_digest);
    let manifest_name = blob_name(world.image.digest());
    let mut wrong_layer = layer.to_vec();
    wrong_layer[20] ^= 1;
    let spoil = |name: &str, bytes: &[u8]| {
        let path = world.layout(name);
        let honest = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        move || fs::write(path, honest).unwrap()
    };

    let mend = spoil(&layer_name, &wrong_layer);
    let refusal = world.refusal(&layout).await;
    let expected = format!("/layout/: layer {layer_digest}: layerID digest mismatch; expected: ");
    assert!(refusal.starts_with(&expected), "{refusal}");
    mend();

    let mend = spoil(&layer_name, &layer[..30]);
    let refusal = world.refusal(&layout).await;
    assert!(refusal.contains("layer size is different") && refusal.ends_with(" 30"), "{refusal}");
    mend();

    for (name, what, honest) in
        [(&config_name, "config", &config[..]), (&manifest_name, "manifest", &world.image.manifest)]
    {
        let mend = spoil(name, &[honest, b" "].concat());
        let refusal = world.refusal(&layout).await;
        assert!(refusal.contains(&format!("{what} digest mismatch; expected: ")), "{refusal}");
        mend();
        let large = fs::File::options().write(true).open(world.layout(name)).unwrap();
        large.set_len(5 << 20).unwrap();
        let refusal = world.refusal(&layout).await;
        assert!(refusal.ends_with("has 5242880 bytes, of 4194304 at most"), "{refusal}");
        large.set_len(honest.len() as u64).unwrap();
        fs::write(world.layout(name), honest).unwrap();
    }

    fs::remove_file(world.layout(&layer_name)).unwrap();
    assert_eq!(
        world.refusal(&layout).await,
        format!("cannot import /layout/: it names {layer_name:?}, which it does not hold")
    );
    // The same bytes, but not the layout's own.
    let outside = world.file("outside", layer);
    std::os::unix::fs::symlink(outside, world.layout(&layer_name)).unwrap();
    let refusal = world.refusal(&layout).await;
    assert_eq!(refusal, format!("cannot import /layout/: {layer_name:?} leads out of it"));
    fs::remove_file(world.layout(&layer_name)).unwrap();
    nix::unistd::mkfifo(&world.layout(&layer_name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refusal = world.refusal(&layout).await;
    assert_eq!(refusal, format!("cannot import /layout/: {layer_name:?} is no file"));

    world.index(json!([{"digest": "../../../../etc/passwd"}]));
    let refusal = world.refusal(&layout).await;
    assert!(refusal.starts_with("cannot import /layout/: index.json: digest \"../"), "{refusal}");
    fs::write(world.layout("index.json"), "[".repeat(1 << 20)).unwrap();
    let refusal = world.refusal(&layout).await;
    assert!(refusal.starts_with("cannot import /layout/: index.json: "), "{refusal}");
}

#[tokio::test]
async fn spoilt_files_of_docker_save_are_refused_by_name() {
    let world = World::new();
    let (name, config) = world.config();
    let [lower, upper] = tar_layers();
    let layers = ["a.tar", "b.tar"];
    let honest: [(&str, &[u8]); 3] = [("a.tar", &lower), ("b.tar", &upper), (&name, &config)];
    let says = async |path: PathBuf, expected: &str| {
        let refusal = world.refusal(&path).await;
        assert!(refusal.contains(expected), "{refusal:?} is not {expected:?}");
    };

    for hostile in ["/etc/passwd", "../../../etc/passwd"] {
        let path = world.saved(hostile, &layers, &honest);
        says(path, &format!("it names {hostile:?}, which it does not hold")).await;
        let path = world.saved(&name, &["a.tar", hostile], &honest);
        says(path, &format!("it names {hostile:?}, which it does not hold")).await;
    }
    // Layers in the other order are not what the config names.
    let path = world.saved(&name, &["b.tar", "a.tar"], &honest);
    says(path, "layerID digest mismatch").await;
    let path = world.saved(&name, &["a.tar"], &honest);
    says(path, "its config names 2 layers, and the image 1").await;
    let many = vec!["a.tar"; 129];
    says(world.saved(&name, &many, &honest), "more than 128 layers").await;
    let path = world.saved(&name, &layers, &[honest[0], honest[1], (&name, b"{}")]);
    says(path, "config digest mismatch").await;
    let other = br#"{"os":"plan9","architecture":"mips","rootfs":{"diff_ids":[]}}"#;
    let path = world.saved("c.json", &[], &[("c.json", other)]);
    says(path, "it has plan9/mips").await;

    let two = json!([{"Config": "a", "Layers": []}, {"Config": "b", "Layers": []}]).to_string();
    let path = world.file("two.tar", &tar_of(&[("manifest.json", two.as_bytes())]));
    says(path, "it holds 2 images, and one is expected: save it alone").await;
    let path = world.file("none.tar", &tar_of(&[("manifest.json", b"[]")]));
    says(path, "it holds 0 images").await;
    let large = vec![b' '; 5 << 20];
    let path = world.file("large.tar", &tar_of(&[("manifest.json", &large)]));
    says(path, "manifest.json has 5242880 bytes, of 4194304 at most").await;
    let deep = "[".repeat(1 << 20);
    let path = world.file("deep.tar", &tar_of(&[("manifest.json", deep.as_bytes())]));
    says(path, "manifest.json: invalid type: sequence").await;
}

#[tokio::test]
async fn what_holds_no_image_says_so() {
    let world = World::new();
    let says = async |path: PathBuf, expected: &str| {
        let refusal = world.refusal(&path).await;
        assert!(refusal.contains(expected), "{refusal:?} is not {expected:?}");
    };
    says(world.dir.path().join("nothing"), "No such file or directory").await;
    says(world.file("text", &[b'x'; 600]), "bad tar, entry \"number 1\"").await;
    says(world.file("empty.tar", &[0; 1024]), "it is neither an OCI image layout").await;
    says(world.layout("blobs"), "it is neither an OCI image layout").await;
    let gzip = PackedLayer::gzip(&tar_of(&[("manifest.json", b"[]")])).unwrap().bytes;
    says(world.file("saved.tgz", &gzip), "it is compressed: gunzip it first").await;
    // A file that claims to be longer than the archive is.
    let mut cut = tar_of(&[("manifest.json", &[b' '; 4096])]);
    cut.truncate(1024);
    says(world.file("cut.tar", &cut), "it ends within \"manifest.json\"").await;
    let names: Vec<String> = (0..10_001).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
    says(world.file("many.tar", &tar_of(&many)), "it has more than 10000 entries").await;
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "manifest.json", "./manifest.json").unwrap();
    let path = world.file("loop.tar", &tar.into_inner().unwrap());
    says(path, "\"manifest.json\" is a link of too many links").await;
    nix::unistd::mkfifo(&world.dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    says(world.dir.path().join("pipe"), "it is neither a file nor a directory").await;
}
