//! `cluster certs`: an authority, and the certificates of a small cluster's nodes and clients.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::parse_guid;
use crate::authority::{AUTHORITY_DAYS, Authority, Certified, Role, write};
use crate::failure::Failure;
use crate::output::Screen;

/// Makes an authority, and certificates of nodes and clients that it vouches for
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel cluster certs --dir certs cell-a1=10.0.0.1 cell-b1=10.0.0.2,b1.example cell-c1=10.0.0.3
  gavel cluster certs --dir certs --client alice cell-d1=10.0.0.4    later, one more of each

DIR then has ca.crt and ca.key, and a .crt and .key of each node and client. An authority that is
there is used; a certificate that is there is made anew, for renewal. A node needs ca.crt and its
own two files, which it reads again when they change; a client too. NODE.diego.crt and its key, with
RSA, are for [diego], where old clients of Diego's take nothing else. ca.key stays where it is safe:
whoever has it can be anybody. seal.key is for all nodes alike, as seal_key in [registries]: with it
the cluster keeps the passwords of registries that recipes name.")]
pub(crate) struct Certs {
    /// Where the files are, or will be
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A client's name, as the logs will tell it; repeatable [default: operator]
    #[arg(long = "client", value_name = "NAME", value_parser = parse_guid::<String>)]
    clients: Vec<String>,
    /// How long the nodes' and clients' certificates are good for
    #[arg(long, value_name = "DAYS", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(AUTHORITY_DAYS)))]
    days: u32,
    /// A node's name, and the hosts and addresses that it is reached by; localhost is added
    #[arg(required = true, value_name = "NODE=HOST,…", value_parser = parse_node)]
    nodes: Vec<CertifiedNode>,
}

#[derive(Clone, Debug)]
struct CertifiedNode {
    name: String,
    hosts: Vec<String>,
}

fn parse_node(text: &str) -> Result<CertifiedNode, String> {
    let (name, hosts) =
        text.split_once('=').ok_or("a node is NAME=HOST, for instance a1=10.0.0.1")?;
    let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
    if hosts.iter().any(String::is_empty) {
        return Err(format!("{text} names a host that is empty"));
    }
    Ok(CertifiedNode { name: parse_guid(name)?, hosts })
}

impl Certs {
    pub(crate) fn run(&self, screen: Screen) -> Result<(), Failure> {
        let authority = Authority::open(&self.dir)?;
        let told = |what: &str, path: &Path| {
            if screen.is_json() {
                return screen.line(json!({ "kind": what, "path": path }));
            }
            screen.line(format_args!("{what:<10} {}", path.display()))
        };
        told("authority", &authority.file())?;
        let seal_key = self.dir.join("seal.key");
        if !seal_key.exists() {
            write(&seal_key, &server::secrets::Secrets::new_key_file(), 0o600)?;
        }
        told("seal key", &seal_key)?;
        let certify = |name: &str, hosts: &[String], role| {
            let (hosts, days) = (hosts.to_vec(), self.days);
            authority.certify(Certified { name, hosts, role, days })
        };
        for CertifiedNode { name, hosts } in &self.nodes {
            let local = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let hosts: Vec<_> = hosts.iter().cloned().chain(local).collect();
            told("node", &certify(name, &hosts, Role::Node)?)?;
            told("diego", &certify(&format!("{name}.diego"), &hosts, Role::Diego)?)?;
        }
        let operator = ["operator".to_owned()];
        let clients = if self.clients.is_empty() { &operator[..] } else { &self.clients };
        for name in clients {
            told("client", &certify(name, &[], Role::Client)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use api::tls::TlsFiles;

    use super::*;

    fn certs(dir: &Path, clients: &[&str], nodes: &[&str]) -> Result<(), Failure> {
        let nodes = nodes.iter().map(|node| parse_node(node).unwrap()).collect();
        let clients = clients.iter().map(|&client| client.to_owned()).collect();
        Certs { dir: dir.to_owned(), clients, days: 1, nodes }.run(Screen::new(true))
    }

    #[test]
    fn an_authority_is_made_once_and_its_certificates_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        certs(dir, &[], &["a=10.0.0.1,a.example", "b=::1"]).unwrap();
        let authority = fs::read(dir.join("ca.crt")).unwrap();
        let before = fs::read(dir.join("a.crt")).unwrap();
        certs(dir, &["alice"], &["a=10.0.0.1"]).unwrap();
        assert_eq!(fs::read(dir.join("ca.crt")).unwrap(), authority);
        assert_ne!(fs::read(dir.join("a.crt")).unwrap(), before, "it was renewed");
        for name in ["a", "a.diego", "b", "b.diego", "operator", "alice"] {
            let path = |suffix: &str| dir.join(format!("{name}.{suffix}"));
            let files = TlsFiles { ca: dir.join("ca.crt"), cert: path("crt"), key: path("key") };
            files.acceptor().unwrap();
            files.dialer().unwrap();
            let mode = fs::metadata(path("key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(dir).unwrap().count(), 15);
        server::secrets::Secrets::open(Some(&dir.join("seal.key"))).unwrap();
    }

    #[test]
    fn what_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let taken = certs(dir.path(), &[], &["ca=10.0.0.1"]).unwrap_err();
        assert!(matches!(&taken, Failure::Usage(reason) if reason.contains("ca.crt")), "{taken}");
        fs::write(dir.path().join("ca.key"), "rubbish").unwrap();
        let broken = certs(dir.path(), &[], &["a=10.0.0.1"]).unwrap_err().to_string();
        assert!(broken.contains("ca.key: "), "{broken}");
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let half = certs(dir.path(), &[], &["a=10.0.0.1"]).unwrap_err().to_string();
        assert!(half.contains("ca.key: No such file"), "{half}");
        for wrong in ["a", "a=", "a=b,,c", "a/b=c"] {
            assert!(parse_node(wrong).is_err(), "{wrong}");
        }
    }
}
