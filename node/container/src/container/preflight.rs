//! What a node must be allowed to do before it can run containers, said in one sentence when it
//! is not.

use std::fs;

use caps::{CapSet, Capability, CapsHashSet};

use super::error::{Context as _, Error, Result};

/// The capabilities that a node needs, and for what.
const NEEDED: [(Capability, &str); 12] = [
    (Capability::CAP_SYS_ADMIN, "namespaces, mounts and quotas"),
    (Capability::CAP_NET_ADMIN, "links, addresses and nftables"),
    (Capability::CAP_MKNOD, "the devices in a container's /dev"),
    (Capability::CAP_CHOWN, "files with a container's ids"),
    (Capability::CAP_FOWNER, "files with a container's ids"),
    (Capability::CAP_DAC_OVERRIDE, "files with a container's ids"),
    (Capability::CAP_SETUID, "processes with a container's ids"),
    (Capability::CAP_SETGID, "processes with a container's ids"),
    (Capability::CAP_SETPCAP, "taking capabilities away"),
    (Capability::CAP_SYS_CHROOT, "joining mount namespaces"),
    (Capability::CAP_SYS_PTRACE, "looking at a container's namespaces"),
    (Capability::CAP_KILL, "ending a container's processes"),
];

/// # Errors
///
/// This process is not the machine's root, or a root without some of these.
pub(super) fn check() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective)
        .map_err(std::io::Error::other)
        .context(|| "read this process's capabilities".to_owned())?;
    let map = "/proc/self/uid_map";
    let uid_map = fs::read_to_string(map).context(|| format!("read {map}"))?;
    match lacking(&effective, &uid_map) {
        None => Ok(()),
        Some(reason) => Err(Error::Invalid { what: "privileges of this node".to_owned(), reason }),
    }
}

fn lacking(effective: &CapsHashSet, uid_map: &str) -> Option<String> {
    let mut missing = Vec::new();
    for (capability, purpose) in NEEDED {
        if !effective.contains(&capability) {
            missing.push(format!("{capability} ({purpose})"));
        }
    }
    if !missing.is_empty() {
        return Some(format!(
            "containers need the machine's root; it lacks {}",
            missing.join(", ")
        ));
    }
    // The first namespace maps all ids to themselves (user_namespaces(7)).
    if uid_map.split_whitespace().ne(["0", "0", "4294967295"]) {
        let reason = "containers need the machine's root, and this is the root of a user \
                      namespace: it cannot make devices, nor give ids to others";
        return Some(reason.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "         0          0 4294967295\n";

    fn all() -> CapsHashSet {
        NEEDED.into_iter().map(|(capability, _)| capability).collect()
    }

    #[test]
    fn the_machines_root_lacks_nothing() {
        assert_eq!(lacking(&all(), HOST), None);
    }

    #[test]
    fn each_missing_capability_is_named_with_its_purpose() {
        let mut some = all();
        some.remove(&Capability::CAP_NET_ADMIN);
        some.remove(&Capability::CAP_KILL);
        assert_eq!(
            lacking(&some, HOST).unwrap(),
            "containers need the machine's root; it lacks CAP_NET_ADMIN (links, addresses and \
             nftables), CAP_KILL (ending a container's processes)"
        );
        let none = lacking(&CapsHashSet::new(), HOST).unwrap();
        assert_eq!(none.matches("CAP_").count(), NEEDED.len(), "{none}");
    }

    #[test]
    fn root_of_a_user_namespace_is_not_the_machines() {
        for map in ["0 1000 1\n", "0 100000 65536\n", "0 0 65536\n", ""] {
            assert!(lacking(&all(), map).unwrap().contains("user namespace"), "{map:?}");
        }
    }
}
