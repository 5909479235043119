//! Debian's `docker-registry` with images made by `umoci`, and a registry that lies.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::eventually;
use crate::host::Host;

/// The real registry's address on its host.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// A body longer than this is a layer of [`Registry::push`], not a document.
const LAYER_BYTES_MIN: usize = 10_000;

/// The page that the image of [`Registry::push`] serves tells what it is run as.
const RUN: &str = r#"mkdir -p /tmp/www
{
    echo "greeting $GREETING"
    echo "user $(id -u)"
    echo "dir $(pwd)"
    echo "args $*"
    echo "index $CF_INSTANCE_INDEX"
    echo "root is $(tr -s ' ' < /proc/self/uid_map)"
    [ -e /removed ] || echo "the removed file is gone"
} > /tmp/www/index.html
echo "serving on $PORT"
echo "complaining" >&2
exec busybox httpd -f -p "$PORT" -h /tmp/www
"#;

/// How the daemon of [`Registry::push_sshd`] is started; it serves at port 2222.
pub const SSHD: [&str; 5] = ["/usr/sbin/sshd", "-D", "-e", "-f", "/app/sshd_config"];

/// `docker-registry` on a host, which it ends with.
#[derive(Debug)]
pub struct Registry<'a> {
    host: &'a Host,
    process: Child,
    /// As `skopeo` takes it.
    user: Option<String>,
}

/// The user of [`Registry::start_private`], and the password.
pub const USER: (&str, &str) = ("me-the-user", "hush-hush-hush");
/// Of that user; bcrypt.
const HTPASSWD: &str = "me-the-user:$2y$05$abcdefghijklmnopqrstuufn5YD5R3r3.JBc2RN6hVdK1RY9yMPJ6\n";

impl<'a> Registry<'a> {
    /// Serves at [`REGISTRY`].
    ///
    /// # Panics
    ///
    /// It does not.
    #[must_use]
    pub fn start(host: &'a Host) -> Self {
        Self::start_with(host, "", None)
    }

    /// Serves at [`REGISTRY`], to [`USER`] only.
    ///
    /// # Panics
    ///
    /// It does not.
    #[must_use]
    pub fn start_private(host: &'a Host) -> Self {
        let file = host.dir().join("htpasswd");
        fs::write(&file, HTPASSWD).expect("the directory is ours");
        let auth = format!("auth: {{htpasswd: {{realm: it, path: {}}}}}\n", file.display());
        Self::start_with(host, &auth, Some(format!("{}:{}", USER.0, USER.1)))
    }

