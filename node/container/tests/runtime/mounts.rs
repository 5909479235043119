//! Directories of the host's and memory in a container.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use container::container::{ExitStatus, LogStream, Mount, MountSource, Process};

use super::world::{World, sh};

fn directory(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    let source = MountSource::Directory(source.to_owned());
    Mount { source, target: target.into(), read_only }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_shared_and_its_files_belong_to_whom_they_do_here() {
    let world = World::open().await;
    let volume = world.path().join("volume");
    fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(1000), Some(1000)).unwrap();
    for (name, script) in [
        ("writer", "id -u; echo written > /data/deep/file; stat -c %u:%g /data/deep"),
        ("reader", "cat /data/deep/file; stat -c %u:%g /data/deep/file; echo x >> /data/deep/file"),
    ] {
        let mut spec = world.spec(name);
        spec.mounts = vec![directory(&volume, "/data/deep", false)];
        world.run_with(spec, Process { user: "web".into(), ..sh(script) }).await;
        assert_eq!(world.exit(name).await.status, ExitStatus::Code(0), "{name}");
    }
    assert_eq!(world.log("writer", LogStream::Stdout).await, "1000\n1000:1000\n");
    assert_eq!(world.log("reader", LogStream::Stdout).await, "written\n1000:1000\n");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "written\nx\n");
    assert_eq!(fs::metadata(volume.join("file")).unwrap().uid(), 1000);
    world.destroy("writer").await;
    assert!(volume.join("file").exists(), "what is mounted stays");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_mount_and_its_devices_are_of_no_use_to_write() {
    let world = World::open().await;
    let files = world.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("a"), "a\n").unwrap();
    let mut spec = world.spec("reads");
    spec.mounts = vec![directory(&files, "/files", true)];
    let script = "cat /files/a; echo b > /files/a || echo denied; rm /files/a || echo kept; \
                  mount -o remount,rw /files || echo held";
    world.run_with(spec, sh(script)).await;
    world.exit("reads").await;
    assert_eq!(world.log("reads", LogStream::Stdout).await, "a\ndenied\nkept\nheld\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_a_mount_may_lie_in_another() {
    let world = World::open().await;
    let inner = world.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("word"), "inner\n").unwrap();
    let mut spec = world.spec("memory");
    let source = MountSource::Tmpfs { bytes_max: 1 << 20 };
    spec.mounts = vec![
        Mount { source, target: "/m".into(), read_only: false },
        directory(&inner, "/m/in", true),
    ];
    let script = "cat /m/in/word; head -c 900000 /dev/zero > /m/a && echo fits; \
                  head -c 900000 /dev/zero > /m/b || echo full";
    world.run_with(spec, Process { user: "web".into(), ..sh(script) }).await;
    world.exit("memory").await;
    assert_eq!(world.log("memory", LogStream::Stdout).await, "inner\nfits\nfull\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_symlink_leads_a_mount_nowhere_but_into_the_image() {
    let world = World::open().await;
    let volume = world.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("mine"), "x").unwrap();
    // Absolute, as it would lead on the host.
    symlink(world.path(), world.layer().join("dangling")).unwrap();
    symlink("/etc", world.layer().join("data")).unwrap();
    let mut spec = world.spec("link");
    spec.mounts = vec![directory(&volume, "/data/in", false)];
    world.run_with(spec, sh("ls /data/in /etc/in; echo there > /data/in/new")).await;
    assert_eq!(world.exit("link").await.status, ExitStatus::Code(0));
    let seen = world.log("link", LogStream::Stdout).await;
    assert_eq!(seen, "/data/in:\nmine\n/etc/in:\nmine\n");
    assert!(volume.join("new").exists());
    assert!(!std::path::Path::new("/etc/in").exists(), "the host's is untouched");
    let mut spec = world.spec("dangling");
    spec.mounts = vec![directory(&volume, "/dangling/in", false)];
    let failed = world.runtime().create(spec).await.unwrap_err().to_string();
    assert!(failed.contains("mount at /dangling/in: "), "{failed}");
    assert!(!world.path().join("in").exists(), "nor what it names there");
    let mut spec = world.spec("absent");
    spec.mounts = vec![directory(&world.path().join("no"), "/data", false)];
    let failed = world.runtime().create(spec).await.unwrap_err().to_string();
    assert!(failed.contains("/no for /data: No such file"), "{failed}");
    world.close().await;
}
