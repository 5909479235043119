//! Asks registries: which protocol, which credentials, then manifests, configs and layers
//! (OCI distribution specification; Docker's token authentication). Never writes to the disk,
//! and never believes a digest that it has not computed.
//!
//! The exchange itself is ours, over `reqwest`; oci-client gives the types of what is exchanged.
//! Its `Client` is not used, because a node takes image names from strangers (read in 0.18.0):
//! it reads manifests, tokens and error bodies whole, however long, so that one hostile registry
//! could take the node's memory; its token cache does not tell two users of a repository apart;
//! and it keeps neither the status nor the Retry-After of a refusal, so that a rate limit, a
//! fault and a wrong password look alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use oci_distribution::errors::{OciEnvelope, OciErrorCode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::RwLock;

use crate::image::credentials::{self, Credentials, CredentialsFile};
use crate::image::error::Part;
use crate::image::manifest::{self, Blob};
use crate::image::proofs::{Asker, ProofKey};
use crate::image::reference::is_loopback;
use crate::image::{Error, Reference};
use crate::limits::{
    CONFIG_BYTES_MAX, ERROR_BODY_BYTES_MAX, LAYER_FETCH_MAX, LAYERS_SHARED_BYTES_MAX,
    MANIFEST_BYTES_MAX, REGISTRY_CONNECT_MAX, REGISTRY_EXCHANGE_MAX, REGISTRY_PAUSE_FIRST,
    REGISTRY_PAUSE_MAX, REGISTRY_RETRY_AFTER_MAX, REGISTRY_STALL_MAX, REGISTRY_TRIES_MAX,
};

/// Redirects followed for one request; blobs are often one hop away, in an object store.
const REDIRECTS_MAX: usize = 5;
/// How much of a registry's own words is shown.
const MESSAGE_CHARS_MAX: usize = 200;

/// How to treat registries.
#[derive(Default, Debug, Clone)]
pub struct Registries {
    /// `host[:port]`, matched exactly: the certificate is not checked, and plain HTTP is taken
    /// where HTTPS is not spoken. This machine's own addresses are always treated so, as Docker
    /// does.
    pub insecure: BTreeSet<String>,
    /// Certificates to trust besides the system's, each in PEM.
    pub ca_certificates: Vec<Vec<u8>>,
    /// By registry as references name it (`docker.io`, `host[:port]`): `host[:port]` of mirrors,
    /// asked in this order before the registry itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The operator's own users of registries.
    pub credentials: Option<Arc<CredentialsFile>>,
    /// With what it is kept whom an image was given to; one is drawn where there is none, and what
    /// users of recipes were given is asked for again after a restart.
    pub proof_key: Option<ProofKey>,
    /// What is kept of layers for other stores, in bytes, if not the default.
    pub share_bytes_max: Option<u64>,
    /// How long to wait and how often to try.
    pub patience: Patience,
}

/// Whether these bytes are authorities, one or several, in PEM.
///
/// # Errors
/// Says what is wrong with them.
pub fn check_authority(pem: &[u8]) -> Result<(), String> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| deepest(&e))?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(())
}

/// How long to wait for a registry and how often to try. The defaults are the figures of
/// [`crate::limits`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To a connection.
    pub connect: Duration,
    /// Silence in mid-answer.
    pub stall: Duration,
    /// A whole small exchange.
    pub exchange: Duration,
    /// A whole layer.
    pub layer: Duration,
    /// Tries of one request, at least 1.
    pub tries: u32,
    /// Before the second try; doubled for each further one.
    pub pause_first: Duration,
    /// The longest pause of our own choice.
    pub pause_max: Duration,
    /// The longest pause at a registry's wish.
    pub retry_after_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: REGISTRY_CONNECT_MAX,
            stall: REGISTRY_STALL_MAX,
            exchange: REGISTRY_EXCHANGE_MAX,
            layer: LAYER_FETCH_MAX,
            tries: REGISTRY_TRIES_MAX,
            pause_first: REGISTRY_PAUSE_FIRST,
            pause_max: REGISTRY_PAUSE_MAX,
            retry_after_max: REGISTRY_RETRY_AFTER_MAX,
        }
    }
}

/// The HTTP clients of one store. They hold connections and certificates but no credentials, so
/// all users share them.
#[derive(Debug)]
pub(crate) struct Clients {
    registries: Registries,
    proof_key: ProofKey,
    checked: OnceLock<Result<Client, String>>,
    unchecked: OnceLock<Result<Client, String>>,
}

