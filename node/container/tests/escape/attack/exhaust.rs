//! Taking all there is of something: each takes until the kernel refuses, says how much that was,
//! and holds it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};

use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, getpid, pause};

use super::attempt;

/// Says what was had, and stays.
fn hold<T>(_held: T, count: usize) -> ! {
    println!("had {count}");
    std::io::stdout().flush().unwrap();
    loop {
        pause();
    }
}

pub(super) fn inotify() -> ! {
    let instances: Vec<Inotify> =
        std::iter::from_fn(|| Inotify::init(InitFlags::empty()).ok()).collect();
    let count = instances.len();
    hold(instances, count)
}

/// Queued signals, of which a user may have a number.
pub(super) fn signals() -> ! {
    block_real_time();
    let mut count = 0;
    while queue_one() == 0 {
        count += 1;
    }
    hold((), count)
}

fn block_real_time() {
    // SAFETY: the set is ours, and initialised by the first call.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGRTMIN());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

fn queue_one() -> libc::c_long {
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: the call takes three values.
    unsafe { libc::sigqueue(getpid().as_raw(), libc::SIGRTMIN(), value) }.into()
}

/// Signals to everyone, over and over, from as many processes as there may be.
pub(super) fn storm() -> ! {
    let mut count = 0;
    let others = SigSet::all();
    others.thread_block().unwrap();
    loop {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => loop {
                for signal in [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
                    let _ = kill(Pid::from_raw(-1), signal);
                }
                let _ = kill(Pid::from_raw(1), Signal::SIGKILL);
            },
            Ok(ForkResult::Parent { .. }) => count += 1,
            Err(_) => hold((), count),
        }
        if count == 16 {
            hold((), count);
        }
    }
}

/// Open files, in as many processes as there may be.
pub(super) fn files() -> ! {
    let mut held = Vec::new();
    let mut count = 0;
    loop {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(_) => {
                count += held.len();
                // SAFETY: this process has one thread.
                match unsafe { fork() } {
                    // The child has the parent's descriptors already.
                    Ok(ForkResult::Child) => loop {
                        pause();
                    },
                    Ok(ForkResult::Parent { .. }) if count < 1_000_000 => {}
                    Ok(ForkResult::Parent { .. }) | Err(_) => hold(held, count),
                }
            }
        }
    }
}

/// Memory, until there is none or the kernel ends this.
pub(super) fn memory() -> ! {
    let mut held = Vec::new();
    loop {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(1 << 20).is_err() {
            let count = held.len();
            hold(held, count);
        }
        piece.resize(1 << 20, 1);
        held.push(piece);
    }
}

pub(super) fn processes() -> ! {
    let mut count = 0;
    loop {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            // Each forks on, too.
            Ok(ForkResult::Child) => {}
            Ok(ForkResult::Parent { .. }) => count += 1,
            Err(Errno::EAGAIN) => hold((), count),
            Err(other) => panic!("{other}"),
        }
    }
}

/// What any program may ask for, and gets whatever its neighbours took.
pub(super) fn ordinary() {
    attempt("inotify", || match Inotify::init(InitFlags::empty()) {
        Ok(_) => 0,
        Err(_) => -1,
    });
    attempt("signal", || {
        block_real_time();
        queue_one()
    });
    attempt("timer", || {
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: a null event is the default, and `timer` is where its number goes.
        unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, std::ptr::null_mut(), &raw mut timer) }
            .into()
    });
    attempt("queue", || {
        let flags = libc::O_CREAT | libc::O_RDWR;
        // SAFETY: the name is zero-terminated; null attributes are the default.
        let queue = unsafe {
            libc::mq_open(
                c"/ordinary".as_ptr(),
                flags,
                0o600,
                std::ptr::null_mut::<libc::mq_attr>(),
            )
        };
        queue.into()
    });
    attempt("file", || match File::create("/tmp/ordinary") {
        Ok(mut file) => file.write_all(b"ordinary").map_or(-1, |()| 0),
        Err(error) if error.kind() == ErrorKind::Other => -1,
        Err(_) => -1,
    });
    attempt("process", || {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            // SAFETY: nothing of this process is left to be done.
            Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
            Ok(ForkResult::Parent { .. }) => 0,
            Err(_) => -1,
        }
    });
}
