//! What the tests of this crate stand on: an imagined container with a clock that they turn
//! ([`sandbox`]), a small HTTP server that may be as bad as it likes ([`server`]), and [`World`],
//! in which a recipe becomes a story.

pub(crate) mod archives;
pub(crate) mod resume;
pub(crate) mod sandbox;
pub(crate) mod server;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use container::image::ImageConfig;
use model::CellId;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::sandbox::Imagined;
use crate::{Outcome, Progress, Recipe, Services, Settings, Surroundings, execute};

/// One recipe in one imagined container.
pub(crate) struct World {
    pub(crate) sandbox: Imagined,
    pub(crate) services: Arc<Services>,
    recipe: Recipe,
    dir: tempfile::TempDir,
}

impl World {
    /// Of an LRP with these members besides those that it must have.
    pub(crate) fn new(lrp: Value) -> Self {
        Self::with(lrp, Settings::default())
    }

    pub(crate) fn with(lrp: Value, settings: Settings) -> Self {
        let mut desired = json!({
            "process_guid": "web", "domain": "d", "rootfs": "docker:///app", "log_source": "APP",
        });
        for (name, value) in lrp.as_object().unwrap() {
            desired[name] = value.clone();
        }
        let (image, cell) = (ImageConfig::default(), CellId::from("cell-1"));
        let surroundings = Surroundings {
            cell_id: &cell,
            image: &image,
            external_address: Ipv4Addr::new(10, 0, 0, 1),
            address: Ipv4Addr::new(10, 255, 0, 2),
            ports: &[],
            has_trusted_certificates: false,
            has_identity: false,
        };
        let desired = serde_json::from_value(desired).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self {
            sandbox: Imagined::new(),
            services: Arc::new(Services::open(dir.path(), settings, http()).unwrap()),
            recipe: Recipe::of_lrp(&desired, 0, &"guid-1".into(), surroundings),
            dir,
        }
    }

    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Executes the recipe; what becomes of it is in the story.
    pub(crate) async fn execute(&self, stop: CancellationToken) -> Outcome {
        let (progress, mut seen) = watch::channel(Progress::Starting);
        // The channel stays open: what was said last is heard after the end.
        let _open = progress.clone();
        let (sandbox, recipe) = (self.sandbox.clone(), self.recipe.clone());
        let execution = execute(sandbox, recipe, Arc::clone(&self.services), stop, progress);
        let mut execution = std::pin::pin!(execution);
        let outcome = loop {
            tokio::select! {
                biased;
                Ok(()) = seen.changed() => {
                    let progress = *seen.borrow_and_update();
                    self.sandbox.tell(&format!("{progress:?}"));
                }
                outcome = &mut execution => break outcome,
            }
        };
        if seen.has_changed().unwrap() {
            self.sandbox.tell(&format!("{:?}", *seen.borrow()));
        }
        let Outcome { failed, reason, stopped, retryable } = &outcome;
        assert!(!retryable);
        let how = match (failed, stopped) {
            (false, false) => "ended",
            (false, true) => "stopped",
            (true, false) => "failed",
            (true, true) => "stopped, failed",
        };
        self.sandbox.tell(&format!("{how}: {reason:?}"));
        outcome
    }

    /// The whole story of the recipe.
    pub(crate) async fn story(&self) -> String {
        self.execute(CancellationToken::new()).await;
        self.sandbox.story()
    }

    /// The story of a recipe that is told to stop after so many milliseconds.
    pub(crate) async fn story_stopped_after(&self, millis: u64) -> String {
        let stop = CancellationToken::new();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            self.sandbox.tell("stop");
            stop.cancel();
        };
        tokio::join!(self.execute(stop.clone()), stopping);
        self.sandbox.story()
    }
}

/// A client that asks no proxy and trusts nobody.
pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let none: [reqwest::Certificate; 0] = [];
    reqwest::Client::builder().no_proxy().tls_certs_only(none).build().unwrap()
}

/// A run action: see [`sandbox`] for what its arguments mean.
pub(crate) fn run(script: &str) -> Value {
    let args: Vec<_> = script.split_whitespace().collect();
    json!({"run": {"path": "/app", "user": "vcap", "args": args}})
}

/// The action with a log source of its own.
pub(crate) fn sourced(mut action: Value, source: &str) -> Value {
    let (_, inner) = action.as_object_mut().unwrap().iter_mut().next().unwrap();
    inner["log_source"] = json!(source);
    action
}