impl Clients {
    pub(crate) fn new(registries: Registries) -> Self {
        let proof_key = registries.proof_key.unwrap_or_else(ProofKey::random);
        Self { registries, proof_key, checked: OnceLock::new(), unchecked: OnceLock::new() }
    }

    /// Who asks for an image, as it is kept whom it was given to.
    pub(crate) fn asker(&self, image: &Reference, own: Option<&Credentials>) -> Asker {
        let node = credentials::choose(None, self.registries.credentials.as_deref(), image);
        Asker::new(&self.proof_key, image, own, node.as_ref())
    }

    /// What is asked for an image on behalf of a user, the registry itself last. A recipe's own
    /// credentials are for its registry alone, so then nobody else is asked.
    pub(crate) fn endpoints(&self, image: &Reference, own: Option<&Credentials>) -> Vec<Endpoint> {
        let file = self.registries.credentials.as_deref();
        let mut endpoints = Vec::new();
        for host in self.registries.mirrors.get(image.registry()).into_iter().flatten() {
            if own.is_none() {
                let user = file.and_then(|file| file.find(host, image.repository()));
                endpoints.push(Endpoint { host: host.clone(), user, is_mirror: true });
            }
        }
        let user = credentials::choose(own, file, image);
        endpoints.push(Endpoint { host: image.endpoint().to_owned(), user, is_mirror: false });
        endpoints
    }

    pub(crate) fn share_bytes_max(&self) -> u64 {
        self.registries.share_bytes_max.unwrap_or(LAYERS_SHARED_BYTES_MAX)
    }

    fn is_insecure(&self, host: &str) -> bool {
        self.registries.insecure.contains(host) || is_loopback(host)
    }

    /// The client for a host. Built when first wanted: on a machine without any CA certificate
    /// the checking one cannot be built, and a registry on loopback must work all the same.
    fn client(&self, insecure: bool) -> Result<&Client, String> {
        let slot = if insecure { &self.unchecked } else { &self.checked };
        slot.get_or_init(|| self.build(insecure)).as_ref().map_err(Clone::clone)
    }

    fn build(&self, insecure: bool) -> Result<Client, String> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Fails if the process has chosen another provider, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let patience = &self.registries.patience;
        let mut builder = Client::builder()
            .user_agent(concat!("gavel/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            .connect_timeout(patience.connect)
            .read_timeout(patience.stall);
        for pem in &self.registries.ca_certificates {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|e| deepest(&e))?;
            builder = builder.tls_certs_merge(certificates);
        }
        builder = if insecure {
            builder.tls_danger_accept_invalid_certs(true).no_proxy()
        } else {
            // Neither a redirect nor a token's realm may take credentials or tags to plain HTTP.
            builder.https_only(true)
        };
        builder.build().map_err(|e| deepest(&e))
    }
}

/// Who is asked for an image, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `host[:port]`.
    pub(crate) host: String,
    user: Option<Credentials>,
    pub(crate) is_mirror: bool,
}

/// One image's talk with its registry or a mirror, on behalf of one user.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) patience: Patience,
    http: Client,
    /// The image in full, for errors.
    image: String,
    repository: String,
    host: String,
    /// `scheme://host`.
    base: String,
    credentials: Option<Credentials>,
    authorization: RwLock<Authorization>,
    /// The status of the answer to `/v2/`, where it is none of a registry's.
    greeted_with: Option<u16>,
}

#[derive(Clone, PartialEq, Eq)]
enum Authorization {
    None,
    Basic,
    Bearer(String),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// A failed try: the error if it was the last, and whether another may go better.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

/// Whether another try may go better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Soon,
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::Never }
    }
}

impl Session {
    /// Finds out how the registry is spoken to and what it wants to see, and gets a token if it
    /// wants one.
    pub(crate) async fn open(
        clients: &Clients,
        image: &Reference,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        let host = endpoint.host.as_str();
        let insecure = clients.is_insecure(host);
        let http = clients
            .client(insecure)
            .map_err(|reason| Error::UntrustedRegistry { host: host.to_owned(), reason })?;
        let mut patience = clients.registries.patience;
        if endpoint.is_mirror {
            // The registry itself comes next, and has its own tries.
            patience.tries = 1;
        }
        let mut session = Self {
            patience,
            http: http.clone(),
            image: image.to_string(),
            repository: image.repository().to_owned(),
            host: host.to_owned(),
            base: format!("https://{host}"),
            credentials: endpoint.user.clone(),
            authorization: RwLock::new(Authorization::None),
            greeted_with: None,
        };
        let challenges = session.greet(insecure).await?;
        let authorization = session.retrying(|| session.authorize(&challenges)).await?;
        *session.authorization.get_mut() = authorization;
        Ok(session)
    }

