//! What the tests of this crate stand on: archives, and a small HTTP server that may be as bad as
//! it likes ([`server`]).

pub(crate) mod archives;
pub(crate) mod server;

/// A client that asks no proxy and trusts nobody.
pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let none: [reqwest::Certificate; 0] = [];
    reqwest::Client::builder().no_proxy().tls_certs_only(none).build().unwrap()
}
