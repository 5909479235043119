//! All dependencies of one container, and what its log says of them.

use std::sync::Mutex;

use expect_test::expect;
use model::dependency::CachedDependency;
use serde_json::json;

use super::*;
use crate::cache::{DependencyLine, bring_dependencies};
use crate::testing::archives::tar_of;
use crate::testing::server::Reply;
use crate::{Services, Settings};

async fn bring(dependencies: serde_json::Value) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { patience: patience(), ..Settings::default() };
    let services = Services::open(dir.path(), settings, http()).unwrap();
    let dependencies: Vec<CachedDependency> = serde_json::from_value(dependencies).unwrap();
    let told = Mutex::new(String::new());
    let log = |line: DependencyLine| {
        let DependencyLine { stream, source, text } = line;
        told.lock().unwrap().push_str(&format!("{stream:?} {source}: {text}\n"));
    };
    let brought = bring_dependencies(&services, &dependencies, "APP", &log).await;
    let brought = match brought {
        Ok(mounted) => mounted.iter().map(|it| format!("{}\n", it.to.display())).collect(),
        Err(error) => error.to_string(),
    };
    (told.into_inner().unwrap(), brought)
}

#[tokio::test]
async fn a_containers_dependencies_are_told_of_in_its_log() {
    let server = Server::new(vec![Reply::tagged("1", &tar_of(&[("a", "one")]))]).await;
    let (told, brought) = bring(json!([
        {"name": "lifecycle", "from": server.url("a"), "to": "/lifecycle", "cache_key": "a"},
        {"from": server.url("b"), "to": "/silent", "cache_key": "b"},
    ]))
    .await;
    expect![[r#"
        Stdout APP: Downloading lifecycle...
        Stdout APP: Downloaded lifecycle (2K)
    "#]]
    .assert_eq(&told);
    assert_eq!(brought, "/lifecycle\n/silent\n");
}

#[tokio::test]
async fn one_that_cannot_be_had_ends_the_others() {
    let silent = Server::new(vec![Reply::Silence]).await;
    let (told, brought) = bring(json!([
        {"name": "slow", "from": silent.url("a"), "to": "/a", "cache_key": "a"},
        {"name": "bad", "from": "nowhere", "to": "/b", "cache_key": "b", "log_source": "CELL"},
    ]))
    .await;
    expect![[r#"
        Stdout APP: Downloading slow...
        Stdout CELL: Downloading bad...
        Stdout CELL: Downloading bad failed
    "#]]
    .assert_eq(&told);
    assert_eq!(brought, "failed to download cached artifacts");
}
