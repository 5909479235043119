//! What a container cannot do, tried from inside, and what the host sees of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use container::container::{ContainerState, ExitStatus, LogStream, Process};

use super::world::{World, command, id, sh};

#[tokio::test(flavor = "multi_thread")]
async fn root_inside_is_nobody_outside_and_no_neighbour_either() {
    let world = World::open().await;
    let script = "id -u; echo secret >/root/secret; chmod 600 /root/secret; sleep 1000";
    let first = world.run("first", script).await;
    let second = world.run("second", script).await;
    for (name, info) in [("first", &first), ("second", &second)] {
        world.line(name, "0").await;
        let ContainerState::Running { pid, .. } = world.runtime().get(&id(name)).unwrap().state
        else {
            panic!("{name} does not run")
        };
        let process = fs::metadata(format!("/proc/{pid}")).unwrap();
        assert_eq!((process.uid(), process.gid()), (info.id_base, info.id_base));
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
        let fields: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(fields, [0, info.id_base, 65_536]);
        // What it writes belongs to its own range on disk.
        let secret = world.config.dir.join(format!("containers/{name}/writable/upper/root/secret"));
        let secret = super::world::wait_for_file(&secret).await;
        assert_eq!(secret.uid(), info.id_base);
    }
    assert!(first.id_base >= world.config.id_base && second.id_base >= world.config.id_base);
    assert!(first.id_base.abs_diff(second.id_base) >= 65_536, "ranges do not overlap");
    world.close().await;
}

/// The image's own ids, not the host's, own the files inside.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_image_have_the_images_owners() {
    let world = World::open().await;
    chown(world.layer().join("home/web"), Some(1000), Some(1000)).unwrap();
    let (_, out) = world.output("owners", "stat -c '%u %g' /bin/busybox /home/web").await;
    assert_eq!(out, "0 0\n1000 1000\n");
    world.close().await;
}

