//! Who a process runs as, by the image's own `/etc/passwd` and `/etc/group` (passwd(5),
//! group(5)), as Docker reads an image's `USER`.
//!
//! The texts come from a stranger: lines that make no sense are passed over.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;

use crate::limits::{GROUPS_MAX, USER_DATABASE_BYTES_MAX};

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The user's name, if the image has one.
    pub name: Option<String>,
    /// The user's home, if the image has one.
    pub home: Option<String>,
}

/// Why a user is nobody in this image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UserError {
    #[error("user {0:?} is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    NoGroup(String),
    #[error("id {0} is outside the container's ids")]
    OutOfRange(u32),
}

/// Looks `user` up in the root file system of the calling process.
pub(super) fn resolve_here(user: &str, id_count: u32) -> Result<Identity, UserError> {
    resolve(user, &read("/etc/passwd"), &read("/etc/group"), id_count)
}

/// The lines that could mean something: no name or path has a zero byte.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.contains('\0'))
}

/// An absent or unreadable file is an empty one: images from scratch have neither.
fn read(path: &str) -> String {
    // Not blocking, so that a fifo in its place does not hold us.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let Ok(file) = file else { return String::new() };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(USER_DATABASE_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// `user` as in [`Process::user`](super::super::spec::Process::user).
pub(super) fn resolve(
    user: &str,
    passwd: &str,
    group: &str,
    id_count: u32,
) -> Result<Identity, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };

    let mut identity = match lines(passwd).filter_map(parse_user).find(|u| u.is(user)) {
        Some(entry) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            name: Some(entry.name.to_owned()),
            home: Some(entry.home.to_owned()).filter(|home| home.starts_with('/')),
        },
        None => {
            // Diego: root needs no entry.
            let uid = if user == "root" { Ok(0) } else { user.parse() };
            let uid = uid.map_err(|_| UserError::NoUser(user.to_owned()))?;
            Identity { uid, gid: 0, groups: Vec::new(), name: None, home: None }
        }
    };
    match wanted_group {
        Some(wanted) => {
            let entry = lines(group).filter_map(parse_group).find(|g| g.is(wanted));
            identity.gid = match entry {
                Some(entry) => entry.gid,
                None => wanted.parse().map_err(|_| UserError::NoGroup(wanted.to_owned()))?,
            };
        }
        // As Docker does: naming a group leaves out those the user is a member of.
        None => {
            let name = identity.name.as_deref();
            let member = |g: &Group<'_>| name.is_some_and(|n| g.members.split(',').any(|m| m == n));
            let groups = lines(group).filter_map(parse_group).filter(member).map(|g| g.gid);
            identity.groups = groups.filter(|gid| *gid < id_count).take(GROUPS_MAX).collect();
        }
    }
    match [identity.uid, identity.gid].into_iter().find(|id| *id >= id_count) {
        Some(id) => Err(UserError::OutOfRange(id)),
        None => Ok(identity),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl User<'_> {
    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.uid)
    }
}

fn parse_user(line: &str) -> Option<User<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Group<'_> {
    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.gid)
    }
}

fn parse_group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some(Group { name, gid, members: fields.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
broken line
:x:1:1::/:
web:x:1000:100:Web,,,:/home/web:/bin/sh
short:x:7:8
huge:x:70000:1::/:
zero:x:8:8::/ho\0me:
";
    const GROUP: &str = "\
root:x:0:
users:x:100:
wheel:x:10:root,web
audio:x:63:web
far:x:99999:web
";

    fn identity(user: &str) -> Result<(u32, u32, Vec<u32>), UserError> {
        resolve(user, PASSWD, GROUP, 65_536).map(|i| (i.uid, i.gid, i.groups))
    }

    #[test]
    fn docker_forms_of_user() {
        assert_eq!(identity(""), Ok((0, 0, vec![10])));
        assert_eq!(identity("web"), Ok((1000, 100, vec![10, 63])));
        assert_eq!(identity("1000"), Ok((1000, 100, vec![10, 63])));
        assert_eq!(identity("web:wheel"), Ok((1000, 10, vec![])));
        assert_eq!(identity("1000:1"), Ok((1000, 1, vec![])));
        assert_eq!(identity(":users"), Ok((0, 100, vec![])));
        assert_eq!(identity("web:"), Ok((1000, 100, vec![10, 63])));
        assert_eq!(identity("short"), Ok((7, 8, vec![])));
        assert_eq!(identity("4242"), Ok((4242, 0, vec![])));
    }

    #[test]
    fn nobody_is_named() {
        assert_eq!(identity("zero"), Err(UserError::NoUser("zero".into())));
        assert_eq!(identity("absent"), Err(UserError::NoUser("absent".into())));
        assert_eq!(identity("web:absent"), Err(UserError::NoGroup("absent".into())));
        assert_eq!(identity("65536"), Err(UserError::OutOfRange(65536)));
        assert_eq!(identity("huge"), Err(UserError::OutOfRange(70000)));
        assert_eq!(identity("0:99999"), Err(UserError::OutOfRange(99999)));
        assert_eq!(identity("-1"), Err(UserError::NoUser("-1".into())));
    }

    #[test]
    fn an_image_without_files_has_numbers_only() {
        let empty = |user| resolve(user, "", "", 65_536);
        assert_eq!(empty("").map(|i| (i.uid, i.gid)), Ok((0, 0)));
        assert_eq!(empty("1000:1000").map(|i| (i.uid, i.gid)), Ok((1000, 1000)));
        assert!(empty("web").is_err());
    }
}