    /// Settles the scheme and returns the challenges that the registry answers with.
    async fn greet(&mut self, insecure: bool) -> Result<HeaderMap, Error> {
        let https = self.retrying(|| self.ping(&self.base, insecure)).await;
        let mut answer = match https {
            // HTTPS first, then HTTP, as Docker does for insecure registries.
            Err(Error::Unreachable { .. } | Error::PlainRegistry { .. }) if insecure => {
                self.base = format!("http://{}", self.host);
                self.retrying(|| self.ping(&self.base, false)).await?
            }
            answer => answer?,
        };
        // Told only when there is no manifest either: some proxies have manifests and no `/v2/`.
        if answer.status() == StatusCode::NOT_FOUND {
            self.greeted_with = Some(answer.status().as_u16());
        }
        Ok(std::mem::take(answer.headers_mut()))
    }

    async fn ping(&self, base: &str, once: bool) -> Result<Response, Failure> {
        let answer = self.exchange(self.http.get(format!("{base}/v2/"))).await;
        answer.map_err(|mut failure| {
            if once {
                failure.again = Again::Never;
            }
            failure
        })
    }

    /// The manifest or index of this version (a tag or a digest), and its content type.
    pub(crate) async fn manifest(&self, version: &str) -> Result<(Bytes, String), Error> {
        let url = format!("{}/v2/{}/manifests/{version}", self.base, self.repository);
        self.retrying(|| async {
            let request = self.http.get(&url).header(ACCEPT, manifest::ACCEPT);
            let response = self.get(request, Part::Manifest).await?;
            let content_type = header(&response, &CONTENT_TYPE).to_owned();
            let body = self.body(response, Part::Manifest, MANIFEST_BYTES_MAX).await?;
            Ok((body, content_type))
        })
        .await
    }

    /// The config's bytes, not yet verified.
    pub(crate) async fn config(&self, blob: Blob) -> Result<Bytes, Error> {
        let url = self.blob_url(blob);
        self.retrying(|| async {
            let response = self.get(self.http.get(&url), Part::Config).await?;
            self.body(response, Part::Config, CONFIG_BYTES_MAX).await
        })
        .await
    }

    /// One try at a layer's bytes from `offset` on. The body may start at 0 all the same (status
    /// 200): not every registry resumes.
    pub(crate) async fn layer(&self, blob: Blob, offset: u64) -> Result<Response, Failure> {
        let mut request = self.http.get(self.blob_url(blob));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        self.get(request, Part::Layer(blob.digest)).await
    }

    fn blob_url(&self, blob: Blob) -> String {
        format!("{}/v2/{}/blobs/{}", self.base, self.repository, blob.digest)
    }