/// A ramfs has no id-mapped mounts: the files get copies with another owner and no content.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_file_system_that_maps_no_ids_have_the_images_owners_too() {
    let world = World::open().await;
    let layer = world.path().join("ramfs");
    fs::create_dir(&layer).unwrap();
    command("mount", &["-t", "ramfs", "ramfs", layer.to_str().unwrap()]);
    let mounted = Unmount(layer.clone());
    fs::create_dir_all(layer.join("data/deep")).unwrap();
    fs::write(layer.join("data/deep/file"), "content\n").unwrap();
    symlink("deep/file", layer.join("data/link")).unwrap();
    fs::write(layer.join("data/setuid"), "").unwrap();
    for (name, id) in [("data", 1000), ("data/deep/file", 1000), ("data/setuid", 70_000)] {
        chown(layer.join(name), Some(id), Some(id)).unwrap();
    }
    fs::set_permissions(layer.join("data/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut spec = world.spec("shifted");
    spec.layers.push(layer.clone());
    let script = "cd /data; stat -c '%u %g %a %n' . deep deep/file setuid /bin/busybox
        cat link; chown 7:8 deep/file; stat -c '%u %g' deep/file; echo more >>deep/file
        cat deep/file; rm link; echo new >new; stat -c %u new; ls; cat /proc/self/uid_map | xargs";
    let info = world.run_with(spec, sh(script)).await;
    world.exit("shifted").await;
    let out = world.log("shifted", LogStream::Stdout).await;
    assert_eq!(
        out,
        format!(
            "1000 1000 755 .\n0 0 755 deep\n1000 1000 644 deep/file\n65534 65534 4755 setuid\n\
             0 0 755 /bin/busybox\ncontent\n7 8\ncontent\nmore\n0\ndeep\nnew\nsetuid\n\
             0 {} 65536\n",
            info.id_base
        )
    );
    assert!(world.config.dir.join("containers/shifted/shifted/upper/data").exists());
    // The image's own files are as they were, and no content was copied.
    let file = fs::metadata(layer.join("data/deep/file")).unwrap();
    assert_eq!((file.uid(), file.len()), (1000, 8));
    let copy = world.config.dir.join("containers/shifted/shifted/upper/bin/busybox");
    let copy = fs::metadata(copy).unwrap();
    assert_eq!(copy.uid(), info.id_base);
    assert!(copy.blocks() * 512 <= 4096 && copy.len() > 1_000_000, "{copy:?}");
    let read = world.runtime().read_file(&id("shifted"), "/data/deep/file", 100).await.unwrap();
    assert_eq!(read, b"content\nmore\n");
    let read = world.runtime().read_file(&id("shifted"), "/data/new", 100).await.unwrap();
    assert_eq!(read, b"new\n");
    world.destroy("shifted").await;
    drop(mounted);
    world.close().await;
}

/// A mount of a test's own, which goes with the test.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_containers_processes_are_seen() {
    let world = World::open().await;
    let (_, out) = world.output("pids", "cd /proc; echo [0-9]*; cat /proc/1/comm; echo $$").await;
    // Init, the shell; nothing of the host.
    assert_eq!(out, "1 2\ngavel-init\n2\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_namespaces_of_its_own() {
    let world = World::open().await;
    world.run("spaces", "sleep 1000").await;
    let ContainerState::Running { pid, .. } = world.runtime().get(&id("spaces")).unwrap().state
    else {
        panic!("it does not run")
    };
    for kind in ["mnt", "pid", "net", "uts", "ipc", "user", "cgroup"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_dockers_defaults() {
    let world = World::open().await;
    let script =
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/oom_score_adj";
    let (_, out) = world.output("privileges", script).await;
    assert_eq!(
        out,
        "CapInh:\t0000000000000000\n\
         CapPrm:\t00000000a80425fb\n\
         CapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\n\
         CapAmb:\t0000000000000000\n\
         NoNewPrivs:\t1\n\
         Seccomp:\t2\n\
         300\n"
    );
    let process = Process { user: "web".into(), ..sh("grep -E '^Cap(Prm|Eff)' /proc/self/status") };
    world.run_with(world.spec("user"), process).await;
    world.exit("user").await;
    let out = world.log("user", LogStream::Stdout).await;
    assert_eq!(out, "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_is_made_only_where_that_is_allowed() {
    let world = World::open().await;
    let mut spec = world.spec("refused");
    spec.privileged = true;
    let error = world.runtime().create(spec).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid container refused: it is privileged, which this node's configuration does not \
         allow"
    );
    world.close().await;

    let world = World::open_with(|config| config.privileged = true).await;
    let script = "xargs </proc/self/uid_map; grep -E '^(NoNewPrivs|Seccomp:)' \
                  /proc/self/status; mount -t tmpfs none /tmp && echo mounted; \
                  test -r /proc/keys && echo keys; ls /dev/fuse; \
                  echo x >/root/mine; sleep 1000";
    let mut spec = world.spec("privileged");
    spec.privileged = true;
    let info = world.run_with(spec.clone(), sh(script)).await;
    assert_eq!(info.id_base, 0);
    world.line("privileged", "/dev/fuse").await;
    let out = world.log("privileged", LogStream::Stdout).await;
    assert_eq!(out, "0 0 4294967295\nNoNewPrivs:\t0\nSeccomp:\t0\nmounted\nkeys\n/dev/fuse\n");
    let mine = world.config.dir.join("containers/privileged/writable/upper/root/mine");
    assert_eq!(super::world::wait_for_file(&mine).await.uid(), 0);

    // Another user than root can have what it has elsewhere, and CAP_SYS_ADMIN.
    spec.id = id("user");
    let process = Process { user: "web".into(), ..sh("grep -E '^Cap(Eff|Bnd)' /proc/self/status") };
    world.run_with(spec, process).await;
    world.exit("user").await;
    let out = world.log("user", LogStream::Stdout).await;
    assert_eq!(out, "CapEff:\t0000000000000000\nCapBnd:\t00000000a82425fb\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_leaks_in() {
    let world = World::open().await;
    let script = "cd /proc/self/fd; echo *; env | sort; \
                  cut -d' ' -f2,4 /proc/1/stat; cat /proc/1/environ; ls /proc/1/fd; \
                  cat /proc/1/root/etc/passwd; \
                  grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; umask; ulimit -c";
    world.run("leak", script).await;
    world.exit("leak").await;
    let out = world.log("leak", LogStream::Stdout).await;
    assert_eq!(
        out,
        "0 1 2 3\n\
         HOME=/root\nOLDPWD=/root\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         PWD=/proc/self/fd\nSHLVL=1\nUSER=root\n\
         (gavel-init) 0\n\
         SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n\
         0022\n0\n",
        "3 is the shell's own listing of the directory"
    );
    let errors = world.log("leak", LogStream::Stderr).await;
    assert_eq!(errors.matches("Permission denied").count(), 3, "{errors}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_root_is_gone_and_mounts_are_the_containers_own() {
    let world = World::open().await;
    let (_, out) = world.output("mounts", "cut -d' ' -f2,3 /proc/mounts | sort | uniq").await;
    let points: Vec<&str> = out.lines().collect();
    let allowed = |line: &&str| {
        let (point, kind) = line.split_once(' ').unwrap();
        point == "/" && kind == "overlay"
            || ["/proc", "/sys", "/dev"].iter().any(|at| point.starts_with(at))
    };
    assert!(points.iter().all(allowed), "{out}");
    assert!(points.contains(&"/ overlay") && points.contains(&"/proc proc"), "{out}");
    assert!(!out.contains("gavel"), "no path of the host: {out}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_break_out_fail() {
    let world = World::open().await;
    // Each prints its number only if it succeeds.
    let script = "
        mount -t tmpfs none /tmp && echo 1
        mount -o remount,rw /proc/sys && echo 2
        umount /proc/kcore && echo 3
        echo 1 >/proc/sys/kernel/panic && echo 4
        echo b >/proc/sysrq-trigger && echo 5
        mknod /tmp/disk b 254 0 && cat /tmp/disk && echo 6
        unshare -U true && echo 7
        unshare -m true && echo 8
        chroot /proc/1/root true && echo 9
        hostname other && echo 10
        test -s /proc/kcore && echo 11
        echo 0 >/proc/1/oom_score_adj && echo 12
        insmod /bin/busybox && echo 13
        date -s 2000-01-01 >/dev/null; test $(date +%Y) = 2000 && echo 14
        echo x >/sys/kernel/uevent_helper && echo 15
        dmesg && echo 16
        kill -9 1 && test ! -d /proc/1 && echo 17
        nsenter -t 1 -m true && echo 18
        swapoff -a && swapon /bin/busybox && echo 19
        ip link set eth0 address 02:00:00:00:00:99 && echo 20
        head -c1 /dev/mem && echo 21
        ls /sys/firmware/* && echo 22
        echo still here";
    let (exit, out) = world.output("escape", script).await;
    assert_eq!(out, "still here\n");
    assert_eq!(exit.status, ExitStatus::Code(0));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_few_and_work() {
    let world = World::open().await;
    let script = "ls /dev | tr '\\n' ' '; echo; echo x >/dev/null && head -c4 /dev/zero | wc -c; \
                  head -c4 /dev/urandom | wc -c; echo x >/dev/full || echo full; \
                  echo y >/dev/shm/y && cat /dev/shm/y; echo to-stderr >/dev/stderr; \
                  test -c /dev/ptmx && echo ptmx";
    let (_, out) = world.output("devices", script).await;
    assert_eq!(
        out,
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n\
         4\n4\nfull\ny\nptmx\n"
    );
    let errors = world.log("devices", LogStream::Stderr).await;
    assert!(errors.contains("to-stderr"), "{errors}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_in_an_image_lead_back_into_it() {
    let world = World::open().await;
    let host_etc = world.path().join("host-etc");
    fs::create_dir(&host_etc).unwrap();
    // The image's /etc is a link to a directory of the host, which in the container is nowhere.
    let layer = world.path().join("links");
    fs::create_dir(&layer).unwrap();
    symlink(&host_etc, layer.join("etc")).unwrap();
    fs::copy("/bin/busybox", layer.join("busybox")).unwrap();
    let mut spec = world.spec("links");
    spec.layers = vec![layer.clone()];
    let error = world.runtime().create(spec).await.unwrap_err().to_string();
    assert!(error.starts_with("create container links: "), "{error}");
    assert_eq!(fs::read_dir(&host_etc).unwrap().count(), 0, "nothing is written on the host");

    // A /proc that is a link would take the masks elsewhere.
    fs::remove_file(layer.join("etc")).unwrap();
    symlink("/busybox", layer.join("proc")).unwrap();
    let mut spec = world.spec("links");
    spec.layers = vec![layer];
    let error = world.runtime().create(spec).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "create container links: mount on the image's /proc: Not a directory (os error 20)"
    );
    world.close().await;
}
