//! Debian's docker-registry with TLS and a user, and without either, on an address that is not
//! loopback's, which needs no trust. In a network namespace of its own: the tests are root's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;

use super::registry_tests::{image, quick};
use super::*;
use crate::image::Silent;
use crate::image::serve::Registry;

/// Of the documentation's network (RFC 5737).
const ADDRESS: &str = "192.0.2.1";
/// For `me` with `hush`; bcrypt.
const HTPASSWD: &str = "me:$2b$05$FhEo29nxrO9t8xjqQeG2ZOUtOvYr234Jsqy4beUDNEwi4.iiO9O9C\n";

/// A network of one address, and registries in it.
struct Street {
    dir: tempfile::TempDir,
    registries: Vec<Child>,
}

impl Drop for Street {
    fn drop(&mut self) {
        for registry in &mut self.registries {
            let _ = registry.kill();
            let _ = registry.wait();
        }
    }
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (Debian: {program}): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
}

/// Runs a test on a thread that is alone in its network.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(Street) -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // Threads and processes that this one makes are in the same network.
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests are root's");
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(test(Street { dir, registries: Vec::new() }));
    });
    thread.join().unwrap();
}

impl Street {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// An authority and a certificate of its for the address; the authority in PEM.
    fn certificates(&self) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![ADDRESS.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::create_dir(self.path("trust")).unwrap();
        fs::write(self.path("trust/ca.crt"), &ca).unwrap();
        fs::write(self.path("it.crt"), certificate.pem()).unwrap();
        fs::write(self.path("it.key"), key.serialize_pem()).unwrap();
        ca.into_bytes()
    }

    /// Starts docker-registry with this under `http:` and at the top, and waits until it listens.
    fn start(&mut self, port: u16, http: &str, rest: &str) -> String {
        let host = format!("{ADDRESS}:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{inmemory: {{}}}}\n\
             http: {{addr: \"{host}\"{http}}}\n{rest}"
        );
        let file = self.path(&format!("{port}.yml"));
        fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        self.registries.push(command.spawn().expect("Debian: docker-registry"));
        let began = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        host
    }

    /// Has skopeo push the tests' image to a registry as `app`.
    async fn push(&self, host: &str, more: &[&str]) {
        let mut offered = Registry::default();
        offered.add("app", "latest", &image().0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = format!("docker://{}/app", listener.local_addr().unwrap());
        let serving = tokio::spawn(offered.serve(listener));
        let to = format!("docker://{host}/app");
        let words = ["--insecure-policy", "copy", "--src-tls-verify=false"];
        let mut command = tokio::process::Command::new("skopeo");
        command.args(words).args(more).args([&from, &to]);
        let output = command.output().await.expect("Debian: skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serving.abort();
    }

    async fn pull(
        &self,
        registries: Registries,
        host: &str,
        password: Option<&str>,
    ) -> Result<Image, String> {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let store = Store::open(dir.path(), registries).unwrap();
        let user = password.map(|password| Credentials {
            username: "me".to_owned(),
            password: password.to_owned(),
        });
        let reference = Reference::from_docker_name(&format!("{host}/app")).unwrap();
        store.pull(&reference, user.as_ref(), &Silent).await.map_err(|error| error.to_string())
    }
}

fn listed(host: &str) -> Registries {
    Registries { insecure: BTreeSet::from([host.to_owned()]), ..quick() }
}

#[test]
fn a_registry_is_trusted_by_its_authority_and_its_users_by_their_password() {
    alone(async |mut street: Street| {
        let ca = street.certificates();
        fs::write(street.path("htpasswd"), HTPASSWD).unwrap();
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            street.text("it.crt"),
            street.text("it.key")
        );
        let auth =
            format!("auth: {{htpasswd: {{realm: it, path: {}}}}}\n", street.text("htpasswd"));
        let host = street.start(5443, &tls, &auth);
        let trust = street.text("trust");
        street.push(&host, &["--dest-cert-dir", &trust, "--dest-creds", "me:hush"]).await;

        let trusting = || Registries { ca_certificates: vec![ca.clone()], ..quick() };
        street.pull(trusting(), &host, Some("hush")).await.unwrap();
        let wrong = street.pull(trusting(), &host, Some("guess")).await.unwrap_err();
        assert!(
            wrong.ends_with("authorization failed: username and password are invalid"),
            "{wrong}"
        );
        let nobody = street.pull(trusting(), &host, None).await.unwrap_err();
        assert!(nobody.ends_with("or you do not have permissions to see it."), "{nobody}");

        let stranger = street.pull(quick(), &host, Some("hush")).await.unwrap_err();
        assert!(stranger.starts_with("This registry is insecure. To pull images"), "{stranger}");
        assert!(stranger.contains(&host) && stranger.contains("UnknownIssuer"), "{stranger}");
        // Listed exactly, it need not be trusted.
        let other = street.pull(listed(ADDRESS), &host, Some("hush")).await.unwrap_err();
        assert!(other.starts_with("This registry is insecure."), "{other}");
        street.pull(listed(&host), &host, Some("hush")).await.unwrap();
    });
}

#[test]
fn plain_http_is_taken_from_listed_registries_only() {
    alone(async |mut street: Street| {
        let host = street.start(5000, "", "");
        street.push(&host, &["--dest-tls-verify=false"]).await;
        let refused = street.pull(quick(), &host, None).await.unwrap_err();
        let expected = format!("registry {host} speaks plain HTTP, which is taken only from");
        assert!(refused.starts_with(&expected), "{refused}");
        street.pull(listed(&host), &host, None).await.unwrap();
    });
}
