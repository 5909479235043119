//! Which system calls a container may make: Docker's default profile, for the capabilities that
//! containers have here.
//!
//! Source: `seccomp/default.json` of github.com/moby/profiles, commit cd3bed80 (2026-06-30).
//! What is not listed answers EPERM, `clone3` ENOSYS, so that libraries fall back to `clone`,
//! whose flags a filter can see; and calls newer than the profile ENOSYS as well, as a kernel
//! without them would (runc does the same).
//!
//! It differs in one point, being stricter: a filter of seccompiler knows one architecture, so a
//! process that makes calls of another (32 bit programs on a 64 bit machine) is killed.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::{Context as _, Failure, Result};

/// Allowed whatever their arguments are: the profile's first list, and what it adds for
/// CAP_SYS_CHROOT and for kernels from 4.8 on.
#[rustfmt::skip]
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_adjtimex, libc::SYS_bind, libc::SYS_brk,
    libc::SYS_capget, libc::SYS_capset, libc::SYS_chdir, libc::SYS_chroot,
    libc::SYS_clock_adjtime, libc::SYS_clock_getres, libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep, libc::SYS_close, libc::SYS_close_range, libc::SYS_connect,
    libc::SYS_copy_file_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fadvise64, libc::SYS_fallocate,
    libc::SYS_fanotify_mark, libc::SYS_fchdir, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_fcntl, libc::SYS_fdatasync,
    libc::SYS_fgetxattr, libc::SYS_flistxattr, libc::SYS_flock, libc::SYS_fremovexattr,
    libc::SYS_fsetxattr, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate,
    libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_get_robust_list, libc::SYS_getcpu,
    libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_getegid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getgroups, libc::SYS_getitimer, libc::SYS_getpeername,
    libc::SYS_getpgid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getpriority,
    libc::SYS_getrandom, libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_getsid, libc::SYS_getsockname, libc::SYS_getsockopt,
    libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_getuid, libc::SYS_getxattr,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_init1, libc::SYS_inotify_rm_watch,
    libc::SYS_io_cancel, libc::SYS_io_destroy, libc::SYS_io_getevents, libc::SYS_io_setup,
    libc::SYS_io_submit, libc::SYS_ioctl, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_kill, libc::SYS_landlock_add_rule, libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self, libc::SYS_lgetxattr, libc::SYS_linkat, libc::SYS_listen,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_lremovexattr, libc::SYS_lseek,
    libc::SYS_lsetxattr, libc::SYS_madvise, libc::SYS_membarrier, libc::SYS_memfd_create,
    libc::SYS_memfd_secret, libc::SYS_mincore, libc::SYS_mkdirat, libc::SYS_mknodat,
    libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall, libc::SYS_mmap, libc::SYS_mprotect,
    libc::SYS_mq_getsetattr, libc::SYS_mq_notify, libc::SYS_mq_open, libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend, libc::SYS_mq_unlink, libc::SYS_mremap, libc::SYS_msgctl,
    libc::SYS_msgget, libc::SYS_msgrcv, libc::SYS_msgsnd, libc::SYS_msync, libc::SYS_munlock,
    libc::SYS_munlockall, libc::SYS_munmap, libc::SYS_name_to_handle_at, libc::SYS_nanosleep,
    libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_pipe2, libc::SYS_pkey_alloc, libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect, libc::SYS_ppoll, libc::SYS_prctl, libc::SYS_pread64,
    libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_prlimit64, libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pselect6, libc::SYS_ptrace,
    libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read,
    libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_recvfrom,
    libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_remap_file_pages, libc::SYS_removexattr,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_restart_syscall, libc::SYS_rseq,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo, libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait, libc::SYS_rt_tgsigqueueinfo, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_sched_getaffinity, libc::SYS_sched_getattr,
    libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity, libc::SYS_sched_setattr, libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler, libc::SYS_sched_yield, libc::SYS_seccomp, libc::SYS_semctl,
    libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_sendfile,
    libc::SYS_sendmmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_set_robust_list,
    libc::SYS_set_tid_address, libc::SYS_setfsgid, libc::SYS_setfsuid, libc::SYS_setgid,
    libc::SYS_setgroups, libc::SYS_setitimer, libc::SYS_setpgid, libc::SYS_setpriority,
    libc::SYS_setregid, libc::SYS_setresgid, libc::SYS_setresuid, libc::SYS_setreuid,
    libc::SYS_setrlimit, libc::SYS_setsid, libc::SYS_setsockopt, libc::SYS_setuid,
    libc::SYS_setxattr, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt, libc::SYS_shmget,
    libc::SYS_shutdown, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_socketpair,
    libc::SYS_splice, libc::SYS_statfs, libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync,
    libc::SYS_sync_file_range, libc::SYS_syncfs, libc::SYS_sysinfo, libc::SYS_tee,
    libc::SYS_tgkill, libc::SYS_timer_create, libc::SYS_timer_delete, libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime, libc::SYS_timer_settime, libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime, libc::SYS_times, libc::SYS_tkill,
    libc::SYS_truncate, libc::SYS_umask, libc::SYS_uname, libc::SYS_unlinkat, libc::SYS_utimensat,
    libc::SYS_vmsplice, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_write, libc::SYS_writev,
];

