//! A registry that only serves: images from memory by the pull half of the OCI distribution
//! specification, over plain HTTP. `gavel dev` offers its sample from one on loopback, and tests
//! make hostile ones of it. No pushes, no users, no TLS: not for a network.
//!
//! On hyper rather than axum: three routes need no router, and the client half of this crate
//! brings hyper already.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::image::Digest;
use crate::image::layout::Packed;
use crate::limits::{SERVE_CONNECTIONS_MAX, SERVE_HEADER_MAX};

/// A body that may break off: only tests have ones that do.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// The images on offer.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Repository and version (tag or digest) to media type and bytes.
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Registry {
    /// Offers an image as `repository:tag` and by its digest. An earlier one of that tag keeps
    /// its digest only.
    pub fn add(&mut self, repository: &str, tag: &str, image: &Packed) {
        for version in [tag.to_owned(), image.digest().to_string()] {
            self.add_manifest(repository, &version, &image.media_type, image.manifest.clone());
        }
        self.blobs.extend(image.blobs.clone());
    }

    pub(crate) fn add_manifest(&mut self, repository: &str, version: &str, media: &str, it: Bytes) {
        let key = (repository.to_owned(), version.to_owned());
        self.manifests.insert(key, (media.to_owned(), it));
    }

    /// Serves connections until the future is dropped, which closes them.
    ///
    /// # Errors
    /// The listener cannot be used any more.
    pub async fn serve(self, listener: TcpListener) -> io::Result<Infallible> {
        serve_with(listener, move |request| self.answer(request)).await
    }

    /// What a request is answered with.
    pub(crate) fn answer(&self, request: &Parts) -> Response<Body> {
        if request.method != Method::GET && request.method != Method::HEAD {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "read only");
        }
        let Some(path) = request.uri.path().strip_prefix("/v2/") else {
            return refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "the API begins at /v2/");
        };
        if path.is_empty() {
            return answer(StatusCode::OK, "application/json", Bytes::from_static(b"{}"));
        }
        // Repositories hold slashes, versions and digests do not.
        let mut parts = path.rsplitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(version), Some("manifests"), Some(repository)) => {
                self.manifest(repository, version)
            }
            (Some(digest), Some("blobs"), Some(_)) => self.blob(digest, request),
            _ => refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such route"),
        }
    }

    fn manifest(&self, repository: &str, version: &str) -> Response<Body> {
        let Some((media_type, bytes)) =
            self.manifests.get(&(repository.to_owned(), version.to_owned()))
        else {
            return refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let mut response = answer(StatusCode::OK, media_type, bytes.clone());
        let digest = Digest::of(bytes).to_string();
        if let Ok(digest) = digest.parse() {
            response.headers_mut().insert("docker-content-digest", digest);
        }
        response
    }

    fn blob(&self, digest: &str, request: &Parts) -> Response<Body> {
        let found = digest.parse().ok().and_then(|digest: Digest| self.blobs.get(&digest));
        let Some(bytes) = found else {
            return refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown");
        };
        let media_type = "application/octet-stream";
        let range = request.headers.get(RANGE).and_then(|value| value.to_str().ok());
        let start = range
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .filter(|start: &usize| *start < bytes.len());
        let mut response = match start {
            Some(start) => {
                let part = bytes.slice(start..);
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                let mut response = answer(StatusCode::PARTIAL_CONTENT, media_type, part);
                if let Ok(range) = range.parse() {
                    response.headers_mut().insert(CONTENT_RANGE, range);
                }
                response
            }
            None => answer(StatusCode::OK, media_type, bytes.clone()),
        };
        let accepts = hyper::header::HeaderValue::from_static("bytes");
        response.headers_mut().insert(ACCEPT_RANGES, accepts);
        response
    }
}

/// An answer of these bytes. For HEAD hyper sends its headers alone.
pub(crate) fn answer(status: StatusCode, media_type: &str, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(media_type) = media_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    response
}

/// An error as the specification wants it.
pub(crate) fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    answer(status, "application/json", body.to_string().into())
}

/// Serves connections with `handler` until the future is dropped, which closes them.
pub(crate) async fn serve_with<H>(listener: TcpListener, handler: H) -> io::Result<Infallible>
where
    H: Fn(&Parts) -> Response<Body> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= SERVE_CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        let handler = Arc::clone(&handler);
        let service = service_fn(move |request: Request<Incoming>| {
            let (parts, _) = request.into_parts();
            std::future::ready(Ok::<_, Infallible>(handler(&parts)))
        });
        connections.spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(SERVE_HEADER_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the registry broke");
            }
        });
        // Those that have ended need no place.
        while connections.try_join_next().is_some() {}
    }
}
