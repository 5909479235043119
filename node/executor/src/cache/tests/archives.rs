//! Archives of every kind, honest and hostile, become plain tars or nothing.

use std::io::{Cursor, Write as _};

use expect_test::expect;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::*;
use crate::limits::ZIP_DIRECTORY_BYTES_MAX;
use crate::testing::archives::{gzip, tar_of};
use crate::testing::server::Reply;

/// A zip that is written by `write`.
fn zip(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    write(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn options() -> SimpleFileOptions {
    let time = DateTime::from_date_and_time(2024, 2, 29, 12, 30, 14).unwrap();
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(time)
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    zip(|zip| {
        for (name, content) in files {
            zip.start_file(*name, options()).unwrap();
            zip.write_all(content).unwrap();
        }
    })
}

async fn tar_from(bytes: &[u8]) -> Result<String, String> {
    let world = World::new();
    let server = Server::new(vec![Reply::ok(bytes)]).await;
    let result = world.archive(&server, "").await;
    let listed = match result {
        Ok(archive) => Ok(listed(archive).await),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(world.files(), "making");
    assert_eq!(world.downloader.index.bytes(), 0, "all room is given back");
    listed
}

#[tokio::test]
async fn a_tar_stays_what_it_is() {
    let tar = tar_of(&[("a/b", "hello")]);
    assert_eq!(tar_from(&tar).await.unwrap(), "0644 0 a/b \"hello\"\n");
    assert_eq!(tar_from(&gzip(&tar)).await.unwrap(), "0644 0 a/b \"hello\"\n");
    let mut gnu = tar::Header::new_gnu();
    gnu.set_size(2);
    gnu.set_mode(0o600);
    let mut gnu_tar = tar::Builder::new(Vec::new());
    gnu_tar.append_data(&mut gnu, "g", &b"xy"[..]).unwrap();
    let gnu = gnu_tar.into_inner().unwrap();
    assert_eq!(tar_from(&gnu).await.unwrap(), "0600 0 g \"xy\"\n");
}

#[tokio::test]
async fn a_zip_becomes_a_tar() {
    let bytes = zip(|zip| {
        zip.add_directory("bin/", options().unix_permissions(0o700)).unwrap();
        zip.start_file("bin/app", options().unix_permissions(0o755)).unwrap();
        zip.write_all(b"#!/bin/sh").unwrap();
        zip.add_symlink("bin/sh", "/bin/busybox", options()).unwrap();
        let stored = options().compression_method(CompressionMethod::Stored);
        zip.start_file(format!("long/{}", "n".repeat(150)), stored).unwrap();
    });
    let listed = tar_from(&bytes).await.unwrap();
    expect![[r##"
        0700 1709209814 bin/ ""
        0755 1709209814 bin/app "#!/bin/sh"
        0777 1709209814 bin/sh -> /bin/busybox ""
        0644 1709209814 long/<150> ""
    "##]]
    .assert_eq(&listed.replace(&"n".repeat(150), "<150>"));
    assert_eq!(tar_from(&zip_of(&[])).await.unwrap(), "");
}

#[tokio::test]
async fn times_of_zips_are_seconds_since_1970() {
    for (year, month, day, expected) in [
        (1980, 1, 1, 315_532_800),
        (2000, 2, 29, 951_782_400),
        (2000, 3, 1, 951_868_800),
        (2026, 12, 31, 1_798_675_200),
        (2100, 3, 1, 4_107_542_400_u64),
    ] {
        let time = DateTime::from_date_and_time(year, month, day, 0, 0, 0).unwrap();
        let bytes = zip(|zip| zip.start_file("f", options().last_modified_time(time)).unwrap());
        let expected = format!("0644 {expected} f \"\"\n");
        assert_eq!(tar_from(&bytes).await.unwrap(), expected, "{year}-{month}-{day}");
    }
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    for bytes in [&b""[..], b"hello", &[0; 2048], b"PK", &[0x1f, 0x8b]] {
        assert_eq!(tar_from(bytes).await.unwrap_err(), "unknown archive format");
    }
}

#[tokio::test]
async fn what_is_broken_is_refused() {
    let gzipped = gzip(&tar_of(&[("a", "hello")]));
    let cut = tar_from(&gzipped[..gzipped.len() - 10]).await.unwrap_err();
    assert!(cut.starts_with("broken archive: "), "{cut}");
    let zipped = zip_of(&[("a", b"hello hello hello")]);
    let cut = tar_from(&zipped[..zipped.len() - 10]).await.unwrap_err();
    assert!(cut.starts_with("broken archive: "), "{cut}");
    let mut changed = zipped.clone();
    changed[33] ^= 0xff;
    let changed = tar_from(&changed).await.unwrap_err();
    assert!(changed.starts_with("broken archive: "), "{changed}");
}

#[tokio::test]
async fn a_zip_that_lies_about_a_size_is_refused() {
    let honest = zip_of(&[("a", b"hello hello hello")]);
    // The size before compression, in the header and in the list of contents.
    let size = 17_u32.to_le_bytes();
    for lie in [16_u32, 18, 1 << 30] {
        let mut lying = honest.clone();
        for at in 0..lying.len() - 4 {
            if lying[at..at + 4] == size {
                lying[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            }
        }
        assert_ne!(lying, honest);
        let refused = tar_from(&lying).await.unwrap_err();
        assert!(refused.starts_with("broken archive: "), "{lie}: {refused}");
    }
}

#[tokio::test]
async fn a_path_out_of_the_archive_is_refused() {
    for name in ["../a", "a/../../b"] {
        let refused = tar_from(&zip_of(&[(name, b"x")])).await.unwrap_err();
        assert!(refused.contains("must not have `..`"), "{refused}");
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_its_bound() {
    let mut world = World::new();
    world.downloader.archive_bytes_max = 100_000;
    let zeros = vec![0; 1 << 20];
    let bombs = [
        gzip(&tar_of(&[("a", &"x".repeat(1 << 20))])),
        zip_of(&[("a", &zeros)]),
        zip(|zip| {
            for at in 0..400 {
                zip.start_file(format!("{at}"), options()).unwrap();
            }
        }),
        tar_of(&[("a", &"x".repeat(100_000))]),
    ];
    for bomb in bombs {
        let server = Server::new(vec![Reply::ok(&bomb)]).await;
        let refused = failed(world.archive(&server, "").await);
        assert_eq!(refused, "more than 100000 bytes once unpacked");
        assert_eq!(world.downloader.index.bytes(), 0);
        assert_eq!(world.files(), "making");
    }
}

#[tokio::test]
async fn a_zips_list_of_contents_has_a_bound() {
    let long = "n".repeat(65_000);
    let entries = ZIP_DIRECTORY_BYTES_MAX / 65_000 + 1;
    let bytes = zip(|zip| {
        for at in 0..entries {
            zip.start_file(format!("{at}{long}"), options()).unwrap();
        }
    });
    let world = World::of(1 << 30);
    let server = Server::new(vec![Reply::ok(&bytes)]).await;
    let refused = failed(world.archive(&server, "").await);
    assert_eq!(refused, "broken archive: i/o error: the list of contents is too long");
}
