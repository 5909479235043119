//! The store before registries that keep their word, and before those that do not.

use std::sync::Mutex as Lock;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::http::request::Parts;
use tokio::net::TcpListener;

use super::*;
use crate::image::layout::{Packed, PackedLayer, pack};
use crate::image::registry::Patience;
use crate::image::serve::{Registry, answer, serve_with};
use crate::image::{ImageConfig, Silent};

/// What a registry does to a layer on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Honest,
    WrongByte,
    TooShort,
}

/// A store and the registry that it pulls from.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    image: Packed,
    reference: Reference,
    mood: Arc<Lock<Mood>>,
    /// Requests for layers so far.
    layers_asked: Arc<AtomicUsize>,
}

impl World {
    async fn new() -> Self {
        let mut tar = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_ustar();
        header.set_size(100_000);
        header.set_mode(0o644);
        // Random enough that gzip leaves much of it.
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(n).to_le_bytes()[1]).collect();
        tar.append_data(&mut header, "file", &bytes[..]).unwrap();
        let layer = PackedLayer::gzip(&tar.into_inner().unwrap()).unwrap();
        let layer_digest = Digest::of(&layer.bytes);
        let image = pack(&[layer], &ImageConfig::default()).unwrap();
        let mut registry = Registry::default();
        registry.add("app", "latest", &image);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reference = format!("{}/app", listener.local_addr().unwrap());
        let mood = Arc::new(Lock::new(Mood::Honest));
        let layers_asked = Arc::new(AtomicUsize::new(0));
        let (its_mood, asked) = (Arc::clone(&mood), Arc::clone(&layers_asked));
        let blobs = image.blobs.clone();
        tokio::spawn(serve_with(listener, move |request: &Parts| {
            if !request.uri.path().ends_with(&layer_digest.to_string()) {
                return registry.answer(request);
            }
            asked.fetch_add(1, Ordering::Relaxed);
            let mut bytes = blobs[&layer_digest].to_vec();
            match *its_mood.lock().unwrap() {
                Mood::Honest => return registry.answer(request),
                Mood::WrongByte => bytes[5000] ^= 1,
                Mood::TooShort => bytes.truncate(5000),
            }
            answer(hyper::StatusCode::OK, "application/octet-stream", bytes.into())
        }));
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), quick()).unwrap();
        let reference = Reference::from_docker_name(&reference).unwrap();
        Self { dir, store, image, reference, mood, layers_asked }
    }

    async fn pull(&self) -> Result<Image, Error> {
        self.store.pull(&self.reference, None, &Silent).await
    }

    fn feels(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn names(&self, dir: &str) -> usize {
        fs::read_dir(self.dir.path().join(dir)).unwrap().count()
    }
}

fn quick() -> Registries {
    let pause = Duration::from_millis(1);
    let patience = Patience { pause_first: pause, pause_max: pause, ..Patience::default() };
    Registries { patience, ..Registries::default() }
}

#[tokio::test]
async fn an_image_is_pulled_and_its_layer_is_there() {
    let world = World::new().await;
    let image = world.pull().await.unwrap();
    assert_eq!(image.digest, world.image.digest());
    assert_eq!(image.bytes, 100_000);
    assert_eq!(fs::metadata(image.layers[0].join("file")).unwrap().len(), 100_000);
    assert_eq!((world.names("layers"), world.names("incomplete")), (1, 0));
}

#[tokio::test]
async fn many_who_want_a_layer_fetch_it_once() {
    let world = World::new().await;
    let pulls = try_join_all((0..20).map(|_| world.pull())).await.unwrap();
    assert_eq!(pulls.len(), 20);
    assert_eq!(world.layers_asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_layer_of_other_bytes_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    for (mood, expected) in [(Mood::WrongByte, "digest mismatch"), (Mood::TooShort, "layer size")] {
        world.feels(mood);
        let error = world.pull().await.unwrap_err().to_string();
        assert!(error.contains("/app") && error.contains(expected), "{mood:?}: {error}");
        assert_eq!((world.names("layers"), world.names("incomplete")), (0, 0), "{mood:?}");
    }
    world.feels(Mood::Honest);
    world.pull().await.unwrap();
}

#[tokio::test]
async fn a_store_has_one_owner_and_the_next_one_finds_what_is_whole() {
    let world = World::new().await;
    let refused = Store::open(world.dir.path(), quick()).unwrap_err();
    assert!(matches!(refused, Error::StoreInUse { .. }), "{refused}");
    let image = world.pull().await.unwrap();
    let World { dir, store, reference, layers_asked, .. } = world;
    drop((image, store));
    // As a process leaves it that is killed while it unpacks.
    fs::create_dir_all(dir.path().join("incomplete/half/made")).unwrap();
    // The flight that brought the layer may hold the store for a moment still.
    let again = loop {
        match Store::open(dir.path(), quick()) {
            Ok(store) => break store,
            Err(Error::StoreInUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(fs::read_dir(dir.path().join("incomplete")).unwrap().count(), 0);
    again.pull(&reference, None, &Silent).await.unwrap();
    assert_eq!(layers_asked.load(Ordering::Relaxed), 1);
}