/// The same, younger than the constants of libc; these have one number on all architectures
/// (the kernel's `scripts/syscall.tbl`).
#[rustfmt::skip]
const ALLOWED_BY_NUMBER: &[libc::c_long] = &[
    451, // cachestat
    452, // fchmodat2
    453, // map_shadow_stack
    454, // futex_wake
    455, // futex_wait
    456, // futex_requeue
    457, // statmount
    458, // listmount
    462, // mseal
    463, // setxattrat
    464, // getxattrat
    465, // listxattrat
    466, // removexattrat
];

/// The last call that the profile was written with: `open_tree_attr`, which it does not allow.
const NEWEST: u32 = 467;

/// The same, of this architecture alone.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown,
    libc::SYS_creat, libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_ctl_old,
    libc::SYS_epoll_wait, libc::SYS_epoll_wait_old, libc::SYS_eventfd, libc::SYS_fork,
    libc::SYS_futimesat, libc::SYS_get_thread_area, libc::SYS_getdents, libc::SYS_getpgrp,
    libc::SYS_inotify_init, libc::SYS_lchown, libc::SYS_link, libc::SYS_lstat, libc::SYS_mkdir,
    libc::SYS_mknod, libc::SYS_modify_ldt, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe,
    libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir, libc::SYS_select,
    libc::SYS_set_thread_area, libc::SYS_signalfd, libc::SYS_stat, libc::SYS_symlink,
    libc::SYS_time, libc::SYS_unlink, libc::SYS_utime, libc::SYS_utimes, libc::SYS_vfork,
    333, // io_pgetevents
    335, // uretprobe
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    292, // io_pgetevents
];

/// The namespace flags of clone(2); with none of them it is allowed.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// The personalities (personality(2)) that are allowed: Linux's own, 32 bit Linux's, each
/// with and without UNAME26, and "which is it?".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// Socket families that are not allowed: the kernel's cryptography, and the way to a hypervisor.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Builds the filter; for a privileged container an empty one, as garden has none for it.
pub(super) fn filter(privileged: bool) -> Result<BpfProgram> {
    if privileged {
        return Ok(BpfProgram::new());
    }
    let (equal, dword) = (SeccompCmpOp::Eq, SeccompCmpArgLen::Dword);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [ALLOWED, ALLOWED_BY_NUMBER, ALLOWED_HERE]
        .into_iter()
        .flatten()
        .map(|call| (*call, Vec::new()))
        .collect();
    let flags = SeccompCmpOp::MaskedEq(CLONE_NAMESPACES);
    rules.insert(libc::SYS_clone, vec![rule(&[(SeccompCmpArgLen::Qword, flags, 0)])?]);
    let personalities: Result<_> = PERSONALITIES
        .into_iter()
        .map(|personality| rule(&[(dword.clone(), equal.clone(), personality)]))
        .collect();
    rules.insert(libc::SYS_personality, personalities?);
    let other_families =
        [(dword.clone(), SeccompCmpOp::Ne, AF_ALG), (dword, SeccompCmpOp::Ne, AF_VSOCK)];
    rules.insert(libc::SYS_socket, vec![rule(&other_families)?]);

    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(uncompiled)?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let mut program: BpfProgram = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(uncompiled)?;
    // All jumps are relative, so what follows does not notice.
    program.splice(0..0, not_implemented());
    Ok(program)
}

/// A rule that holds if all of its conditions on the call's first argument do.
fn rule(conditions: &[(SeccompCmpArgLen, SeccompCmpOp, u64)]) -> Result<SeccompRule> {
    let conditions: std::result::Result<_, _> = conditions
        .iter()
        .map(|(length, op, value)| SeccompCondition::new(0, length.clone(), op.clone(), *value))
        .collect();
    conditions.and_then(SeccompRule::new).map_err(uncompiled)
}