    /// Tries until it works, cannot work, or the tries are used up.
    async fn retrying<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut failed = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    failed += 1;
                    self.pause(failure, failed).await?;
                }
            }
        }
    }

    /// Waits before the next try, or says why there is none. `failed` counts the tries so far.
    pub(crate) async fn pause(&self, failure: Failure, failed: u32) -> Result<(), Error> {
        let pause = self.patience.pause(failure.again, failed).ok_or(failure.error)?;
        tracing::debug!(image = %self.image, host = %self.host, ?pause, failed, "asking again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends with the credentials, and turns every answer but success into a failure. A token
    /// that has run out during a long pull is renewed once; so is one that the registry asks for
    /// only now.
    async fn get(&self, request: RequestBuilder, part: Part) -> Result<Response, Failure> {
        let authorization = self.authorization.read().await.clone();
        let again = request.try_clone();
        let response = self.exchange(self.with_credentials(request, &authorization)).await?;
        let (Some(again), StatusCode::UNAUTHORIZED) = (again, response.status()) else {
            return self.success(response, part).await;
        };
        let fresh = self.renew(&authorization, response.headers()).await?;
        if fresh == authorization {
            return self.success(response, part).await;
        }
        let response = self.exchange(self.with_credentials(again, &fresh)).await?;
        self.success(response, part).await
    }

    /// A new token instead of `stale`, unless another request has just fetched one.
    async fn renew(
        &self,
        stale: &Authorization,
        challenges: &HeaderMap,
    ) -> Result<Authorization, Failure> {
        let mut current = self.authorization.write().await;
        if *current == *stale {
            *current = self.authorize(challenges).await?;
        }
        Ok(current.clone())
    }

    fn with_credentials(&self, request: RequestBuilder, how: &Authorization) -> RequestBuilder {
        match (how, &self.credentials) {
            (Authorization::Bearer(token), _) => request.bearer_auth(token),
            (Authorization::Basic, Some(user)) => {
                request.basic_auth(&user.username, Some(&user.password))
            }
            (Authorization::Basic | Authorization::None, _) => request,
        }
    }

    /// Answers a registry's challenges: nothing, basic authentication, or a token from where the
    /// registry says (Docker registry v2 token specification).
    async fn authorize(&self, challenges: &HeaderMap) -> Result<Authorization, Failure> {
        let mut how = Authorization::None;
        for value in challenges.get_all(WWW_AUTHENTICATE) {
            let parser =
                http_auth::parser::ChallengeParser::new(value.to_str().unwrap_or_default());
            for challenge in parser.map_while(Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let parameter = |name: &str| {
                        let found =
                            challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    let realm = parameter("realm").unwrap_or_default();
                    return self.token(&realm, parameter("service")).await;
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") && self.credentials.is_some() {
                    how = Authorization::Basic;
                }
            }
        }
        Ok(how)
    }

    async fn token(&self, realm: &str, service: Option<String>) -> Result<Authorization, Failure> {
        let mut url = Url::parse(realm).map_err(|e| {
            self.rubbish(Part::Registry, format!("the token realm {realm:?} is no URL: {e}"))
        })?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.repository));
        }
        let how =
            if self.credentials.is_some() { Authorization::Basic } else { Authorization::None };
        let response = self.exchange(self.with_credentials(self.http.get(url), &how)).await?;
        let response = self.success(response, Part::Registry).await?;
        let body = self.body(response, Part::Registry, MANIFEST_BYTES_MAX).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|e| {
            self.rubbish(Part::Registry, format!("a token that cannot be read: {e}"))
        })?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        // What cannot stand in a header is no token.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self
                .rubbish(Part::Registry, "an answer without a token".to_owned())
                .into());
        }
        Ok(Authorization::Bearer(token))
    }

    /// Sends and awaits the head of the answer.
    async fn exchange(&self, request: RequestBuilder) -> Result<Response, Failure> {
        match tokio::time::timeout(self.patience.exchange, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.broken(&error)),
            Err(_) => Err(self.unreachable("no answer in time".to_owned())),
        }
    }

    /// Reads a small body whole.
    async fn body(&self, response: Response, part: Part, max: u64) -> Result<Bytes, Failure> {
        let too_long = || self.rubbish(part, format!("it is longer than {max} bytes")).into();
        if response.content_length().is_some_and(|length| length > max) {
            return Err(too_long());
        }
        let read = tokio::time::timeout(self.patience.exchange, read_up_to(response, max)).await;
        match read {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(too_long()),
            Ok(Err(error)) => Err(self.broken(&error)),
            Err(_) => Err(self.unreachable(format!("the {part} did not arrive in time"))),
        }
    }

    /// Passes success on and says what any other status means.
    async fn success(&self, response: Response, part: Part) -> Result<Response, Failure> {
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(response);
        }
        let retry_after =
            header(&response, &RETRY_AFTER).trim().parse().ok().map(Duration::from_secs);
        // The registry's own words are an extra: whatever goes wrong here, the status stands.
        let words = self.body(response, part, ERROR_BODY_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = first_error(&words);
        let image = self.image.clone();
        let host = self.host.clone();
        let again = retry_after.map_or(Again::Soon, Again::After);
        Err(match status.as_u16() {
            401 if self.credentials.is_some() => Error::BadCredentials { image }.into(),
            401 | 403 => Error::NotFoundOrDenied { image }.into(),
            404 if part == Part::Manifest => match code {
                Some(OciErrorCode::ManifestUnknown) => Error::NoSuchVersion { image }.into(),
                _ => match self.greeted_with {
                    Some(status) => Error::NoRegistry { image, host, status }.into(),
                    None => Error::NotFoundOrDenied { image }.into(),
                },
            },
            429 => Failure { error: Error::RateLimited { image, host, retry_after }, again },
            status => {
                let transient = status >= 500 || status == 408;
                let error = Error::Status { image, host, what: part, status, message };
                Failure { error, again: if transient { again } else { Again::Never } }
            }
        })
    }

    pub(crate) fn rubbish(&self, what: Part, reason: String) -> Error {
        Error::Rubbish { image: self.image.clone(), host: self.host.clone(), what, reason }
    }

    pub(crate) fn unreachable(&self, reason: String) -> Failure {
        let (image, host) = (self.image.clone(), self.host.clone());
        Failure { error: Error::Unreachable { image, host, reason }, again: Again::Soon }
    }

    /// What a connection that could not be made, or broke, means.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> Failure {
        let reason = deepest(error);
        let host = || self.host.clone();
        match tls_fault(error) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                return Error::UntrustedRegistry { host: host(), reason }.into();
            }
            // Not one byte of TLS came.
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
                return Error::PlainRegistry { host: host() }.into();
            }
            _ => {}
        }
        if error.is_builder() || error.is_redirect() {
            return self.rubbish(Part::Registry, reason).into();
        }
        self.unreachable(reason)
    }
}

