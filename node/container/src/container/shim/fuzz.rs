//! What a fuzzer asks of the code that reads an image's users and builds a process's
//! environment; see `image::fuzz` for how it is driven.

use super::super::process::Process;
use super::start::{c_strings, environment};
use super::user::{Identity, resolve};
use crate::limits::GROUPS_MAX;

const ID_COUNT: u32 = 65_536;

/// A user, an `/etc/passwd` and an `/etc/group`, with `0xff` between them.
pub fn user(bytes: &[u8]) {
    let mut texts = bytes.splitn(3, |byte| *byte == 0xff).map(String::from_utf8_lossy);
    let [user, passwd, group] = std::array::from_fn(|_| texts.next().unwrap_or_default());
    let process = Process {
        args: vec!["/app".to_owned()],
        user: user.clone().into_owned(),
        ..Process::default()
    };
    if process.validate().is_err() {
        return;
    }
    let Ok(identity) = resolve(&user, &passwd, &group, ID_COUNT) else { return };
    let ids = [identity.uid, identity.gid];
    assert!(ids.iter().chain(&identity.groups).all(|id| *id < ID_COUNT), "{identity:?}");
    assert!(identity.groups.len() <= GROUPS_MAX);
    assert!(identity.home.as_ref().is_none_or(|home| home.starts_with('/')), "{identity:?}");
    check(&process, &identity);
}

/// What a process is told, if it may be started at all; `None` where it is refused.
pub fn told(env: Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    let process = Process { args: vec!["/app".to_owned()], env, ..Process::default() };
    process.validate().ok()?;
    let identity = Identity { uid: 1000, gid: 1000, groups: Vec::new(), name: None, home: None };
    Some(check(&process, &identity))
}

/// A process that is not refused can be executed with what it is told.
fn check(process: &Process, identity: &Identity) -> Vec<(String, String)> {
    let told = environment(process, identity);
    let lines = told.iter().map(|(name, value)| format!("{name}={value}"));
    c_strings(lines).expect("what is executed has no zero bytes");
    for name in ["PATH", "USER", "HOME"] {
        assert!(told.iter().any(|(known, _)| known == name), "no {name}: {told:?}");
    }
    told
}
