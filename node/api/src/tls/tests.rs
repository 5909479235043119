use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::SupportedProtocolVersion;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::wire::ADMIN_GREETING;

/// An authority, and those for whom it vouches.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn certify(&self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> TlsFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |suffix: &str| self.dir.path().join(format!("{name}.{suffix}"));
        fs::write(path("crt"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles { ca: self.dir.path().join("ca.crt"), cert: path("crt"), key: path("key") }
    }

    fn node(&self) -> TlsFiles {
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.certify("node-1", &usages)
    }

    fn client(&self) -> TlsFiles {
        self.certify("alice", &[ExtendedKeyUsagePurpose::ClientAuth])
    }
}

/// What the node sees of a client that dials `host`, and what the client reads of it.
async fn meet(
    acceptor: TlsAcceptor,
    dialer: &Dialer,
    host: &str,
) -> (Result<Option<Peer>, String>, Result<String, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("{host}:{}", listener.local_addr().unwrap().port());
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
        let mut stream = Either::Right(Box::new(stream.into()));
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).await.map_err(|error| error.to_string())?;
        assert_eq!(greeting, ADMIN_GREETING);
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        Ok(Peer::of(&stream))
    };
    let dialling = async {
        let text = |error: std::io::Error| error.to_string();
        let mut stream = dialer.dial(&address, ADMIN_GREETING).await.map_err(text)?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map_err(text)?;
        Ok(said)
    };
    tokio::join!(serving, dialling)
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = Authority::new();
    let acceptor = authority.node().acceptor().unwrap();
    for (files, name, is_node) in
        [(authority.client(), "alice", false), (authority.node(), "node-1", true)]
    {
        let dialer = files.dialer().unwrap();
        let (seen, said) = meet(acceptor.clone(), &dialer, "localhost").await;
        assert_eq!(seen, Ok(Some(Peer { name: name.to_owned(), is_node })));
        assert_eq!(said, Ok("hello".to_owned()));
    }
}

#[tokio::test]
async fn strangers_are_refused_on_both_sides() {
    let (ours, other) = (Authority::new(), Authority::new());
    let acceptor = ours.node().acceptor().unwrap();
    let (seen, said) = meet(acceptor.clone(), &Dialer::default(), "localhost").await;
    assert!(seen.is_err() && said.as_deref() != Ok("hello"), "{seen:?} {said:?}");
    // One that trusts us, and is another authority's.
    let theirs = TlsFiles { ca: ours.client().ca, ..other.client() };
    let (seen, said) = meet(acceptor.clone(), &theirs.dialer().unwrap(), "localhost").await;
    assert!(seen.unwrap_err().contains("invalid peer certificate"));
    assert!(said.unwrap_err().contains("fatal alert"));
    // One that does not trust us.
    let (_, said) = meet(acceptor.clone(), &other.client().dialer().unwrap(), "localhost").await;
    assert!(said.unwrap_err().contains("invalid peer certificate"));
    // One that meant another machine.
    let (_, said) = meet(acceptor, &ours.client().dialer().unwrap(), "127.0.0.1").await;
    assert!(said.unwrap_err().contains("not valid for name"));
    // A client's certificate is no server's.
    let acceptor = ours.client().acceptor().unwrap();
    let (_, said) = meet(acceptor, &ours.client().dialer().unwrap(), "localhost").await;
    assert!(said.unwrap_err().contains("certificate"));
}

#[tokio::test]
async fn both_versions_are_spoken() {
    let authority = Authority::new();
    let files = authority.node();
    let versions: [&'static SupportedProtocolVersion; 2] =
        [&rustls::version::TLS12, &rustls::version::TLS13];
    for version in versions {
        let (chain, key) = files.own().unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(files.authorities().unwrap())
            .with_client_auth_cert(chain, key)
            .unwrap();
        let dialer = Dialer::with_tls(config);
        let (_, said) = meet(files.acceptor().unwrap(), &dialer, "localhost").await;
        assert_eq!(said, Ok("hello".to_owned()), "{version:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let authority = Authority::new();
    let (files, other) = (authority.node(), authority.client());
    let missing = PathBuf::from("/no/such");
    let empty = authority.dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let broken = authority.dir.path().join("broken");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let rubbish = authority.dir.path().join("rubbish");
    fs::write(&rubbish, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for (files, path, reason) in [
        (TlsFiles { ca: missing.clone(), ..files.clone() }, &missing, "No such file"),
        (TlsFiles { key: missing.clone(), ..files.clone() }, &missing, "No such file"),
        (TlsFiles { ca: empty.clone(), ..files.clone() }, &empty, "it has no certificate in PEM"),
        (TlsFiles { cert: empty.clone(), ..files.clone() }, &empty, "it has no certificate in PEM"),
        (TlsFiles { key: empty.clone(), ..files.clone() }, &empty, "it has no private key in PEM"),
        (TlsFiles { ca: broken.clone(), ..files.clone() }, &broken, "it has no certificate in PEM"),
        (TlsFiles { ca: rubbish.clone(), ..files.clone() }, &rubbish, "invalid peer certificate"),
        (TlsFiles { key: other.key.clone(), ..files }, &other.key, "keys may not be"),
    ] {
        for error in [files.dialer().unwrap_err(), files.acceptor().err().unwrap()] {
            assert_eq!(error.path, *path, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