impl Patience {
    /// How long to wait before try number `failed + 1`; `None` if there is none.
    fn pause(&self, again: Again, failed: u32) -> Option<Duration> {
        if failed >= self.tries {
            return None;
        }
        match again {
            Again::Never => None,
            Again::After(wish) => (wish <= self.retry_after_max).then_some(wish),
            Again::Soon => {
                let doubled = self.pause_first.saturating_mul(1 << (failed - 1).min(16));
                let pause = doubled.min(self.pause_max);
                // Half of it at random: cells that lost a registry together do not come back
                // together.
                Some(pause.mul_f64(rand::random_range(0.5..=1.0)))
            }
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The body, or `None` if it is longer than `max`.
async fn read_up_to(mut response: Response, max: u64) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (body.len() + chunk.len()) as u64 > max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.into()))
}

fn header<'a>(response: &'a Response, name: &reqwest::header::HeaderName) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The code and the words of the first error in a registry's envelope, cut to one line.
fn first_error(body: &[u8]) -> (Option<OciErrorCode>, String) {
    let envelope: Option<OciEnvelope> = serde_json::from_slice(body).ok();
    let Some(error) = envelope.and_then(|envelope| envelope.errors.into_iter().next()) else {
        return (None, String::new());
    };
    let line = error.message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    (Some(error.code), line)
}

/// The innermost cause: "connection refused" rather than "error sending request". URLs, which
/// may be signed, are in the outer ones only.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What TLS failed over, if it was TLS.
fn tls_fault<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    // An I/O error's source is not what it holds, but that one's source.
    let held = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
    match held {
        Some(held) => tls_fault(held),
        None => tls_fault(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_end() {
        let patience = Patience {
            tries: 5,
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_millis(250),
            ..Patience::default()
        };
        for (failed, full) in [(1, 100), (2, 200), (3, 250), (4, 250)] {
            let pause = patience.pause(Again::Soon, failed).unwrap();
            let full = Duration::from_millis(full);
            assert!(full / 2 <= pause && pause <= full, "try {failed}: {pause:?}");
        }
        assert_eq!(patience.pause(Again::Soon, 5), None);
        assert_eq!(patience.pause(Again::Never, 1), None);
    }

    #[test]
    fn a_registrys_wish_is_kept_up_to_its_bound() {
        let patience = Patience::default();
        let minute = Duration::from_secs(60);
        assert_eq!(patience.pause(Again::After(minute), 1), Some(minute));
        assert_eq!(patience.pause(Again::After(minute + Duration::from_secs(1)), 1), None);
        assert_eq!(patience.pause(Again::After(minute), patience.tries), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let user = Credentials { username: "me".to_owned(), password: "hush".to_owned() };
        assert!(!format!("{user:?}").contains("hush"));
        let bearer = Authorization::Bearer("hush".to_owned());
        assert!(!format!("{bearer:?}").contains("hush"));
    }
}