    fn start_with(host: &'a Host, auth: &str, user: Option<String>) -> Self {
        let dir = host.dir().join("registry");
        fs::create_dir(&dir).expect("the directory is ours");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {REGISTRY}}}\n{auth}",
            dir.display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("the directory is ours");
        let process = host
            .command("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter (Debian: util-linux) starts");
        eventually(
            "docker-registry (Debian: docker-registry) serves",
            Duration::from_secs(20),
            || {
                let said = host.http_get(REGISTRY.parse().expect("an address"), "/v2/");
                // To nobody it says 401, and that is an answer.
                said.or_else(|error| if error.contains("401") { Ok(error) } else { Err(error) })
            },
        );
        Self { host, process, user }
    }

    /// An image of two layers, made by `umoci` of `busybox-static` and pushed by `skopeo` in one
    /// of its formats (`oci` or `v2s2`): a web server that tells what it is run as. The second
    /// layer removes a file of the first.
    ///
    /// # Panics
    ///
    /// A tool is missing or fails; with what it says.
    pub fn push(&self, name: &str, format: &str) {
        let made = Made::new(self.host);
        let (root, image, bundle) = (&made.root, &made.image, &made.bundle);
        for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("app", 0o755)] {
            let path = root.join(path);
            fs::create_dir_all(&path).expect("the directory is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian: busybox-static");
        for applet in ["sh", "mkdir", "id", "tr"] {
            symlink("busybox", root.join("bin").join(applet)).expect("the directory is ours");
        }
        fs::write(root.join("removed"), "").expect("the directory is ours");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:1234:1234::/:/bin/sh\n")
            .expect("the directory is ours");
        umoci(&["repack", "--refresh-bundle", "--image", image, text(bundle)]);
        fs::remove_file(root.join("removed")).expect("it was made above");
        fs::write(root.join("app/run.sh"), RUN).expect("the directory is ours");
        umoci(&["repack", "--image", image, text(bundle)]);
        let config = ["config", "--image", image, "--config.user", "web"];
        let process = ["--config.workingdir", "/app", "--config.env", "GREETING=moin"];
        let entrypoint = ["--config.entrypoint", "/bin/sh", "--config.entrypoint", "/app/run.sh"];
        let rest = ["--config.cmd", "one", "--config.exposedports", "8080/tcp"];
        umoci(&[&config[..], &process, &entrypoint, &rest].concat());
        self.upload(&made, name, format);
    }

    /// An image of one program of this machine's, with the libraries that it is linked with and
    /// nothing else.
    ///
    /// # Panics
    ///
    /// A tool is missing or fails; with what it says.
    pub fn push_program(&self, name: &str, program: &Path) {
        let made = Made::new(self.host);
        made.put_program(program, Path::new("/app/program"));
        umoci(&["repack", "--image", &made.image, text(&made.bundle)]);
        let config = ["config", "--image", &made.image, "--config.user", "1234"];
        let rest = ["--config.entrypoint", "/app/program", "--config.exposedports", "8080/tcp"];
        umoci(&[&config[..], &rest].concat());
        self.upload(&made, name, "oci");
    }

    /// An image with OpenSSH's daemon and a shell of `busybox-static`, for the user `vcap`: the
    /// daemon has this key, and lets in who has the other. It is started with [`SSHD`].
    ///
    /// # Panics
    ///
    /// A tool is missing or fails; with what it says.
    pub fn push_sshd(&self, name: &str, host_key: &Path, authorized: &Path) {
        let made = Made::new(self.host);
        let root = |path: &str| made.root.join(path);
        for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("app", 0o755)] {
            fs::create_dir_all(root(path)).expect("the directory is ours");
            fs::set_permissions(root(path), fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        made.put_program(Path::new(SSHD[0]), Path::new(SSHD[0]));
        fs::copy("/bin/busybox", root("bin/busybox")).expect("Debian: busybox-static");
        for applet in ["sh", "cat", "id", "touch", "ls"] {
            symlink("busybox", root("bin").join(applet)).expect("the directory is ours");
        }
        fs::write(root("etc/passwd"), "root:x:0:0::/:/bin/sh\nvcap:x:2000:2000::/app:/bin/sh\n")
            .expect("the directory is ours");
        fs::copy(authorized, root("app/authorized_keys")).expect("it is there");
        // The daemon takes no key that others may read.
        fs::copy(host_key, root("app/host_key")).expect("it is there");
        fs::set_permissions(root("app/host_key"), fs::Permissions::from_mode(0o600))
            .and_then(|()| chown(root("app/host_key"), Some(2000), Some(2000)))
            .expect("it is ours");
        let config = "Port 2222\nHostKey /app/host_key\nAuthorizedKeysFile /app/authorized_keys\n\
                      StrictModes no\nUsePAM no\nPidFile none\n";
        fs::write(root("app/sshd_config"), config).expect("the directory is ours");
        umoci(&["repack", "--image", &made.image, text(&made.bundle)]);
        self.upload(&made, name, "oci");
    }

    fn upload(&self, made: &Made, name: &str, format: &str) {
        let image = &made.image;
        let mut skopeo = self.host.command("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--format", format]);
        if let Some(user) = &self.user {
            skopeo.args(["--dest-creds", user]);
        }
        skopeo.args([format!("oci:{image}"), format!("docker://{REGISTRY}/{name}:latest")]);
        check("skopeo", skopeo);
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        // nsenter became it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An image in the making: a layout with nothing in it, unpacked.
struct Made {
    _dir: tempfile::TempDir,
    /// As umoci names it.
    image: String,
    bundle: PathBuf,
    root: PathBuf,
}

impl Made {
    fn new(host: &Host) -> Self {
        let dir = tempfile::tempdir_in(host.dir()).expect("the directory is ours");
        let layout = dir.path().join("layout");
        let image = format!("{}:latest", layout.display());
        let bundle = dir.path().join("bundle");
        umoci(&["init", "--layout", text(&layout)]);
        umoci(&["new", "--image", &image]);
        umoci(&["unpack", "--image", &image, text(&bundle)]);
        Self { _dir: dir, image, root: bundle.join("rootfs"), bundle }
    }

    /// A program of this machine's, with the libraries that it is linked with.
    fn put_program(&self, program: &Path, to: &Path) {
        let copy = |from: &Path, to: &Path| {
            let to = self.root.join(to.strip_prefix("/").expect("an absolute path"));
            fs::create_dir_all(to.parent().expect("it has one")).expect("the directory is ours");
            fs::copy(from, to).expect("it is there");
        };
        copy(program, to);
        let linked = Command::new("ldd").arg(program).output().expect("ldd (Debian: libc-bin)");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), Path::new(library));
        }
    }
}

fn umoci(words: &[&str]) {
    run("umoci", words);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

fn run(program: &str, words: &[&str]) {
    let mut command = Command::new(program);
    command.args(words);
    check(program, command);
}

fn check(program: &str, mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{program} (Debian: {program}): {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}\n{said}", output.status);
}

/// What a lying registry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Every answer is a web page.
    Rubbish,
    /// Layers have another byte in the middle.
    WrongBytes,
    /// Layers end in the middle, every time.
    CutOff,
}

/// Stands in front of [`REGISTRY`] at `address` on the host, and lies. Goes on until the test's
/// process ends.
///
/// # Panics
///
/// The address is taken.
pub fn lie(host: &Host, address: &'static str, lie: Lie) {
    host.in_network(|| {
        let listener = TcpListener::bind(address).expect("the host is ours");
        // Threads are in the network of the one that makes them.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    // Whoever hangs up early does so on purpose.
                    let _ = answer(client, lie);
                });
            }
        });
    });
}

fn answer(mut client: TcpStream, lie: Lie) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while reader.read_line(&mut request)? > 2 {}
    if lie == Lie::Rubbish {
        let page = "<html>Welcome to the hotel's wireless network</html>";
        let length = page.len();
        return write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{page}"
        );
    }
    let mut upstream = TcpStream::connect(REGISTRY)?;
    upstream.write_all(request.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let is_layer = request.contains("/blobs/") && answer.len() > LAYER_BYTES_MIN;
    let middle = answer.len() / 2;
    match lie {
        Lie::WrongBytes if is_layer => answer[middle] ^= 1,
        Lie::CutOff if is_layer => answer.truncate(middle),
        Lie::Rubbish | Lie::WrongBytes | Lie::CutOff => {}
    }
    client.write_all(&answer)
}
