//! Several stores and one registry: layers come from their homes, and a home that is away, lies or
//! dawdles costs only time.

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::registry_tests::{image, is_layer, pull, quick, registry, store};
use super::*;

/// How a store of the test passes a layer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    Away,
    Lying,
    CutOff,
    Silent,
}

/// The stores as one of them sees them.
#[derive(Debug)]
struct Street {
    own: usize,
    home: usize,
    stores: Vec<Store>,
    manner: Manner,
}

impl Neighbours for Street {
    fn home(&self, _: &Wanted) -> Home {
        if self.own == self.home { Home::Here } else { Home::There(self.home.to_string()) }
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        let (mut out, stream) = tokio::io::duplex(64 << 10);
        let manner = self.manner;
        let home = self.stores[name.parse::<usize>().unwrap()].clone();
        Box::pin(async move {
            if manner == Manner::Away {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let mut shared = home.share(wanted).map_err(io::Error::other)?;
            tokio::spawn(async move {
                while let Ok(Some(mut chunk)) = shared.next().await {
                    match manner {
                        Manner::Lying => {
                            let mut other = chunk.to_vec();
                            other[100] ^= 1;
                            chunk = other.into();
                        }
                        Manner::CutOff => {
                            let _ = out.write_all(&chunk[..chunk.len() / 2]).await;
                            return;
                        }
                        Manner::Silent => std::future::pending().await,
                        Manner::Honest | Manner::Away => {}
                    }
                    if out.write_all(&chunk).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>)
        })
    }
}

/// So many stores, of which number 0 is home, and their directories.
fn street(count: usize, manner: Manner) -> (Vec<tempfile::TempDir>, Vec<Store>) {
    let (dirs, stores): (Vec<_>, Vec<_>) = (0..count).map(|_| store(quick())).unzip();
    for (own, it) in stores.iter().enumerate() {
        it.meet(Arc::new(Street { own, home: 0, stores: stores.clone(), manner }));
    }
    (dirs, stores)
}

fn layers_sent(seen: &Mutex<Vec<String>>) -> usize {
    let layer = image().1.to_string();
    lock(seen).iter().filter(|line| line.contains(&layer)).count()
}

#[tokio::test]
async fn however_many_stores_want_a_layer_at_once_the_registry_sends_it_once() {
    let (host, seen) = registry(|_, _| None).await;
    let (_dirs, stores) = street(6, Manner::Honest);
    let pulls =
        stores.iter().flat_map(|store| [pull(store, &host, None), pull(store, &host, None)]);
    let images = try_join_all(pulls).await.unwrap();
    for image in &images {
        assert_eq!(fs::metadata(image.layers[0].join("file")).unwrap().len(), 300_000);
    }
    assert_eq!(layers_sent(&seen), 1);
    let origins: Vec<_> = stores.iter().map(Store::origins).collect();
    assert_eq!(origins.iter().map(|it| it.registry).sum::<u64>(), 1);
    assert_eq!(origins.iter().map(|it| it.neighbours).sum::<u64>(), 5);
    assert_eq!(origins[0].sent, 5);
}

#[tokio::test]
async fn a_home_keeps_what_it_passed_on() {
    let (host, seen) = registry(|_, _| None).await;
    let (_dirs, stores) = street(3, Manner::Honest);
    for store in stores.iter().rev() {
        pull(store, &host, None).await.unwrap();
    }
    assert_eq!(layers_sent(&seen), 1);
}

#[tokio::test]
async fn a_home_that_fails_is_passed_over_for_the_registry() {
    for manner in [Manner::Away, Manner::Lying, Manner::CutOff] {
        let (host, seen) = registry(|_, _| None).await;
        let (_dirs, stores) = street(2, manner);
        pull(&stores[1], &host, None).await.unwrap();
        assert!(layers_sent(&seen) >= 1, "{manner:?}");
        let origins = stores[1].origins();
        assert_eq!((origins.registry, origins.neighbours), (1, 0), "{manner:?}");
    }
}

#[tokio::test]
async fn a_silent_home_costs_a_bounded_time() {
    let (host, _) = registry(|_, _| None).await;
    let (_dirs, stores) = street(2, Manner::Silent);
    let began = std::time::Instant::now();
    pull(&stores[1], &host, None).await.unwrap();
    let bound = crate::limits::NEIGHBOUR_STALL_MAX;
    assert!(began.elapsed() >= bound && began.elapsed() < bound * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_home_whose_registry_refuses_it_does_not_hide_the_reason() {
    let (host, _) = registry(|request, _| {
        is_layer(request).then(|| {
            let status = hyper::StatusCode::FORBIDDEN;
            crate::image::serve::refusal(status, "DENIED", "not for you")
        })
    })
    .await;
    let (_dirs, stores) = street(2, Manner::Honest);
    let error = pull(&stores[1], &host, None).await.unwrap_err().to_string();
    assert!(error.ends_with("does not exist or you do not have permissions to see it."), "{error}");
}

#[tokio::test]
async fn what_is_kept_for_others_is_bounded_and_the_longest_unused_goes() {
    let (host, _) = registry(|_, _| None).await;
    let registries = Registries { share_bytes_max: Some(100_000), ..quick() };
    let (dir, home) = store(registries);
    let (_other, other) = store(quick());
    let stores = vec![home, other];
    for (own, it) in stores.iter().enumerate() {
        let stores = stores.clone();
        it.meet(Arc::new(Street { own, home: 0, stores, manner: Manner::Honest }));
    }
    pull(&stores[1], &host, None).await.unwrap();
    assert_eq!(stores[1].origins().neighbours, 1, "it was passed on all the same");
    assert_eq!(fs::read_dir(dir.path().join("packed")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_home_gives_a_layer_of_one_registry_to_no_image_of_another() {
    let (host, seen) = registry(|_, _| None).await;
    let (_dirs, stores) = street(2, Manner::Honest);
    pull(&stores[1], &host, None).await.unwrap();
    // Who knows its digest, and has a registry that knows nothing of it.
    let (thief, asked) = registry(|request, _| {
        is_layer(request).then(|| {
            let status = hyper::StatusCode::NOT_FOUND;
            crate::image::serve::refusal(status, "BLOB_UNKNOWN", "blob unknown")
        })
    })
    .await;
    for store in &stores {
        let error = pull(store, &thief, None).await.map(drop).unwrap_err().to_string();
        assert!(error.contains("answered 404 for the layer"), "{error}");
    }
    assert!(layers_sent(&asked) >= 2);
    assert_eq!(layers_sent(&seen), 1);
    // And the same registry's images have it from home.
    drop(pull(&stores[0], &host, None).await.unwrap());
    assert_eq!(layers_sent(&seen), 1);
}
