//! Which capabilities a container's processes have: Docker's default set.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

use super::{Context as _, Result};

/// Docker's default set (moby `oci/caps/defaults.go`).
const CAPABILITIES: [Capability; 14] = [
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

/// Leaves the calling process, which is root of its user namespace, with Docker's default
/// capabilities there, and no way to more.
pub(super) fn drop_capabilities() -> Result<()> {
    let kept: CapsHashSet = CAPABILITIES.into_iter().collect();
    for capability in caps::runtime::thread_all_supported().difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability)
            .map_err(io::Error::other)
            .with_context(|| format!("drop {capability}"))?;
    }
    let set = |which, value: &CapsHashSet| caps::set(None, which, value).map_err(io::Error::other);
    set(CapSet::Inheritable, &CapsHashSet::new()).context("drop inheritable capabilities")?;
    // Effective first: it may never exceed what is permitted.
    set(CapSet::Effective, &kept).context("drop effective capabilities")?;
    set(CapSet::Permitted, &kept).context("drop permitted capabilities")?;
    nix::sys::prctl::set_no_new_privs().context("set no_new_privs")
}
