//! What is on the disk is had by whom its registry has given it to, and by nobody who only knows
//! its digests.

use std::sync::Mutex as Lock;
use std::sync::atomic::AtomicBool;

use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde_json::json;
use tokio::net::TcpListener;

use super::registry_tests::{image, quick, registry};
use super::*;
use crate::image::layout::{Packed, PackedLayer, pack};
use crate::image::serve::{Body, Registry, refusal};
use crate::image::{ImageConfig, ProofKey, Silent};

/// base64 of `me:hush` and of `you:quiet`.
const USERS: [&str; 2] = ["Basic bWU6aHVzaA==", "Basic eW91OnF1aWV0"];

fn user(username: &str, password: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: password.to_owned() }
}

fn key(byte: u8) -> Registries {
    Registries { proof_key: Some(ProofKey::new([byte; 32])), ..quick() }
}

/// To [`USERS`] only.
fn private(request: &Parts) -> Option<Response<Body>> {
    let said = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if said.is_some_and(|said| USERS.contains(&said)) {
        return None;
    }
    let mut refused = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you?");
    refused.headers_mut().insert(WWW_AUTHENTICATE, "Basic realm=\"it\"".parse().unwrap());
    Some(refused)
}

/// A private registry that may be away, a store that has its image, and what the registry was asked.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    host: String,
    seen: Arc<Lock<Vec<String>>>,
    is_away: Arc<AtomicBool>,
}

impl World {
    async fn new() -> Self {
        let is_away = Arc::new(AtomicBool::new(false));
        let away = Arc::clone(&is_away);
        let (host, seen) = registry(move |request, _| {
            if away.load(Ordering::Relaxed) {
                return Some(refusal(StatusCode::BAD_GATEWAY, "UNKNOWN", "nobody is in"));
            }
            private(request)
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), key(1)).unwrap();
        let world = Self { dir, store, host, seen, is_away };
        let tagged = Reference::from_docker_name(&format!("{}/app", world.host)).unwrap();
        let me = user("me", "hush");
        world.store.pull(&tagged, Some(&me), &Silent).await.unwrap();
        world
    }

    /// By its digest, as a client can give it.
    fn pinned(&self) -> Reference {
        let name = format!("{}/app@{}", self.host, image().0.digest());
        Reference::from_docker_name(&name).unwrap()
    }

    async fn pull(&self, user: Option<&Credentials>) -> Result<Image, String> {
        let pulled = self.store.pull(&self.pinned(), user, &Silent).await;
        pulled.map_err(|error| error.to_string())
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.seen.lock().unwrap()).len()
    }

    /// The store as the next process has it.
    async fn reopen(self, registries: Registries) -> Self {
        let Self { dir, store, host, seen, is_away } = self;
        drop(store);
        // A flight may hold it for a moment still.
        let store = loop {
            match Store::open(dir.path(), registries.clone()) {
                Ok(store) => break store,
                Err(Error::StoreInUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        Self { dir, store, host, seen, is_away }
    }
}

const DENIED: &str = "does not exist or you do not have permissions to see it.";

#[tokio::test]
async fn a_private_image_on_the_disk_is_for_whom_its_registry_gave_it() {
    let world = World::new().await;
    let (me, you) = (user("me", "hush"), user("you", "quiet"));
    world.asked();
    let nobody = world.pull(None).await.unwrap_err();
    assert!(nobody.ends_with(DENIED), "{nobody}");
    for stranger in [user("me", "guess"), user("you", "hush")] {
        let wrong = world.pull(Some(&stranger)).await.unwrap_err();
        assert!(wrong.ends_with("username and password are invalid"), "{wrong}");
    }
    assert!(world.asked() > 0);
    world.pull(Some(&me)).await.unwrap();
    assert_eq!(world.asked(), 0, "he was given it");
    world.pull(Some(&you)).await.unwrap();
    let layer = image().1.to_string();
    let seen = std::mem::take(&mut *world.seen.lock().unwrap());
    assert!(!seen.is_empty() && !seen.iter().any(|line| line.contains(&layer)), "{seen:#?}");

    // Away, or another process: who was given it has it, and nobody else.
    world.is_away.store(true, Ordering::Relaxed);
    let world = world.reopen(key(1)).await;
    world.pull(Some(&me)).await.unwrap();
    world.pull(Some(&you)).await.unwrap();
    assert_eq!(world.asked(), 0);
    let nobody = world.pull(None).await.unwrap_err();
    assert!(nobody.contains("answered 502"), "{nobody}");

    // With another key nobody is known, and with the registry there he is again.
    let world = world.reopen(key(2)).await;
    assert!(world.pull(Some(&me)).await.is_err());
    world.is_away.store(false, Ordering::Relaxed);
    world.pull(Some(&me)).await.unwrap();
    let world = world.reopen(quick()).await;
    world.asked();
    world.pull(Some(&me)).await.unwrap();
    assert!(world.asked() > 0, "without a key nobody is known after a restart");

    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-rE", "hush|quiet"]).arg(world.dir.path()).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
}

#[tokio::test]
async fn what_everybody_is_given_everybody_has() {
    let (host, seen) = registry(|_, _| None).await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), key(1)).unwrap();
    let name = format!("{host}/app@{}", image().0.digest());
    let reference = Reference::from_docker_name(&name).unwrap();
    store.pull(&reference, None, &Silent).await.unwrap();
    let before = lock(&seen).len();
    store.pull(&reference, Some(&user("any", "body")), &Silent).await.unwrap();
    store.pull(&reference, None, &Silent).await.unwrap();
    assert_eq!(lock(&seen).len(), before);
    // Elsewhere the same digest is another's to give.
    let (elsewhere, _) =
        registry(|_, _| Some(refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "no such thing")))
            .await;
    for place in [format!("{elsewhere}/app"), format!("{host}/other")] {
        let name = format!("{place}@{}", image().0.digest());
        let reference = Reference::from_docker_name(&name).unwrap();
        let error = store.pull(&reference, None, &Silent).await.unwrap_err().to_string();
        assert!(error.contains("has no such tag or digest"), "{error}");
    }
}

