//! Calls that reach for the kernel or for others. Where one was allowed, its arguments would make
//! it fail in another way, or do no harm.

use std::fs::{self, File};
use std::path::Path;

use nix::libc::{self, c_long, c_void, syscall};

use super::attempt;

const NULL: *const c_void = std::ptr::null();

pub(super) fn try_all() {
    namespaces_and_mounts();
    doors_into_the_kernel();
    the_machine();
    sockets();
}

/// `struct clone_args` of clone3(2), as far as it matters.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    others: [u64; 10],
}

fn namespaces_and_mounts() {
    let tmpfs = c"tmpfs".as_ptr();
    let (here, root) = (c"/tmp".as_ptr(), c"/".as_ptr());
    // SAFETY: here and below: the calls get numbers, zero-terminated strings, and pointers to
    // what they ask for or null, which they refuse.
    unsafe {
        attempt("mount", || syscall(libc::SYS_mount, tmpfs, here, tmpfs, 0, NULL));
        let bind = libc::MS_BIND | libc::MS_REMOUNT;
        attempt("remount", || {
            syscall(libc::SYS_mount, NULL, c"/proc/sys".as_ptr(), NULL, bind, NULL)
        });
        attempt("umount", || syscall(libc::SYS_umount2, c"/proc/kcore".as_ptr(), libc::MNT_DETACH));
        attempt("pivot_root", || syscall(libc::SYS_pivot_root, root, root));
        attempt("open_tree", || syscall(libc::SYS_open_tree, libc::AT_FDCWD, root, 1));
        attempt("move_mount", || syscall(libc::SYS_move_mount, -1, root, -1, root, 0));
        attempt("mount_setattr", || syscall(libc::SYS_mount_setattr, -1, root, 0, NULL, 0));
        attempt("fsopen", || syscall(libc::SYS_fsopen, tmpfs, 0));
        attempt("fspick", || syscall(libc::SYS_fspick, libc::AT_FDCWD, root, 0));
        for (name, flag) in [
            ("user", libc::CLONE_NEWUSER),
            ("mount", libc::CLONE_NEWNS),
            ("pid", libc::CLONE_NEWPID),
            ("network", libc::CLONE_NEWNET),
            ("ipc", libc::CLONE_NEWIPC),
            ("uts", libc::CLONE_NEWUTS),
            ("cgroup", libc::CLONE_NEWCGROUP),
        ] {
            attempt(&format!("unshare-{name}"), || syscall(libc::SYS_unshare, flag));
            attempt(&format!("clone-{name}"), || {
                child(syscall(libc::SYS_clone, flag | libc::SIGCHLD, NULL, NULL, NULL, NULL))
            });
        }
        let args = CloneArgs { flags: 0x1000_0000, ..CloneArgs::default() };
        attempt("clone3", || child(syscall(libc::SYS_clone3, &raw const args, size_of_val(&args))));
        attempt("setns", || {
            let own = libc::open(c"/proc/self/ns/net".as_ptr(), libc::O_RDONLY);
            syscall(libc::SYS_setns, own, libc::CLONE_NEWNET)
        });
    }
}

/// A child that was made after all ends at once.
fn child(pid: c_long) -> c_long {
    if pid == 0 {
        // SAFETY: nothing of this process is left to be done.
        unsafe { libc::_exit(0) }
    }
    pid
}

/// `struct file_handle` with room for ext4's and overlayfs's handles.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn doors_into_the_kernel() {
    // SAFETY: as above.
    unsafe {
        attempt("init_module", || syscall(libc::SYS_init_module, NULL, 0, c"".as_ptr()));
        attempt("finit_module", || syscall(libc::SYS_finit_module, -1, c"".as_ptr(), 0));
        attempt("delete_module", || syscall(libc::SYS_delete_module, c"none".as_ptr(), 0));
        attempt("kexec_load", || syscall(libc::SYS_kexec_load, 0, 0, NULL, u64::MAX));
        attempt("kexec_file_load", || {
            syscall(libc::SYS_kexec_file_load, -1, -1, 0, NULL, u64::MAX)
        });
        attempt("bpf", || syscall(libc::SYS_bpf, 0, NULL, 0));
        attempt("perf_event_open", || syscall(libc::SYS_perf_event_open, NULL, 0, -1, -1, 0));
        attempt("userfaultfd", || syscall(libc::SYS_userfaultfd, 1));
        attempt("io_uring_setup", || syscall(libc::SYS_io_uring_setup, 0, NULL));
        attempt("io_uring_enter", || syscall(libc::SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0));
        attempt("io_uring_register", || syscall(libc::SYS_io_uring_register, -1, 0, NULL, 0));
        attempt("keyctl", || syscall(libc::SYS_keyctl, 0, -3, 0, 0, 0));
        attempt("add_key", || {
            let (user, key) = (c"user".as_ptr(), c"key".as_ptr());
            syscall(libc::SYS_add_key, user, key, key, 3, -3)
        });
        attempt("request_key", || {
            syscall(libc::SYS_request_key, c"user".as_ptr(), c"key".as_ptr(), NULL, 0)
        });
        attempt("fanotify_init", || syscall(libc::SYS_fanotify_init, u32::MAX, 0));
        attempt("open_by_handle_at", || {
            let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
            let (root, mut mount) = (c"/".as_ptr(), 0_i32);
            let at = libc::AT_FDCWD;
            let to = (&raw mut handle, &raw mut mount);
            let _ = syscall(libc::SYS_name_to_handle_at, at, root, to.0, to.1, 0);
            // ext4's root is inode 2, of generation 0.
            handle.kind = 1;
            handle.bytes = 8;
            handle.handle[..8].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
            let top = libc::open(root, libc::O_RDONLY);
            syscall(libc::SYS_open_by_handle_at, top, &raw const handle, libc::O_RDONLY)
        });
        attempt("ptrace-init", || syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0));
        attempt("pidfd_getfd", || syscall(libc::SYS_pidfd_getfd, -1, 0, 0));
        attempt("process_madvise", || syscall(libc::SYS_process_madvise, -1, NULL, 0, 0, 0));
        attempt("kcmp", || syscall(libc::SYS_kcmp, 1, 1, 0, 0, 0));
        // ADDR_NO_RANDOMIZE
        attempt("personality", || syscall(libc::SYS_personality, 0x4_0000));
        attempt("unknown", || syscall(100_000));
        #[cfg(target_arch = "x86_64")]
        {
            attempt("x32-getpid", || syscall(libc::SYS_getpid | 0x4000_0000));
            attempt("i386-getpid", i386_getpid);
            attempt("iopl", || syscall(libc::SYS_iopl, 3));
            attempt("ioperm", || syscall(libc::SYS_ioperm, 0x80, 1, 1));
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn i386_getpid() -> c_long {
    let pid: u64;
    // SAFETY: the call takes no argument and writes nothing but its result.
    unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20_u64 => pid) };
    c_long::try_from(pid).unwrap_or(-1)
}

