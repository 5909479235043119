//! Pulls from a registry of the tests' own that is strict, slow, busy, cut off or elsewhere. Each
//! test says by a function what its registry answers instead of the plain truth.

use std::sync::Mutex as Lock;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{AUTHORIZATION, HOST, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::net::TcpListener;

use super::*;
use crate::image::layout::{Packed, PackedLayer, pack};
use crate::image::serve::{Body, Registry, answer, refusal, serve_with};
use crate::image::{CredentialsFile, ImageConfig, Patience, Silent};

/// base64 of `me:hush`.
const ME: &str = "Basic bWU6aHVzaA==";

/// An image of one layer of 300,000 bytes that gzip cannot shrink much.
pub(super) fn image() -> (Packed, Digest) {
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_size(300_000);
    header.set_mode(0o644);
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(300_000)
    .collect();
    tar.append_data(&mut header, "file", &bytes[..]).unwrap();
    let layer = PackedLayer::gzip(&tar.into_inner().unwrap()).unwrap();
    let digest = Digest::of(&layer.bytes);
    (pack(&[layer], &ImageConfig::default()).unwrap(), digest)
}

/// A registry that has `app`, and answers with what `instead` says, if it says anything. Returns
/// its `host:port`, and all requests so far as `path range authorization`.
pub(super) async fn registry(
    instead: impl Fn(&Parts, &Packed) -> Option<Response<Body>> + Send + Sync + 'static,
) -> (String, Arc<Lock<Vec<String>>>) {
    let (image, _) = image();
    let mut honest = Registry::default();
    honest.add("app", "latest", &image);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Lock::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(serve_with(listener, move |request: &Parts| {
        let header = |name| request.headers.get(name).map_or("-", |value| value.to_str().unwrap());
        let line = format!("{} {} {}", request.uri, header(RANGE), header(AUTHORIZATION));
        log.lock().unwrap().push(line);
        instead(request, &image).unwrap_or_else(|| honest.answer(request))
    }));
    (host, seen)
}

/// A store in a directory of its own.
pub(super) fn store(registries: Registries) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), registries).unwrap();
    (dir, store)
}

pub(super) fn quick() -> Registries {
    let pause = Duration::from_millis(1);
    let patience = Patience {
        pause_first: pause,
        pause_max: pause,
        stall: Duration::from_secs(2),
        ..Patience::default()
    };
    Registries { patience, ..Registries::default() }
}

fn me() -> Credentials {
    Credentials { username: "me".to_owned(), password: "hush".to_owned() }
}

pub(super) async fn pull(
    store: &Store,
    host: &str,
    user: Option<&Credentials>,
) -> Result<Image, Error> {
    let reference = Reference::from_docker_name(&format!("{host}/app")).unwrap();
    store.pull(&reference, user, &Silent).await
}

pub(super) fn is_layer(request: &Parts) -> bool {
    request.uri.path().ends_with(&image().1.to_string())
}

/// Asks for basic authentication, and takes `me:hush`.
fn basic(request: &Parts) -> Option<Response<Body>> {
    let said = request.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
    if said == Some(ME) {
        return None;
    }
    let mut refused = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you?");
    refused.headers_mut().insert(WWW_AUTHENTICATE, "Basic realm=\"it\"".parse().unwrap());
    Some(refused)
}

#[tokio::test]
async fn basic_credentials_are_asked_for_and_given() {
    let (host, _) = registry(|request, _| basic(request)).await;
    let (_dir, store) = store(quick());
    let nobody = pull(&store, &host, None).await.unwrap_err().to_string();
    assert!(
        nobody.ends_with("does not exist or you do not have permissions to see it."),
        "{nobody}"
    );
    let wrong = Credentials { password: "wrong".to_owned(), ..me() };
    let wrong = pull(&store, &host, Some(&wrong)).await.unwrap_err().to_string();
    assert!(wrong.ends_with("authorization failed: username and password are invalid"), "{wrong}");
    assert!(!wrong.contains("wrong:") && !wrong.contains("hush"), "{wrong}");
    pull(&store, &host, Some(&me())).await.unwrap();
}