/// A registry of somebody who knows every digest of the private image and has none of its bytes.
async fn thief() -> String {
    let (private, private_layer) = image();
    let diff_id = {
        let config = private.blobs.iter().find(|(digest, _)| **digest != private_layer).unwrap().1;
        Config::parse(config).unwrap().diff_ids[0]
    };
    let mut registry = Registry::default();
    let mut add = |name: &str, packed: &Packed, without: Option<Digest>| {
        let mut packed = packed.clone();
        packed.blobs.retain(|digest, _| Some(*digest) != without);
        registry.add(name, "latest", &packed);
    };
    // The private layer by all of its names, under a config of his own.
    let stolen = PackedLayer {
        media_type: oci_distribution::manifest::IMAGE_LAYER_GZIP_MEDIA_TYPE.to_owned(),
        bytes: private.blobs[&private_layer].clone(),
        diff_id,
    };
    let config = ImageConfig { user: "thief".to_owned(), ..ImageConfig::default() };
    add("layer", &pack(std::slice::from_ref(&stolen), &config).unwrap(), Some(private_layer));
    // Its content's name on a layer of his own.
    let own = PackedLayer { diff_id, ..PackedLayer::gzip(&[0; 1024]).unwrap() };
    add("diff-id", &pack(&[own], &config).unwrap(), None);
    // An index that leads to the private manifest, and a manifest that leads to its config.
    let size = private.manifest.len();
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": private.media_type, "digest": private.digest().to_string(), "size": size,
        "platform": { "os": "linux", "architecture": manifest::this_platform().split_once('/').unwrap().1 },
    }]});
    let media = OCI_IMAGE_INDEX_MEDIA_TYPE;
    registry.add_manifest("index", "latest", media, serde_json::to_vec(&index).unwrap().into());
    registry.add_manifest("config", "latest", &private.media_type, private.manifest.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(registry.serve(listener));
    host
}

#[tokio::test]
async fn who_knows_the_digests_of_a_private_image_and_nothing_else_has_nothing_of_it() {
    let world = World::new().await;
    let host = thief().await;
    for (name, expected) in [
        ("index", "has no such tag or digest"),
        ("config", "answered 404 for the config"),
        ("layer", "answered 404 for the layer"),
        ("diff-id", "diffID digest mismatch"),
    ] {
        let reference = Reference::from_docker_name(&format!("{host}/{name}")).unwrap();
        let pulled = world.store.pull(&reference, None, &Silent).await;
        let error = pulled.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        let resolved = world.store.resolve(&reference, None).await;
        assert_eq!(resolved.is_err(), ["index", "config"].contains(&name), "{name}: {resolved:?}");
    }
    // What was there is there, for whom it is.
    world.asked();
    world.pull(Some(&user("me", "hush"))).await.unwrap();
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_layer_that_another_registry_has_too_is_fetched_there_and_kept_once() {
    let world = World::new().await;
    let (other, seen) = registry(|_, _| None).await;
    let reference = Reference::from_docker_name(&format!("{other}/app")).unwrap();
    let layer = image().1.to_string();
    let fetched =
        |seen: &Lock<Vec<String>>| lock(seen).iter().filter(|it| it.contains(&layer)).count();
    for _ in 0..2 {
        let image = world.store.pull(&reference, None, &Silent).await.unwrap();
        assert_eq!(fs::metadata(image.layers[0].join("file")).unwrap().len(), 300_000);
        assert_eq!(fetched(&seen), 1);
    }
    assert_eq!(fs::read_dir(world.dir.path().join("layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(world.dir.path().join("incomplete")).unwrap().count(), 0);
    // Two at once that are from two places: each has it from its own.
    let fresh = tempfile::tempdir().unwrap();
    let store = Store::open(fresh.path(), key(1)).unwrap();
    let me = user("me", "hush");
    world.asked();
    let pinned = world.pinned();
    let (one, two) = tokio::join!(
        store.pull(&pinned, Some(&me), &Silent),
        store.pull(&reference, None, &Silent),
    );
    drop((one.unwrap(), two.unwrap()));
    assert_eq!((fetched(&world.seen), fetched(&seen)), (1, 2));
}

#[tokio::test]
async fn what_is_collected_is_nobodys() {
    let world = World::new().await;
    let proofs = world.dir.path().join("proofs");
    assert_eq!(fs::read_dir(&proofs).unwrap().count(), 2, "a manifest and a config");
    world.store.collect(&BTreeSet::new()).await.unwrap();
    assert_eq!(fs::read_dir(&proofs).unwrap().count(), 0);
    world.asked();
    world.pull(Some(&user("me", "hush"))).await.unwrap();
    assert!(world.asked() > 0);
}
