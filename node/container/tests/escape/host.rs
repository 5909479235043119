//! Reaching for the host: its files, processes and devices.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use container::container::{ExitStatus, Launch, Mount, MountSource, Process, Program, Stdio};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::scene::{ANSWER_MAX, Scene, Witness, limited};
use super::world::{args, id, sh};

/// A file of the host's that everyone may read and write, and nobody in a container may find.
fn bait(scene: &Scene) -> Witness {
    let bait = scene.world.path().join("bait");
    fs::write(&bait, "bait").unwrap();
    fs::set_permissions(&bait, fs::Permissions::from_mode(0o666)).unwrap();
    Witness::of(&bait)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_files_are_nowhere() {
    let scene = Scene::open().await;
    let (bait, dir) = (bait(&scene), scene.world.path().display().to_string());
    let script = format!(
        "for root in '' /proc/1/root /proc/self/root /proc/1/cwd /proc/[0-9]*/root /.. /../../..
            do cat $root{dir}/bait && echo found at $root; echo x >$root{dir}/bait
            ls $root{dir} $root/work $root/boot; done
         for fd in /proc/[0-9]*/fd/*; do cat $fd/..{dir}/bait $fd{dir}/bait && echo found at $fd; done
         readlink /proc/1/exe /proc/1/cwd /proc/1/root; 
         for fd in /proc/1/fd/* /proc/1/map_files/*; do test -L $fd && echo $fd; done
         cat /proc/1/environ /proc/1/mem /proc/1/maps
         chroot /proc/1/root cat {dir}/bait
         nsenter -t 1 -m cat {dir}/bait
         cut -d' ' -f4,5 /proc/self/mountinfo | grep -e {dir} -e ' /work'
         ln -s {dir}/bait /tmp/link; cat /tmp/link; echo x >/tmp/link; ln {dir}/bait /tmp/hard
         cd /tmp; mkdir -p a/b; cd a/b; rmdir ../b; rmdir ../../a; ls ../../../../../..{dir}
         echo still here"
    );
    let (_, out) = scene.attack("files", &script).await;
    assert_eq!(out, "still here\n");
    bait.unchanged();
    scene.close().await;
}

/// CVE-2019-5736: a container writes over the program that started it.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_that_made_it_is_not_overwritten() {
    let scene = Scene::open().await;
    let shim = Witness::of(&scene.world.config.shim.program);
    // A script whose interpreter is whoever executes it: for the first program of a container
    // that is the init, which is the host's program in memory.
    let script = scene.world.layer().join("self");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = limited(scene.world.spec("self"));
    scene.world.runtime().create(spec).await.unwrap();
    let started = scene.world.runtime().start(&id("self"), args(&["/self"])).await;
    if started.is_ok() {
        scene.world.exit("self").await;
    }
    let script = "for exe in /proc/1/exe /proc/self/exe /proc/[0-9]*/exe
            do (echo x >$exe) 2>/dev/null && echo wrote $exe; done
        while ! test -e /tmp/done; do (echo x >>/proc/1/exe) 2>/dev/null; touch /tmp/done; done
        dd if=/proc/1/exe of=/dev/null && echo read; echo still here";
    let (_, out) = scene.attack("overwrite", script).await;
    // Its own shell is its own to overwrite, but busy.
    assert_eq!(out, "still here\n");
    shim.unchanged();
    scene.close().await;
}

/// CVE-2024-21626: a descriptor of the host's, if there was one, as working directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_is_inside() {
    let scene = Scene::open().await;
    let bait = bait(&scene);
    let up = format!("../../../../../../../../..{}", scene.world.path().display());
    let dirs = (0..=16).map(|fd| format!("/proc/self/fd/{fd}/{up}"));
    let dirs = dirs.chain((0..=16).map(|fd| format!("/proc/self/fd/{fd}")));
    let dirs =
        dirs.chain([format!("/{up}"), "/proc/1/root/..".to_owned(), "/proc/1/cwd".to_owned()]);
    for (number, dir) in dirs.enumerate() {
        let name = format!("dir-{number}");
        let script = "cat bait ./*/bait; ls -d ../../../../work; echo in $(pwd -P)";
        let process = Process { working_dir: Some(dir.clone()), ..sh(script) };
        let spec = limited(scene.world.spec(&name));
        scene.world.runtime().create(spec).await.unwrap();
        match scene.world.runtime().start(&id(&name), process).await {
            // Most are no directories.
            Err(error) => assert!(
                error.to_string().starts_with(&format!("start container {name}: ")),
                "{error}"
            ),
            Ok(()) => {
                let (_, out) = scene.end(&name).await;
                assert!(out.starts_with("in /") && out.lines().count() == 1, "{dir}: {out}");
            }
        }
        scene.world.destroy(&name).await;
    }
    bait.unchanged();
    scene.close().await;
}

/// What is started in it later does not wait for, nor follow, what the first has laid out.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_laid_for_later_processes_catches_nothing() {
    let scene = Scene::open().await;
    let bait = bait(&scene);
    let trap = format!(
        "rm /etc/passwd /etc/group; mkfifo /etc/passwd; ln -s {}/bait /etc/group
         mkdir /trap; ln -s / /trap/up; ln -s /trap/loop /trap/loop; echo laid; sleep 1000",
        scene.world.path().display()
    );
    scene.start("trap", sh(&trap)).await;
    scene.world.line("trap", "laid").await;
    for (user, dir, reason) in [
        ("web", "/", "user \"web\" is not in the image's /etc/passwd"),
        ("", "/trap/loop", "File exists"),
        ("", "/trap/up/../../../proc/1/root/work", "File exists"),
    ] {
        let process = Process {
            user: user.into(),
            working_dir: Some(dir.into()),
            ..args(&["/bin/no-such-program"])
        };
        let launch = Launch {
            name: format!("later in {dir}"),
            program: Program::Image(process),
            stdio: Stdio::Pipes,
            essential: false,
        };
        let trap = id("trap");
        let launched = scene.world.runtime().launch(&trap, launch);
        let launched = tokio::time::timeout(ANSWER_MAX, launched).await.expect("it is not caught");
        let error = launched.unwrap_err().to_string();
        assert!(error.contains(reason), "{dir}: {error}");
    }
    bait.unchanged();
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_in_an_image_are_not_opened() {
    let scene = Scene::open().await;
    let layer = scene.world.path().join("devices");
    fs::create_dir_all(layer.join("dev")).unwrap();
    // The kernel's devices.txt: memory, the first loop device, and a null device that works on
    // the host.
    for (name, kind, major, minor) in [
        ("mem", SFlag::S_IFCHR, 1, 1),
        ("disk", SFlag::S_IFBLK, 7, 0),
        ("null-of-the-image", SFlag::S_IFCHR, 1, 3),
    ] {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&layer.join(name), kind, mode, makedev(major, minor)).unwrap();
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::write(layer.join("null-of-the-image"), "x").unwrap();
    let mut spec = limited(scene.world.spec("devices"));
    spec.layers.push(layer);
    let script = "for file in /mem /disk /null-of-the-image
            do test -e $file || echo no $file; head -c1 $file && echo opened $file; done
        mv /mem /dev/mem && head -c1 /dev/mem && echo moved; cp -a /disk /dev/shm/disk && echo copied
        echo still here";
    scene.start_with(spec, sh(script)).await;
    let (_, out) = scene.end("devices").await;
    assert_eq!(out, "still here\n");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_an_image_lead_into_it() {
    let scene = Scene::open().await;
    let bait = bait(&scene);
    let path = scene.world.path().join("bait");
    let layer = scene.world.path().join("links");
    fs::create_dir_all(layer.join("etc")).unwrap();
    symlink(&path, layer.join("absolute")).unwrap();
    symlink(
        Path::new("../../../../../../../../..").join(path.strip_prefix("/").unwrap()),
        layer.join("relative"),
    )
    .unwrap();
    // Files that a runtime writes itself, as links to the host's.
    for name in ["hosts", "hostname", "resolv.conf"] {
        symlink(&path, layer.join("etc").join(name)).unwrap();
    }
    let mut spec = limited(scene.world.spec("links"));
    spec.layers.push(layer);
    let script = "cat /absolute /relative && echo read; (echo x >/absolute) && echo wrote
        cat /etc/hostname";
    scene.start_with(spec, sh(script)).await;
    let (_, out) = scene.end("links").await;
    assert_eq!(out, "links\n");
    bait.unchanged();
    scene.close().await;
}

/// A volume comes with what an earlier container has left in it, and an image says by its links
/// where that is seen: neither leads the runtime, which is still root, astray.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_not_led_to_the_kernel() {
    let scene = Scene::open().await;
    let volume = scene.world.path().join("volume");
    let forged = volume.join("net/ipv4/ip_unprivileged_port_start");
    fs::create_dir_all(forged.parent().unwrap()).unwrap();
    fs::write(&forged, "the volume's own").unwrap();
    let forged = Witness::of(&forged);
    let layer = scene.world.path().join("led");
    fs::create_dir(&layer).unwrap();
    symlink("/proc", layer.join("proc-of-the-image")).unwrap();
    symlink("/dev", layer.join("dev-of-the-image")).unwrap();
    for target in ["/proc-of-the-image/sys", "/proc-of-the-image", "/dev-of-the-image/null"] {
        let mut spec = limited(scene.world.spec("led"));
        spec.layers.push(layer.clone());
        let source = MountSource::Directory(volume.clone());
        spec.mounts = vec![Mount { source, target: target.into(), read_only: false }];
        match scene.world.runtime().create(spec).await {
            Err(error) => {
                assert!(error.to_string().starts_with("create container led: "), "{error}")
            }
            Ok(_) => {
                let script = "test $(cat /proc/sys/kernel/ostype) = Linux && echo x >/dev/null
                    echo b >/proc/sys/kernel/panic; test -s /proc/keys && echo keys; echo done";
                scene.world.runtime().start(&id("led"), sh(script)).await.unwrap();
                assert_eq!(scene.end("led").await.1, "done\n", "{target}");
            }
        }
        forged.unchanged();
        scene.world.destroy("led").await;
    }
    scene.close().await;
}

/// Where an image's links lead to the descriptors of who makes the container.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_not_led_to_a_descriptor() {
    let scene = Scene::open().await;
    let volume = scene.world.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let layer = scene.world.path().join("descriptors");
    fs::create_dir(&layer).unwrap();
    for fd in 0..32 {
        symlink(format!("/proc/self/fd/{fd}"), layer.join(format!("fd{fd}"))).unwrap();
        let mut spec = limited(scene.world.spec("fd"));
        spec.layers.push(layer.clone());
        let target = format!("/fd{fd}/made").into();
        let source = MountSource::Directory(volume.clone());
        spec.mounts = vec![Mount { source, target, read_only: false }];
        let error = scene.world.runtime().create(spec).await.unwrap_err().to_string();
        assert!(error.contains(": File exists"), "descriptor {fd}: {error}");
    }
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setuid_program_gives_nothing() {
    let scene = Scene::open().await;
    let program = scene.world.layer().join("bin/busybox-root");
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let script = "/bin/busybox-root id -u; /bin/busybox-root id -g; \
                  /bin/busybox-root cat /etc/shadow /root/secret; echo still here";
    let process = Process { user: "web".into(), ..sh(script) };
    scene.start("setuid", process).await;
    let (exit, out) = scene.end("setuid").await;
    assert_eq!((exit.status, out.as_str()), (ExitStatus::Code(0), "1000\n1000\nstill here\n"));
    // What root in a container makes setuid is its own root's, who is nobody on the host.
    let made = "cp /bin/busybox /tmp/shell; chmod 6755 /tmp/shell; echo made; sleep 1000";
    scene.start("maker", sh(made)).await;
    scene.world.line("maker", "made").await;
    let pid = scene.world.pid("maker");
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{pid}/root/tmp/shell")).unwrap(),
    );
    assert!(owner >= scene.world.config.id_base, "{owner}");
    scene.close().await;
}

/// Numbers of the host's processes are nobody's in a container.
#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_processes_are_out_of_reach() {
    let scene = Scene::open().await;
    for pid in [std::process::id(), scene.world.pid("neighbour")] {
        let name = format!("reach-{pid}");
        scene.start(&name, args(&["/attack", "reach", &pid.to_string()])).await;
        let (_, out) = scene.end(&name).await;
        assert_eq!(
            out,
            "kill ESRCH\nptrace ESRCH\npidfd_open ESRCH\nprocess_vm_readv ESRCH\nprlimit ESRCH\n\
             affinity ESRCH\n"
        );
    }
    scene.close().await;
}
