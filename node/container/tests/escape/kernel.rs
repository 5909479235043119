//! What is asked of the kernel.

use container::container::{ExitStatus, LogStream, Process};

use super::scene::Scene;
use super::world::args;

/// What the kernel says to an attempt of `attack/calls.rs`.
fn refusal(name: &str) -> &'static str {
    match name {
        "clone3" | "unknown" | "x32-getpid" => "ENOSYS",
        "i386-getpid" => "SIGSYS",
        "setuid-outside" | "setgid-outside" => "EINVAL",
        "raise-priority" => "EACCES",
        _ => "EPERM",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_reach_beyond_the_container_are_refused() {
    let scene = Scene::open().await;
    for user in ["root", "web"] {
        let process = Process { user: user.into(), ..args(&["/attack", "calls"]) };
        scene.start(user, process).await;
        let (exit, out) = scene.end(user).await;
        assert_eq!(exit.status, ExitStatus::Code(0), "{out}");
        for line in out.lines() {
            let (name, answer) = line.split_once(' ').unwrap();
            assert_eq!(answer, refusal(name), "{name}, by {user}");
        }
        assert!(out.starts_with("mount EPERM\n") && out.ends_with("socket-vsock EPERM\n"), "{out}");
        scene.check().await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_kernel_are_not_written() {
    let scene = Scene::open().await;
    // Each prints its number only if it succeeds.
    let script = "
        echo 1 >/proc/sys/kernel/panic && echo 1
        echo 0 >/proc/sys/vm/overcommit_memory && echo 2
        echo '|/bin/sh' >/proc/sys/kernel/core_pattern && echo 3
        echo b >/proc/sysrq-trigger && echo 4
        echo 1 >/proc/sys/net/ipv4/ip_forward && echo 5
        echo x >/sys/kernel/uevent_helper && echo 6
        echo 1 >/sys/power/state && echo 7
        for dir in /sys /proc/sys /proc/irq /proc/bus /proc/fs; do /attack write $dir; done
        for file in kcore keys timer_list sched_debug interrupts kmsg kpageflags slabinfo
            do test -n \"$(head -c1 /proc/$file 2>/dev/null | xxd)\" && echo /proc/$file; done
        ls /sys/firmware/* /sys/devices/virtual/powercap/* /proc/acpi/* /proc/scsi/* 2>/dev/null
        head -c1 /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/vda /dev/sda && echo 8
        echo +memory >/sys/fs/cgroup/cgroup.subtree_control && echo 9
        mkdir /sys/fs/cgroup/x && echo 10
        find /sys/fs/cgroup -name release_agent
        cut -d: -f3 /proc/self/cgroup | sort -u
        echo -1 >/proc/self/oom_score_adj && echo 11
        echo -1000 >/proc/self/oom_score_adj && echo 12
        echo still here";
    let (_, out) = scene.attack("files", script).await;
    assert_eq!(out, "/\nstill here\n", "{}", scene.world.log("files", LogStream::Stderr).await);
    scene.close().await;
}
