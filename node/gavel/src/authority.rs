//! An authority of a small cluster, and the certificates that it vouches for, as files in one
//! directory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};

use crate::failure::Failure;

/// What a clock may be late by.
const SKEW: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// How long the authority vouches: as long as a cluster's machines last.
pub(crate) const AUTHORITY_DAYS: u32 = 3650;
/// NIST SP 800-57 part 1, 5.6.1.1: enough until 2030; what Diego's own certificates have.
const RSA_BITS: usize = 2048;

/// Vouches for nodes and clients.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// What is certified.
#[derive(Debug)]
pub(crate) struct Certified<'a> {
    /// The subject's common name, and the files' before `.crt` and `.key`.
    pub(crate) name: &'a str,
    /// Where it is reached; none for who only reaches others.
    pub(crate) hosts: Vec<String>,
    pub(crate) role: Role,
    pub(crate) days: u32,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers clients and other nodes, and asks those.
    Node,
    /// Answers Diego's clients, of which old ones take RSA only.
    Diego,
    Client,
}

impl Authority {
    /// The one that is there, or a new one.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written, or is none of an authority's.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
        Ok(Self { dir: dir.to_owned(), issuer: authority(dir)? })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Writes a key and a certificate; returns the certificate's file.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or the name is the authority's.
    pub(crate) fn certify(&self, it: Certified<'_>) -> Result<PathBuf, Failure> {
        let Certified { name, hosts, role, days } = it;
        let path = self.dir.join(format!("{name}.crt"));
        if name == "ca" {
            return Err(Failure::Usage(format!("{}: that is the authority", path.display())));
        }
        let params = CertificateParams::new(hosts).map_err(|error| failed(&path, error))?;
        let mut params = named(params, name, days);
        params.extended_key_usages = match role {
            Role::Node => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Role::Diego => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = match role {
            Role::Node | Role::Client => KeyPair::generate(),
            Role::Diego => rsa_key(&path)?,
        };
        let key = key.map_err(|error| failed(&path, error))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|error| failed(&path, error))?;
        write(&self.dir.join(format!("{name}.key")), &key.serialize_pem(), 0o600)?;
        write(&path, &certificate.pem(), 0o644)?;
        Ok(path)
    }
}

/// What signs with it is ring; the crate that makes it does nothing else here.
fn rsa_key(path: &Path) -> Result<Result<KeyPair, rcgen::Error>, Failure> {
    let key =
        RsaPrivateKey::new(&mut rand::rng(), RSA_BITS).map_err(|error| failed(path, error))?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(path, error))?;
    Ok(KeyPair::from_pem(&pem))
}

/// The authority that is there, or a new one.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, Failure> {
    let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    if cert_path.exists() || key_path.exists() {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| failed(path, error));
        let (cert, key) = (read(&cert_path)?, read(&key_path)?);
        let key = KeyPair::from_pem(&key).map_err(|error| failed(&key_path, error))?;
        return Issuer::from_ca_cert_pem(&cert, key).map_err(|error| failed(&cert_path, error));
    }
    let params = CertificateParams::new(Vec::new()).map_err(|error| failed(&cert_path, error))?;
    let mut params = named(params, "Gavel", AUTHORITY_DAYS);
    // It vouches for nodes and clients, and for no other authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(|error| failed(&key_path, error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&cert_path, error))?;
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&cert_path, &certificate.pem(), 0o644)?;
    Ok(Issuer::new(params, key))
}

fn named(mut params: CertificateParams, name: &str, days: u32) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
    params
}

/// In place of what was there, whole or not at all, so that who reads it meanwhile has one or the
/// other.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let new = path.with_added_extension("new");
    let written = || -> std::io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file: File = File::options().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|error| failed(path, error))
}

fn failed(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {reason}", path.display()))
}