fn the_machine() {
    // SAFETY: as above.
    unsafe {
        attempt("reboot", || syscall(libc::SYS_reboot, 0, 0, 0, NULL));
        attempt("swapon", || syscall(libc::SYS_swapon, c"/none".as_ptr(), 0));
        attempt("swapoff", || syscall(libc::SYS_swapoff, c"/none".as_ptr()));
        attempt("sethostname", || syscall(libc::SYS_sethostname, c"x".as_ptr(), 1));
        attempt("setdomainname", || syscall(libc::SYS_setdomainname, c"x".as_ptr(), 1));
        attempt("settimeofday", || syscall(libc::SYS_settimeofday, NULL, NULL));
        attempt("clock_settime", || syscall(libc::SYS_clock_settime, 0, NULL));
        attempt("syslog", || syscall(libc::SYS_syslog, 10, NULL, 0));
        attempt("acct", || syscall(libc::SYS_acct, c"/none".as_ptr()));
        attempt("quotactl", || syscall(libc::SYS_quotactl, 0, NULL, 0, NULL));
        attempt("vhangup", || syscall(libc::SYS_vhangup));
        attempt("mknod-disk", || {
            let mode = libc::S_IFBLK | 0o666;
            syscall(libc::SYS_mknodat, libc::AT_FDCWD, c"/dev/shm/disk".as_ptr(), mode, 0xFE00)
        });
        attempt("mknod-mem", || {
            let mode = libc::S_IFCHR | 0o666;
            syscall(libc::SYS_mknodat, libc::AT_FDCWD, c"/dev/shm/mem".as_ptr(), mode, 0x0101)
        });
        attempt("setuid-outside", || syscall(libc::SYS_setuid, 65_536));
        attempt("setgid-outside", || syscall(libc::SYS_setgid, 65_536));
        attempt("raise-priority", || {
            // To 19 and back up.
            let process = libc::PRIO_PROCESS;
            let _ = syscall(libc::SYS_setpriority, process, 0, 19);
            syscall(libc::SYS_setpriority, process, 0, -20)
        });
        attempt("real-time", || {
            let priority = 99_i32;
            syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority)
        });
        attempt("raise-limit", || {
            let none = [u64::MAX, u64::MAX];
            syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_MEMLOCK, none.as_ptr(), NULL)
        });
    }
}

fn sockets() {
    // SAFETY: as above.
    unsafe {
        attempt("socket-alg", || syscall(libc::SYS_socket, 38, libc::SOCK_SEQPACKET, 0));
        attempt("socket-vsock", || syscall(libc::SYS_socket, 40, libc::SOCK_STREAM, 0));
    }
}

/// Names every file below `dir` that opens for writing. None is written to.
pub(super) fn open_for_writing(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => open_for_writing(&path),
            // A fifo or a device is not a file of the kernel's.
            Ok(kind) if kind.is_file() => {
                if File::options().write(true).open(&path).is_ok() {
                    println!("{} opens", path.display());
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Reaches for a process by its number on the host, as if numbers were worth something.
pub(super) fn reach(pid: i32) {
    // SAFETY: as above.
    unsafe {
        attempt("kill", || syscall(libc::SYS_kill, pid, 0));
        attempt("ptrace", || syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, pid, 0, 0));
        attempt("pidfd_open", || syscall(libc::SYS_pidfd_open, pid, 0));
        attempt("process_vm_readv", || {
            let mut bytes = [0_u8; 8];
            let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
            let (vector, one) = (&raw const local, 1);
            syscall(libc::SYS_process_vm_readv, pid, vector, one, vector, one, 0)
        });
        attempt("prlimit", || {
            let limit = [0_u64; 2];
            syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_CPU, limit.as_ptr(), NULL)
        });
        attempt("affinity", || {
            let cpus = 1_u64;
            syscall(libc::SYS_sched_setaffinity, pid, 8, &raw const cpus)
        });
    }
}
