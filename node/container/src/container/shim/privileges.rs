//! Which capabilities a container's processes have: Docker's default set, or garden's for
//! privileged containers.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

use super::{Context as _, Result};

/// Docker's default set (moby `oci/caps/defaults.go`), and garden's for unprivileged containers.
const ORDINARY: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// What garden's privileged containers have not, of all there is (guardian
/// `guardiancmd/server.go`, `privilegedMaxCaps`, which lists what they have).
const NEVER: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_CHECKPOINT_RESTORE, Capability::CAP_PERFMON];

/// What another user than root can have in a privileged container (the same file,
/// `nonRootMaxCaps`).
fn of_users() -> CapsHashSet {
    ORDINARY.into_iter().chain([Capability::CAP_SYS_ADMIN]).collect()
}

/// Leaves the calling process, which is root of its user namespace, with the capabilities of the
/// container's root, and an unprivileged one without a way to more.
pub(super) fn drop_capabilities(privileged: bool) -> Result<()> {
    let kept = if privileged {
        // Of what the node itself has.
        let mut kept = caps::read(None, CapSet::Permitted)
            .map_err(io::Error::other)
            .context("read the permitted capabilities")?;
        kept.retain(|capability| !NEVER.contains(capability));
        kept
    } else {
        ORDINARY.into_iter().collect()
    };
    bound(&kept)?;
    let set = |which, value: &CapsHashSet| caps::set(None, which, value).map_err(io::Error::other);
    set(CapSet::Inheritable, &CapsHashSet::new()).context("drop inheritable capabilities")?;
    // Effective first: it may never exceed what is permitted.
    set(CapSet::Effective, &kept).context("drop effective capabilities")?;
    set(CapSet::Permitted, &kept).context("drop permitted capabilities")?;
    if privileged {
        return Ok(());
    }
    nix::sys::prctl::set_no_new_privs().context("set no_new_privs")
}

/// Bounds what a user other than root may come to by programs that are setuid.
/// In an unprivileged container there are none: see `no_new_privs` above.
pub(super) fn bound_user(privileged: bool, uid: u32) -> Result<()> {
    if privileged && uid != 0 { bound(&of_users()) } else { Ok(()) }
}

fn bound(kept: &CapsHashSet) -> Result<()> {
    for capability in caps::runtime::thread_all_supported().difference(kept) {
        caps::drop(None, CapSet::Bounding, *capability)
            .map_err(io::Error::other)
            .with_context(|| format!("drop {capability}"))?;
    }
    Ok(())
}