#[tokio::test]
async fn the_operators_file_is_used_where_a_recipe_names_nobody() {
    let (host, _) = registry(|request, _| basic(request)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6aHVzaA=="}}}}}}"#)).unwrap();
    let credentials = Some(Arc::new(CredentialsFile::open(&path).unwrap()));
    let (_dir, store) = store(Registries { credentials, ..quick() });
    pull(&store, &host, None).await.unwrap();
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_renewed_when_it_runs_out() {
    let tokens = AtomicUsize::new(0);
    let (host, seen) = registry(move |request, _| {
        if request.uri.path() == "/token" {
            if basic(request).is_some() {
                return basic(request);
            }
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"token":"t{number}"}}"#);
            return Some(answer(StatusCode::OK, "application/json", body.into()));
        }
        let said = request.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
        // The layer is given for the second token only: the first has run out by then.
        let good = if is_layer(request) { "Bearer t1" } else { "Bearer t0" };
        if said == Some(good) {
            return None;
        }
        let host = request.headers[HOST].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"it\"");
        let mut refused = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a token, please");
        refused.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        Some(refused)
    })
    .await;
    let (_dir, store) = store(quick());
    pull(&store, &host, Some(&me())).await.unwrap();
    let seen = seen.lock().unwrap();
    let asked = "/token?service=it&scope=repository%3Aapp%3Apull - Basic bWU6aHVzaA==";
    assert_eq!(seen.iter().filter(|line| *line == asked).count(), 2, "{seen:#?}");
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_credentials_along() {
    let (elsewhere, seen_elsewhere) = registry(|_, _| None).await;
    let target = elsewhere.clone();
    let (host, seen) = registry(move |request, _| {
        if basic(request).is_some() {
            return basic(request);
        }
        if !is_layer(request) {
            return None;
        }
        let mut moved = answer(StatusCode::TEMPORARY_REDIRECT, "text/plain", Bytes::new());
        let to = format!("http://{target}{}", request.uri.path());
        moved.headers_mut().insert(LOCATION, to.parse().unwrap());
        Some(moved)
    })
    .await;
    let (_dir, store) = store(quick());
    pull(&store, &host, Some(&me())).await.unwrap();
    assert!(seen.lock().unwrap().iter().any(|line| line.ends_with(ME)));
    let seen = seen_elsewhere.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert!(seen[0].ends_with(" - -"), "{seen:#?}");
}

#[tokio::test]
async fn a_cut_layer_is_resumed_where_it_broke() {
    let asked = AtomicUsize::new(0);
    let (host, seen) = registry(move |request, image| {
        if !is_layer(request) || asked.fetch_add(1, Ordering::Relaxed) > 0 {
            return None;
        }
        let whole = image.blobs[&image_layer(image)].clone();
        let half = whole.slice(..whole.len() / 2);
        // Not before the half is on its way: what waits to be written goes with the connection.
        let cut = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(io::Error::other("cut"))
        };
        let half = futures_util::stream::iter([Ok(Frame::data(half))]);
        let body = StreamBody::new(half.chain(futures_util::stream::once(cut)));
        let mut cut = Response::new(BodyExt::boxed(body));
        cut.headers_mut().insert("content-length", whole.len().to_string().parse().unwrap());
        Some(cut)
    })
    .await;
    let (_dir, store) = store(quick());
    pull(&store, &host, None).await.unwrap();
    let seen = seen.lock().unwrap();
    let layers: Vec<_> = seen.iter().filter(|line| line.contains(&image().1.to_string())).collect();
    assert_eq!(layers.len(), 2, "{layers:#?}");
    assert!(layers[0].contains(" - "), "{layers:#?}");
    let from = layers[1].split("bytes=").nth(1).and_then(|rest| rest.split('-').next()).unwrap();
    assert!(from.parse::<u64>().unwrap() > 0, "{layers:#?}");
}

