//! What a container's processes may still do: Docker's default capabilities and system calls.

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Context as _, Failure, Result};

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

/// System calls that answer EPERM: what Docker's default profile denies to a container without
/// CAP_SYS_ADMIN (moby `profiles/seccomp`), of the calls that do harm.
/// The rest of that profile, which lists what is allowed instead, is a later step.
#[rustfmt::skip]
const DENIED: &[libc::c_long] = &[
    // the machine's time, name, modules, power, swap, quotas and accounting
    libc::SYS_acct, libc::SYS_clock_settime, libc::SYS_delete_module, libc::SYS_finit_module,
    libc::SYS_init_module, libc::SYS_kexec_file_load, libc::SYS_kexec_load, libc::SYS_quotactl,
    libc::SYS_quotactl_fd, libc::SYS_reboot, libc::SYS_setdomainname, libc::SYS_sethostname,
    libc::SYS_settimeofday, libc::SYS_swapoff, libc::SYS_swapon, libc::SYS_syslog,
    libc::SYS_vhangup, libc::SYS_lookup_dcookie, libc::SYS_nfsservctl,
    // mounts and namespaces
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fsopen, libc::SYS_fspick, libc::SYS_mount,
    libc::SYS_mount_setattr, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_pivot_root,
    libc::SYS_setns, libc::SYS_umount2, libc::SYS_unshare,
    // wide doors into the kernel, with a history
    libc::SYS_bpf, libc::SYS_fanotify_init, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup, libc::SYS_open_by_handle_at, libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // keyrings know no namespace of their own
    libc::SYS_add_key, libc::SYS_keyctl, libc::SYS_request_key,
    // other processes, memory placement
    libc::SYS_get_mempolicy, libc::SYS_kcmp, libc::SYS_mbind, libc::SYS_migrate_pages,
    libc::SYS_move_pages, libc::SYS_pidfd_getfd, libc::SYS_process_madvise,
    libc::SYS_set_mempolicy,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_sysfs, libc::SYS_uselib, libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// Bit 30 marks system calls of the x32 kind, which would be the same calls under other
/// numbers: none of them is allowed.
const X32_SYSCALL_BIT: u64 = 0x4000_0000;

/// The namespace flags of clone(2).
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// Builds the filters; they are applied one after the other.
pub(super) fn filters() -> Result<Vec<BpfProgram>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    // clone(2) with any namespace flag: one rule for each, any of which denies.
    let namespaces = (0..64).map(|bit| 1_u64 << bit).filter(|flag| CLONE_NAMESPACES & flag != 0);
    let clone: Result<Vec<_>> = namespaces
        .map(|flag| rule(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag))
        .collect();
    rules.insert(libc::SYS_clone, clone?);
    // Sockets that reach the hypervisor (AF_VSOCK), as in Docker.
    let vsock = rule(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 40)?;
    rules.insert(libc::SYS_socket, vec![vsock]);
    // clone3(2) hides its flags behind a pointer; "not there" makes libraries use clone(2).
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        compile(rules, SeccompAction::Errno(libc::EPERM.unsigned_abs()))?,
        compile(clone3, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))?,
    ])
}

fn rule(arg: u8, len: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    SeccompCondition::new(arg, len, op, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(uncompiled)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, deny: SeccompAction) -> Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(uncompiled)?;
    let mut program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch)
        .and_then(BpfProgram::try_from)
        .map_err(uncompiled)?;
    if cfg!(target_arch = "x86_64") {
        deny_x32(&mut program);
    }
    Ok(program)
}

/// Puts `if the call's number has the x32 bit: EPERM` in front of a program.
fn deny_x32(program: &mut BpfProgram) {
    use seccompiler::sock_filter;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let bpf = |parts: [u32; 3]| {
        u16::try_from(parts.into_iter().fold(0, |all, part| all | part))
            .expect("BPF codes are below 256")
    };
    let front = [
        // A = seccomp_data.nr, its first member
        instruction(bpf([libc::BPF_LD, libc::BPF_W, libc::BPF_ABS]), 0, 0, 0),
        instruction(
            bpf([libc::BPF_JMP, libc::BPF_JSET, libc::BPF_K]),
            0,
            1,
            u32::try_from(X32_SYSCALL_BIT).expect("bit 30 fits 32 bits"),
        ),
        instruction(
            bpf([libc::BPF_RET, libc::BPF_K, 0]),
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        ),
    ];
    // All jumps are relative, so what follows does not notice.
    program.splice(0..0, front);
}

fn uncompiled(error: seccompiler::BackendError) -> Failure {
    Failure { step: "compile the seccomp filter".to_owned(), source: io::Error::other(error) }
}

/// Puts the filters on the calling process and all that it becomes.
pub(super) fn apply(filters: &[BpfProgram]) -> Result<()> {
    for filter in filters {
        seccompiler::apply_filter(filter).map_err(io::Error::other).context("apply seccomp")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|f| f.len() < 4096), "the kernel's BPF_MAXINSNS");
    }
}
