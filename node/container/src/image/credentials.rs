//! Users of registries: a recipe's own, or those of the operator's file, which is Docker's
//! `config.json` (docker-login(1), containers-auth.json(5)). Never shown: `Debug` hides passwords.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::image::Reference;
use crate::image::reference::{HUB, HUB_ENDPOINT};
use crate::limits::CREDENTIALS_FILE_BYTES_MAX;

/// A user of a registry. Shown to nobody: `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A file of credentials that cannot be used. Tells of no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}", path = .path.display())]
pub struct CredentialsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The operator's file, read again when it has changed.
#[derive(Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    current: Mutex<(Option<Seen>, Users)>,
}

/// What a file is told apart by.
type Seen = (SystemTime, u64);

/// By registry, or registry and the first parts of a repository.
type Users = BTreeMap<String, Credentials>;

impl CredentialsFile {
    /// # Errors
    /// The file cannot be read, or keeps its passwords where Gavel cannot get them.
    pub fn open(path: &Path) -> Result<Self, CredentialsError> {
        let seen = look(path);
        Ok(Self { path: path.to_owned(), current: Mutex::new((seen, read(path)?)) })
    }

    /// Who the operator is to this repository's registry. A file that cannot be used any more,
    /// as while it is being replaced, changes nothing.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Option<Credentials> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&self.path);
        if seen != current.0 {
            match read(&self.path) {
                Ok(users) => current.1 = users,
                Err(error) => tracing::warn!(%error, "credentials are not renewed"),
            }
            current.0 = seen;
        }
        most_particular(&current.1, registry, repository)
    }
}

/// containers-auth.json(5): the longest key that names the repository or what it is in.
fn most_particular(users: &Users, registry: &str, repository: &str) -> Option<Credentials> {
    let mut key = format!("{registry}/{repository}");
    loop {
        if let Some(found) = users.get(&key) {
            return Some(found.clone());
        }
        key.truncate(key.rfind('/')?);
    }
}

fn look(path: &Path) -> Option<Seen> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Users, CredentialsError> {
    let fail = |reason: String| CredentialsError { path: path.to_owned(), reason };
    let length = fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > CREDENTIALS_FILE_BYTES_MAX {
        return Err(fail(format!("it is longer than {CREDENTIALS_FILE_BYTES_MAX} bytes")));
    }
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    parse(&bytes).map_err(fail)
}

/// The parts of Docker's file that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

fn parse(bytes: &[u8]) -> Result<Users, String> {
    // serde's own words quote what they could not read, which may be a password.
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        format!("not Docker's config.json, at line {} column {}", error.line(), error.column())
    })?;
    if let Some(helper) = file.creds_store.iter().chain(file.cred_helpers.values()).next() {
        return Err(format!(
            "it leaves passwords to the program docker-credential-{helper}, which Gavel does not \
             run; take credsStore and credHelpers out, and log in again to have them in auths"
        ));
    }
    let mut users = Users::new();
    for (key, auth) in file.auths {
        let credentials = credentials(auth).map_err(|reason| format!("auths, {key}: {reason}"))?;
        users.insert(scope(&key), credentials);
    }
    Ok(users)
}

fn credentials(auth: Auth) -> Result<Credentials, String> {
    if let (Some(username), Some(password)) = (auth.username, auth.password) {
        return Ok(Credentials { username, password });
    }
    let text = auth.auth.filter(|text| !text.is_empty());
    let Some(text) = text else {
        return Err(if auth.identitytoken.is_some() {
            "an identity token, which Gavel does not use; give it a user and a password".to_owned()
        } else {
            "it has neither auth nor username and password".to_owned()
        });
    };
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = decoded
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .ok_or("auth is not USER:PASSWORD in base64")?;
    // Docker pads with NUL.
    let password = password.trim_matches('\0').to_owned();
    Ok(Credentials { username: username.to_owned(), password })
}

/// A key as references name it: Docker writes `https://index.docker.io/v1/` for its Hub.
fn scope(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/v1").or_else(|| rest.strip_suffix("/v2")).unwrap_or(rest);
    match rest.split_once('/') {
        Some(("index.docker.io" | HUB_ENDPOINT, path)) => format!("{HUB}/{path}"),
        None if rest == "index.docker.io" || rest == HUB_ENDPOINT => HUB.to_owned(),
        _ => rest.to_owned(),
    }
}

/// Whom to be before a registry: the recipe's user, or else the operator's.
pub(crate) fn choose(
    own: Option<&Credentials>,
    file: Option<&CredentialsFile>,
    image: &Reference,
) -> Option<Credentials> {
    own.cloned().or_else(|| file?.find(image.registry(), image.repository()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(users: &Users, registry: &str, repository: &str) -> Option<String> {
        let found = most_particular(users, registry, repository)?;
        Some(format!("{}:{}", found.username, found.password))
    }

    #[test]
    fn dockers_file_is_read_as_docker_and_podman_write_it() {
        let users = parse(
            br#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"bWU6aHVzaDpodXNo"},
                "r.lan:5000":{"username":"u","password":"p"},
                "r.lan:5000/team/app":{"auth":"dGVhbTpzZWNyZXQ="}},
                "HttpHeaders":{}}"#,
        )
        .unwrap();
        assert_eq!(user(&users, "docker.io", "library/x").unwrap(), "me:hush:hush");
        assert_eq!(user(&users, "r.lan:5000", "other").unwrap(), "u:p");
        assert_eq!(user(&users, "r.lan:5000", "team/app").unwrap(), "team:secret");
        assert_eq!(user(&users, "r.lan:5000", "team/apple").unwrap(), "u:p");
        assert_eq!(user(&users, "r.lan", "team/app"), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_and_shows_nothing() {
        for (json, says) in [
            (r#"{"credsStore":"pass"}"#, "docker-credential-pass"),
            (r#"{"auths":{"r":{"auth":"aHVzaA=="}}}"#, "auths, r: auth is not USER:PASSWORD"),
            (r#"{"auths":{"r":{"identitytoken":"hush"}}}"#, "an identity token"),
            (r#"{"auths":{"r":{}}}"#, "neither auth nor username"),
            (r#"{"auths":"hush"}"#, "not Docker's config.json, at line 1"),
        ] {
            let reason = parse(json.as_bytes()).unwrap_err();
            assert!(reason.contains(says), "{json}: {reason}");
            assert!(!reason.contains("hush"), "{reason}");
        }
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_one_that_is_spoilt_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write(r#"{"auths":{"r":{"username":"a","password":"1"}}}"#);
        let file = CredentialsFile::open(&path).unwrap();
        assert_eq!(file.find("r", "x").unwrap().username, "a");
        write(r#"{"auths":{"r":{"username":"other","password":"1"}}}"#);
        assert_eq!(file.find("r", "x").unwrap().username, "other");
        write("half");
        assert_eq!(file.find("r", "x").unwrap().username, "other");
        assert!(CredentialsFile::open(&dir.path().join("none")).is_err());
    }
}
