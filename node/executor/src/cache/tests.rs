//! The downloader, against a server on loopback that may be as bad as it likes.

mod archives;
mod dependencies;
mod keeping;
mod servers;

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{Archive, DownloadError, Downloader, Patience, Wanted};
use crate::testing::http;
use crate::testing::server::Server;

/// Room for everything that is not about room.
const BYTES_MAX: u64 = 1 << 20;

fn patience() -> Patience {
    Patience {
        stall: Duration::from_millis(500),
        whole: Duration::from_secs(2),
        tries: 4,
        pause_first: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        jitter_max: Duration::from_millis(1),
    }
}

struct World {
    dir: tempfile::TempDir,
    downloader: Downloader,
}

impl World {
    fn new() -> Self {
        Self::of(BYTES_MAX)
    }

    fn of(bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let downloader = open(dir.path(), bytes_max);
        Self { dir, downloader }
    }

    /// The node dies, and is started again.
    fn reopen(self) -> Self {
        let Self { dir, downloader } = self;
        drop(downloader);
        let downloader = open(dir.path(), BYTES_MAX);
        Self { dir, downloader }
    }

    async fn archive(&self, server: &Server, key: &str) -> Result<Archive, DownloadError> {
        self.downloader.archive(&wanted(server, key)).await
    }

    /// Names in the cache's directory, without most of their zeros; nothing is being made.
    fn files(&self) -> String {
        let list = |path: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .map(|name| name.replace(&"0".repeat(15), ""))
                .collect();
            names.sort();
            names
        };
        let making = list(&self.dir.path().join("making"));
        assert!(making.is_empty(), "{making:?}");
        list(self.dir.path()).join(" ")
    }
}

fn open(dir: &Path, bytes_max: u64) -> Downloader {
    Downloader::open(dir, bytes_max, patience(), http()).unwrap()
}

fn wanted(server: &Server, key: &str) -> Wanted {
    Wanted::new(&server.url("file"), key, "", "").unwrap()
}

/// What is in an archive, a line for each entry.
async fn listed(mut archive: Archive) -> String {
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).await.unwrap();
    list(&bytes)
}

fn list(bytes: &[u8]) -> String {
    let mut text = String::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        use std::io::Read as _;
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display()));
        let header = entry.header();
        let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let link = link.unwrap_or_default();
        text.push_str(&format!("{mode:04o} {mtime} {path}{link} {content:?}\n"));
    }
    text
}

fn failed<T>(result: Result<T, DownloadError>) -> String {
    result.err().expect("it fails").to_string()
}