fn image_layer(image: &Packed) -> Digest {
    *image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says_and_not_for_ever() {
    let asked = AtomicUsize::new(0);
    let (host, _) = registry(move |request, _| {
        let is_manifest = request.uri.path().contains("/manifests/");
        if !is_manifest || asked.fetch_add(1, Ordering::Relaxed) > 0 {
            return None;
        }
        let mut busy = refusal(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "later");
        busy.headers_mut().insert(RETRY_AFTER, "1".parse().unwrap());
        Some(busy)
    })
    .await;
    let (_dir, store_one) = store(quick());
    let began = std::time::Instant::now();
    pull(&store_one, &host, None).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    let (host, seen) = registry(|request, _| {
        let is_manifest = request.uri.path().contains("/manifests/");
        is_manifest.then(|| {
            let mut busy = refusal(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "later");
            busy.headers_mut().insert(RETRY_AFTER, "3600".parse().unwrap());
            busy
        })
    })
    .await;
    let error = pull(&store_one, &host, None).await.unwrap_err().to_string();
    assert!(error.contains("limits the rate of pulls; it asks to wait 3600 s"), "{error}");
    let manifests = seen.lock().unwrap().iter().filter(|line| line.contains("manifests")).count();
    assert_eq!(manifests, 1, "whoever asks for an hour is not asked again");
}

#[tokio::test]
async fn a_faulty_registry_is_asked_again_a_bounded_number_of_times() {
    let asked = AtomicUsize::new(0);
    let (host, _) = registry(move |request, _| {
        let is_layer = is_layer(request);
        let fails = is_layer && asked.fetch_add(1, Ordering::Relaxed) < 2;
        fails.then(|| refusal(StatusCode::BAD_GATEWAY, "UNKNOWN", "oops"))
    })
    .await;
    let (_dir, store) = store(quick());
    pull(&store, &host, None).await.unwrap();

    let (host, seen) = registry(|request, _| {
        request
            .uri
            .path()
            .contains("/manifests/")
            .then(|| refusal(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "oops"))
    })
    .await;
    let error = pull(&store, &host, None).await.unwrap_err().to_string();
    assert!(error.contains("answered 500 for the manifest: oops"), "{error}");
    let manifests = seen.lock().unwrap().iter().filter(|line| line.contains("manifests")).count();
    assert_eq!(manifests, 3);
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_their_failures_are_passed_over() {
    let (liar, lies) = registry(|request, image| {
        if !is_layer(request) {
            return None;
        }
        let mut bytes = image.blobs[&image_layer(image)].to_vec();
        bytes[5000] ^= 1;
        Some(answer(StatusCode::OK, "application/octet-stream", bytes.into()))
    })
    .await;
    let (mirror, mirrored) = registry(|_, _| None).await;
    let (host, seen) = registry(|request, _| basic(request)).await;
    // Nobody listens on port 1.
    let mirrors = vec!["127.0.0.1:1".to_owned(), liar, mirror];
    let mirrors = BTreeMap::from([(host.clone(), mirrors)]);
    let (_dir, store_one) = store(Registries { mirrors: mirrors.clone(), ..quick() });
    pull(&store_one, &host, None).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 0, "the registry was not needed");
    assert!(!lies.lock().unwrap().is_empty() && !mirrored.lock().unwrap().is_empty());

    // A recipe's own user is nobody's business but the registry's.
    let before = mirrored.lock().unwrap().len();
    let (_dir, store_two) = store(Registries { mirrors, ..quick() });
    pull(&store_two, &host, Some(&me())).await.unwrap();
    assert_eq!(mirrored.lock().unwrap().len(), before);
}

#[tokio::test]
async fn an_image_too_large_for_its_container_is_refused_before_any_layer_is_asked_for() {
    let (host, seen) = registry(|_, _| None).await;
    let (_dir, store) = store(quick());
    let reference = Reference::from_docker_name(&format!("{host}/app")).unwrap();
    let bytes = store.resolve(&reference, None).await.unwrap().total_bytes();
    let pull = |limit| store.pull_within(Some(limit), &reference, None, &Silent);
    let error = pull(bytes - 1).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("layers exceed disk quota {bytes}/{} bytes", bytes - 1)));
    let layer = image().1.to_string();
    assert!(!seen.lock().unwrap().iter().any(|line| line.contains(&layer)));
    pull(bytes).await.unwrap();
}
