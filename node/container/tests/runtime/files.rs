//! Taking files out of containers that have exited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::world::{World, id};

const BYTES_MAX: usize = 100;

async fn read(world: &World, path: &str) -> Result<String, String> {
    let content = world.runtime().read_file(&id("one"), path, BYTES_MAX).await;
    content.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_wrote_is_read_when_it_has_exited() {
    let mut world = World::open().await;
    let script = "mkdir -p /a/b && echo -n written > /a/b/result; ln -s /a/b /link; \
                  ln -s ../../../../../../a/b/result /up; ln -s /absent /dangling; \
                  rm -f /etc/motd; head -c 100 /dev/zero | tr '\\0' x > /full; \
                  head -c 101 /dev/zero > /long; mkfifo /fifo; mkdir /dir; : > /empty; \
                  ln -s /proc/1/environ /magic; ln -s loop /loop; chmod 0 /a/b/result";
    let (exit, _) = world.output("one", script).await;
    assert_eq!(exit.status, container::container::ExitStatus::Code(0));
    for again in 0..2 {
        for path in ["/a/b/result", "a/b/result", "/link/result", "/up", "/../a/b/../b/result"] {
            assert_eq!(read(&world, path).await.as_deref(), Ok("written"), "{path}");
        }
        assert_eq!(read(&world, "/full").await.map(|text| text.len()), Ok(BYTES_MAX));
        assert_eq!(read(&world, "/empty").await.as_deref(), Ok(""));
        let unreadable =
            ["/long", "/fifo", "/dir", "/", "", "/absent", "/dangling", "/magic", "/loop"];
        for path in unreadable {
            let error = read(&world, path).await.unwrap_err();
            assert!(error.contains(&format!("read {path} of container one")), "{path}: {error}");
        }
        // The same by a node that finds it exited.
        if again == 0 {
            world.reopen().await;
        }
    }
    world.close().await;
}

/// The kernel gives up a `..` while anything on the machine is renamed.
#[tokio::test(flavor = "multi_thread")]
async fn renames_elsewhere_do_not_disturb_a_read() {
    let world = World::open().await;
    let _ = world.output("one", "mkdir -p /a/b && echo -n written > /a/b/result").await;
    let dir = tempfile::tempdir().unwrap();
    let names = [dir.path().join("one"), dir.path().join("other")];
    std::fs::write(&names[0], "").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let renamer = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            std::fs::rename(&names[0], &names[1]).unwrap();
            std::fs::rename(&names[1], &names[0]).unwrap();
        }
    });
    let path = format!("{}/a/b/result", "/a/b/../..".repeat(50));
    let mut results = Vec::new();
    for _ in 0..20 {
        results.push(read(&world, &path).await);
    }
    is_over.store(true, Ordering::Relaxed);
    renamer.join().unwrap();
    assert!(results.iter().all(|result| result.as_deref() == Ok("written")), "{results:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_image_is_read_unless_it_was_removed() {
    let world = World::open().await;
    let script = "echo -n image > /from-image; sleep 0";
    let _ = world.output("one", script).await;
    assert_eq!(read(&world, "/from-image").await.as_deref(), Ok("image"));
    assert!(read(&world, "/bin/busybox").await.unwrap_err().contains("longer than 100 bytes"));
    world.destroy("one").await;
    assert!(read(&world, "/from-image").await.unwrap_err().contains("not found"));
    let _ = world.output("one", "rm /bin/busybox").await;
    assert!(read(&world, "/bin/busybox").await.unwrap_err().contains("No such file"));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runs_keeps_its_files() {
    let world = World::open().await;
    world.run("one", "sleep 1000").await;
    assert!(read(&world, "/bin/busybox").await.unwrap_err().contains("not exited"));
    world.close().await;
}