/// The front of the program: ENOSYS for `clone3` and for what is newer than the profile.
/// x86_64's x32 calls are among the latter: their numbers have bit 30 set.
fn not_implemented() -> [sock_filter; 4] {
    let instruction = |parts: [u32; 3], jt, jf, k| {
        let code = u16::try_from(parts.into_iter().fold(0, |all, part| all | part))
            .expect("BPF codes are below 256");
        sock_filter { code, jt, jf, k }
    };
    let clone3 = u32::try_from(libc::SYS_clone3).expect("numbers of calls are small");
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    [
        // A = seccomp_data.nr, its first member
        instruction([libc::BPF_LD, libc::BPF_W, libc::BPF_ABS], 0, 0, 0),
        instruction([libc::BPF_JMP, libc::BPF_JGT, libc::BPF_K], 1, 0, NEWEST),
        instruction([libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K], 0, 1, clone3),
        instruction([libc::BPF_RET, libc::BPF_K, 0], 0, 0, enosys),
    ]
}

fn uncompiled(error: seccompiler::BackendError) -> Failure {
    Failure { step: "compile the seccomp filter".to_owned(), source: io::Error::other(error) }
}

/// Puts the filter on the calling process and all that it becomes.
pub(super) fn apply(filter: &BpfProgram) -> Result<()> {
    if filter.is_empty() {
        return Ok(());
    }
    seccompiler::apply_filter(filter).map_err(io::Error::other).context("apply seccomp")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

    /// linux/audit.h
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xC000_00B7;

    /// What the kernel's interpreter would answer (networking/filter.rst), for the instructions
    /// that seccompiler uses.
    fn answer_on(arch: u32, call: i64, args: &[u64]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&i32::try_from(call).unwrap().to_ne_bytes());
        data.extend_from_slice(&arch.to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        for number in 0..6 {
            data.extend_from_slice(&args.get(number).copied().unwrap_or(0).to_ne_bytes());
        }
        let program = filter(false).unwrap();
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                0x20 => {
                    let offset = usize::try_from(k).unwrap();
                    a = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x05 => at += usize::try_from(k).unwrap(),
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x54 => a &= k,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn answer(call: i64, args: &[u64]) -> u32 {
        answer_on(ARCH, call, args)
    }

    #[test]
    fn the_program_fits_the_kernel() {
        let length = filter(false).unwrap().len();
        assert!(length < 4096, "{length}, of the kernel's BPF_MAXINSNS");
    }

    #[test]
    fn what_programs_need_is_allowed_and_what_they_do_not_is_not() {
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_chroot, 451] {
            assert_eq!(answer(call, &[]), ALLOW, "{call}");
        }
        for call in [
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_perf_event_open,
            libc::SYS_open_by_handle_at,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_quotactl,
            libc::SYS_syslog,
            libc::SYS_pidfd_getfd,
            i64::from(NEWEST),
        ] {
            assert_eq!(answer(call, &[]), EPERM, "{call}");
        }
    }

    #[test]
    fn a_process_may_be_made_but_no_namespace() {
        let fork = u64::from(libc::SIGCHLD.unsigned_abs());
        assert_eq!(answer(libc::SYS_clone, &[fork]), ALLOW);
        for bit in (0..32).map(|bit| 1_u64 << bit).filter(|bit| CLONE_NAMESPACES & bit != 0) {
            assert_eq!(answer(libc::SYS_clone, &[fork | bit]), EPERM, "{bit:#x}");
        }
        assert_eq!(answer(libc::SYS_clone3, &[]), ENOSYS);
    }

    #[test]
    fn calls_that_the_profile_does_not_know_are_not_there() {
        assert_eq!(answer(i64::from(NEWEST) + 1, &[]), ENOSYS);
        assert_eq!(answer(libc::SYS_read | 0x4000_0000, &[]), ENOSYS, "an x32 call");
    }

    #[test]
    fn arguments_count_where_the_profile_says_so() {
        assert_eq!(answer(libc::SYS_personality, &[0x2_0008]), ALLOW);
        // ADDR_NO_RANDOMIZE
        assert_eq!(answer(libc::SYS_personality, &[0x4_0000]), EPERM);
        for family in [1, 2, 10, 16, 17, 39, 41] {
            assert_eq!(answer(libc::SYS_socket, &[family]), ALLOW, "{family}");
        }
        for family in [AF_ALG, AF_VSOCK] {
            assert_eq!(answer(libc::SYS_socket, &[family]), EPERM, "{family}");
            // The kernel looks at 32 bits of it.
            assert_eq!(answer(libc::SYS_socket, &[family | 1 << 32]), EPERM, "{family}");
        }
    }

    #[test]
    fn another_architectures_calls_end_the_process() {
        // AUDIT_ARCH_I386, whose getpid(2) is 20.
        assert_eq!(answer_on(0x4000_0003, 20, &[]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
