//! What an image holds, as its container finds it: layers that GNU tar packs, imported as a
//! registry's are unpacked, on the real kernel.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use container::container::{ExitStatus, LogStream, Process};
use container::image::{Digest, Image, Registries, Store};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use super::world::{World, args, command, sh};

/// A world with a store, into which it packs directories.
struct Packer {
    world: World,
    store: Store,
}

impl Packer {
    async fn open() -> Self {
        let world = World::open().await;
        let store = Store::open(&world.path().join("store"), Registries::default()).unwrap();
        Self { world, store }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.world.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The image of these layers, lowest first, by way of a file of `docker save`.
    async fn image(&self, layers: &[&Path]) -> Image {
        let saved = self.dir("saved");
        let (mut names, mut diff_ids) = (Vec::new(), Vec::new());
        for (number, layer) in layers.iter().enumerate() {
            let (name, from) = (format!("{number}.tar"), layer.to_str().unwrap());
            let to = saved.join(&name);
            let to = to.to_str().unwrap();
            let xattrs = ["--xattrs", "--xattrs-include=*", "--sparse", "--format=posix"];
            command("tar", &[&xattrs[..], &["-C", from, "-cf", to, "."]].concat());
            diff_ids.push(Digest::of(&fs::read(to).unwrap()).to_string());
            names.push(name);
        }
        let config = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
        fs::write(saved.join("config.json"), config).unwrap();
        let manifest = json!([{"Config": "config.json", "Layers": names}]).to_string();
        fs::write(saved.join("manifest.json"), manifest).unwrap();
        let archive = self.world.path().join("saved.tar");
        let (from, to) = (saved.to_str().unwrap(), archive.to_str().unwrap());
        command("tar", &["-C", from, "-cf", to, "."]);
        self.store.import(&archive).await.unwrap()
    }

    /// What a process in a container of the image says; it ends well.
    async fn says(&self, id: &str, image: &Image, process: Process) -> String {
        let mut spec = self.world.spec(id);
        spec.layers.clone_from(&image.layers);
        self.world.run_with(spec, process).await;
        let exit = self.world.exit(id).await;
        let errors = self.world.log(id, LogStream::Stderr).await;
        assert_eq!(exit.status, ExitStatus::Code(0), "{id}: {errors}");
        self.world.log(id, LogStream::Stdout).await
    }

    /// Why it does not start.
    async fn fault(&self, id: &str, image: &Image, process: Process) -> String {
        let mut spec = self.world.spec(id);
        spec.layers.clone_from(&image.layers);
        let id = spec.id.clone();
        self.world.runtime().create(spec).await.unwrap();
        self.world.runtime().start(&id, process).await.unwrap_err().to_string()
    }

    async fn close(self) {
        self.world.close().await;
    }
}

fn by(user: &str, process: Process) -> Process {
    Process { user: user.to_owned(), ..process }
}

/// Version 2 of capabilities(7), "File capabilities": permitted ones, effective.
fn capability(number: u32) -> Vec<u8> {
    let words = [0x0200_0001, 1 << number, 0, 0, 0_u32];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_SYS_ADMIN: u32 = 21;

#[tokio::test(flavor = "multi_thread")]
async fn file_capabilities_are_kept_and_give_a_user_nothing() {
    let packer = Packer::open().await;
    let layer = packer.world.layer();
    for (name, number) in [("within", CAP_NET_BIND_SERVICE), ("beyond", CAP_SYS_ADMIN)] {
        let dir = layer.join(name);
        fs::create_dir(&dir).unwrap();
        fs::copy("/bin/busybox", dir.join("busybox")).unwrap();
        xattr::set(dir.join("busybox"), "security.capability", &capability(number)).unwrap();
    }
    let image = packer.image(&[&layer]).await;
    let kept = |name: &str| {
        xattr::get(image.layers[0].join(name).join("busybox"), "security.capability").unwrap()
    };
    assert_eq!(kept("within"), Some(capability(CAP_NET_BIND_SERVICE)));
    assert_eq!(kept("beyond"), Some(capability(CAP_SYS_ADMIN)));
    let script = "/within/busybox grep -E '^Cap(Prm|Eff)' /proc/self/status
        /beyond/busybox true || echo refused";
    let said = packer.says("web", &image, by("web", sh(script))).await;
    let nothing = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
    // Linux executes no program with an effective capability that it cannot have.
    assert_eq!(said, format!("{nothing}refused\n"));
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setuid_bits_are_kept_and_make_nobody_root() {
    let packer = Packer::open().await;
    let layer = packer.world.layer();
    // Static, and whoever it is then owns what it writes. Busybox gives its rights up itself.
    let program = layer.join("bin/ldconfig");
    fs::copy("/sbin/ldconfig", &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o6755)).unwrap();
    fs::write(layer.join("etc/ld.so.conf"), "").unwrap();
    fs::set_permissions(layer.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    let image = packer.image(&[&layer]).await;
    let script = "stat -c '%a %u %g' /bin/ldconfig
        /bin/ldconfig -i -X -C /tmp/cache; stat -c '%u %g' /tmp/cache";
    let said = packer.says("web", &image, by("web", sh(script))).await;
    assert_eq!(said, "6755 0 0\n1000 1000\n");
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_links_holes_names_and_empty_directories_are_kept_and_devices_are_not() {
    let packer = Packer::open().await;
    let (lower, upper) = (packer.world.layer(), packer.dir("upper"));
    fs::create_dir_all(lower.join("data/empty")).unwrap();
    let data = lower.join("data");
    chown(data.join("empty"), Some(12_345), Some(54_321)).unwrap();
    fs::set_permissions(data.join("empty"), Permissions::from_mode(0o2750)).unwrap();
    fs::write(data.join("odd"), "odd").unwrap();
    chown(data.join("odd"), Some(12_345), Some(65_535)).unwrap();
    symlink("odd", data.join("link")).unwrap();
    std::os::unix::fs::lchown(data.join("link"), Some(7), Some(8)).unwrap();
    // 64 MiB, of which four bytes are there.
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"here", 40 << 20).unwrap();
    fs::write(data.join("n".repeat(255)), "long name").unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&data.join("disk"), SFlag::S_IFBLK, mode, makedev(8, 0)).unwrap();
    mknod(&data.join("kmem"), SFlag::S_IFCHR, mode, makedev(1, 2)).unwrap();
    nix::unistd::mkfifo(&data.join("pipe"), mode).unwrap();
    // Two names of one file; the layer above has a third and a fourth of another.
    fs::write(data.join("one"), "below").unwrap();
    fs::hard_link(data.join("one"), data.join("two")).unwrap();
    fs::create_dir(upper.join("data")).unwrap();
    fs::write(upper.join("data/three"), "above").unwrap();
    fs::hard_link(upper.join("data/three"), upper.join("data/four")).unwrap();
    fs::hard_link(upper.join("data/three"), upper.join("data/two")).unwrap();
    let image = packer.image(&[&lower, &upper]).await;

    let unpacked = fs::metadata(image.layers[0].join("data/sparse")).unwrap();
    assert_eq!(unpacked.len(), 64 << 20);
    assert!(unpacked.blocks() < 2048, "{} blocks", unpacked.blocks());
    let script = "cd /data; stat -c '%n %u %g %a %F' empty odd link
        stat -c %s sparse; dd if=sparse bs=1M skip=40 count=1 2>/dev/null | head -c 4; echo
        cat n*; echo; ls disk kmem pipe 2>/dev/null
        cat one two three four; echo
        stat -c %h one two three four | tr '\\n' ' '; echo
        ls -A empty | wc -l; echo x >>two; cat one three four";
    assert_eq!(
        packer.says("data", &image, sh(script)).await,
        "empty 12345 54321 2750 directory\nodd 12345 65535 644 regular file\n\
         link 7 8 777 symbolic link\n67108864\nhere\nlong name\n\
         belowaboveaboveabove\n2 3 3 3 \n0\nbelowaboveabove\n"
    );
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_as_long_as_linux_has_them() {
    let packer = Packer::open().await;
    let layer = packer.world.layer();
    // 15 directories of 255 bytes and a file: within the 4095 of a path, from the root on.
    let name = "d".repeat(255);
    let relative: PathBuf =
        vec![name.as_str(); 15].iter().collect::<PathBuf>().join("f".repeat(250));
    assert_eq!(Path::new("/").join(&relative).as_os_str().len(), 4091);
    // Step by step, as the way to here comes on top.
    let make = "for i in $(seq 15); do mkdir $0 && cd -P $0 || exit 1; done; echo deep >$1";
    let script = format!("cd {}; {make}", layer.display());
    command("/bin/busybox", &["sh", "-c", &script, &name, &"f".repeat(250)]);
    let image = packer.image(&[&layer]).await;
    let path = Path::new("/").join(relative);
    let said = packer.says("deep", &image, args(&["cat", path.to_str().unwrap()])).await;
    assert_eq!(said, "deep\n");
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_the_images_own() {
    let packer = Packer::open().await;
    let (layer, bare) = (packer.world.layer(), packer.dir("bare"));
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:\nalice:x:500:600::/home/alice:\n")
        .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nstaff:x:700:alice\ndocker:x:800:\n").unwrap();
    fs::create_dir(bare.join("bin")).unwrap();
    fs::copy("/bin/busybox", bare.join("bin/busybox")).unwrap();
    symlink("busybox", bare.join("bin/id")).unwrap();
    let with = packer.image(&[&layer]).await;
    let without = packer.image(&[&bare]).await;
    let id = || args(&["id"]);
    for (number, (user, expected)) in [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("alice", "uid=500(alice) gid=600 groups=600,700(staff)"),
        ("500", "uid=500(alice) gid=600 groups=600,700(staff)"),
        ("alice:docker", "uid=500(alice) gid=800(docker) groups=800(docker)"),
        ("12345:54321", "uid=12345 gid=54321 groups=54321"),
        ("12345", "uid=12345 gid=0(root) groups=0(root)"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = packer.says(&format!("with-{number}"), &with, by(user, id())).await;
        assert_eq!(said, format!("{expected}\n"), "{user:?}");
    }
    for (number, (user, expected)) in [
        ("", "uid=0 gid=0 groups=0"),
        ("root", "uid=0 gid=0 groups=0"),
        ("123:456", "uid=123 gid=456 groups=456"),
        ("123", "uid=123 gid=0 groups=0"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = packer.says(&format!("bare-{number}"), &without, by(user, id())).await;
        assert_eq!(said, format!("{expected}\n"), "{user:?}");
    }
    for (number, (image, user)) in
        [(&with, "bob"), (&with, "alice:nobody"), (&without, "alice"), (&without, "1:staff")]
            .into_iter()
            .enumerate()
    {
        let fault = packer.fault(&format!("none-{number}"), image, by(user, id())).await;
        let name = user.rsplit(':').next().unwrap();
        assert!(fault.contains("is not in the image's") && fault.contains(name), "{user}: {fault}");
    }
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_barest_of_images_runs_and_what_it_lacks_is_made() {
    let packer = Packer::open().await;
    let bare = packer.dir("bare");
    fs::copy("/bin/busybox", bare.join("busybox")).unwrap();
    let image = packer.image(&[&bare]).await;
    let script = "exec 2>&1; /busybox ls -d /etc /proc /sys /dev; /busybox cat /etc/hostname
        /busybox pwd; /busybox stat -c '%u %g %a' .. .; echo kept >file; /busybox cat file";
    let process = Process {
        working_dir: Some("/srv/app".into()),
        ..by("12345:54321", args(&["/busybox", "sh", "-c", script]))
    };
    assert_eq!(
        packer.says("bare", &image, process).await,
        "/dev\n/etc\n/proc\n/sys\nbare\n/srv/app\n12345 54321 755\n12345 54321 755\nkept\n"
    );
    packer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_volumes_are_there_and_its_users_own_where_the_image_has_nothing() {
    let packer = Packer::open().await;
    let layer = packer.world.layer();
    fs::create_dir_all(layer.join("var/lib/db")).unwrap();
    fs::write(layer.join("var/lib/db/seed"), "seed").unwrap();
    chown(layer.join("var/lib/db"), Some(1000), Some(10)).unwrap();
    let image = packer.image(&[&layer]).await;
    let directories = ["/var/lib/db", "/data/new"].map(str::to_owned).to_vec();
    let script = "cat /var/lib/db/seed; echo; stat -c '%u %g' /var/lib/db /data/new
        echo x >/var/lib/db/more && echo x >/data/new/file && ls /var/lib/db /data/new";
    let process = Process { directories, ..by("web", sh(script)) };
    assert_eq!(
        packer.says("volumes", &image, process).await,
        "seed\n1000 10\n1000 1000\n/data/new:\nfile\n/var/lib/db:\nmore\nseed\n"
    );
    assert!(!image.layers[0].join("data").exists(), "the image stays as it is");
    packer.close().await;
}
