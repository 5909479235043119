use std::sync::Mutex;

use expect_test::expect;
use model::{Capacity, Cell, CellHealth, FeatureFlag, Millis, Stamp, TaskState};
use tokio::sync::watch;

use super::*;

/// Long enough for what is expected to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine that decides, with two cells; tests play the leader and the cells.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    applied: watch::Sender<u64>,
    wait: Mutex<Option<Wait>>,
    /// The next proposals are not agreed.
    leaderless: Mutex<bool>,
}

impl Fake {
    fn start() -> Self {
        let fake = Self(Arc::new(Inner {
            state: Mutex::new(State::new()),
            applied: watch::Sender::new(0),
            wait: Mutex::default(),
            leaderless: Mutex::default(),
        }));
        fake.apply(Command::InitCluster { salt: 7 }).unwrap();
        fake.apply(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true })
            .unwrap();
        for node_id in [1_u64, 2] {
            let cell = Box::new(Cell {
                cell_id: format!("cell-{node_id}").as_str().into(),
                node_id,
                address: [10, 0, 0, 1].into(),
                zone: "z".into(),
                capacity: Capacity { memory_mb: 1024, disk_mb: 1024, containers: 9 },
                rootfs_providers: vec![staging::provider()],
                volume_drivers: Vec::new(),
                intake: model::Intake::Open,
                placement_tags: Vec::new(),
                optional_placement_tags: Vec::new(),
                rep_url: String::new(),
                health: CellHealth::Present,
            });
            fake.apply(Command::RegisterCell { cell }).unwrap();
        }
        fake
    }

    fn apply(&self, command: Command) -> Result<bool, Refusal> {
        let log_index = *self.0.applied.borrow() + 1;
        let stamp = Stamp { log_index, position: 0, at: Millis(log_index) };
        let result = model::apply(&mut self.0.state.lock().unwrap(), stamp, command);
        self.0.applied.send_replace(log_index);
        result.map(|applied| !applied.events.is_empty())
    }

    /// The one staging task that there is once it has come this far.
    async fn task(&self, is_wanted: impl Fn(&Task) -> bool + Sync + Send) -> Arc<Task> {
        let find = |state: &State| {
            let mut tasks = state.tasks();
            let task = tasks.next().filter(|task| is_wanted(task)).cloned();
            assert!(tasks.next().is_none(), "one at a time");
            task
        };
        tokio::time::timeout(PATIENCE, self.until(find)).await.unwrap().unwrap()
    }

    /// The leader's part, and the cell's first word.
    async fn start_on(&self, cell: &str) -> TaskGuid {
        let task = self.task(|task| task.state == TaskState::Pending { placed_on: None }).await;
        let (task_guid, cell_id) = (task.task_guid.clone(), CellId::from(cell));
        let place = Command::PlaceTask { task_guid: task_guid.clone(), cell_id: cell_id.clone() };
        self.apply(place).unwrap();
        self.apply(Command::StartTask { task_guid: task_guid.clone(), cell_id }).unwrap();
        // Whoever watches sees it, in whatever order a test's futures are polled.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        task_guid
    }

    fn complete(&self, guid: &TaskGuid, cell: &str, failure: &str, result: &str) {
        self.apply(Command::CompleteTask {
            task_guid: guid.clone(),
            cell_id: cell.into(),
            failed: !failure.is_empty(),
            failure_reason: failure.to_owned(),
            result: result.to_owned(),
        })
        .unwrap();
    }

    async fn is_cleared(&self) {
        let none = |state: &State| state.tasks().next().is_none().then_some(());
        tokio::time::timeout(PATIENCE, self.until(none)).await.expect("the task is deleted");
    }
}

impl Cluster for Fake {
    async fn propose(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<bool, Refusal>>, ProposeError> {
        if *self.0.leaderless.lock().unwrap() {
            return Err(ProposeError::NotProposed { reason: "nobody leads".to_owned() });
        }
        Ok(commands.into_iter().map(|command| self.apply(command)).collect())
    }

    async fn until<T: Send>(&self, mut look: impl FnMut(&State) -> Option<T> + Send) -> Option<T> {
        let mut applied = self.0.applied.subscribe();
        loop {
            applied.borrow_and_update();
            let state = self.0.state.lock().unwrap().clone();
            if let Some(found) = look(&state) {
                return Some(found);
            }
            applied.changed().await.ok()?;
        }
    }

    async fn waiting(&self, _: TaskGuid) -> Option<Wait> {
        self.0.wait.lock().unwrap().clone()
    }
}

fn wish() -> Wish {
    let reference = staging::read_reference("me/hello").unwrap();
    Wish { app: "app".into(), reference, user: None }
}

fn result() -> String {
    let digest = container::image::Digest::of(b"a manifest");
    let (reference, config) = (wish().reference.with_digest(digest), Default::default());
    let resolved = container::image::Resolved { reference, digest, config, layers_bytes: vec![7] };
    staging::result(&wish().reference, &resolved).unwrap()
}

async fn staged(fake: &Fake, patience: Duration) -> Result<StagedImage, Error> {
    stage(fake, &Secrets::default(), &wish(), patience).await
}

#[tokio::test]
async fn a_cell_tells_of_the_image_and_the_task_is_gone() {
    let fake = Fake::start();
    let telling = async {
        let guid = fake.start_on("cell-2").await;
        let task = fake.task(|_| true).await;
        assert_eq!(task.domain.as_str(), "cf-app-staging");
        assert_eq!((task.definition.memory_mb, task.definition.disk_mb), (16, 1));
        fake.complete(&guid, "cell-2", "", &result());
        guid
    };
    let (image, guid) = tokio::join!(staged(&fake, PATIENCE), telling);
    let image = image.unwrap();
    assert_eq!((image.task_guid, image.cell_id), (guid, Some("cell-2".into())));
    assert_eq!(
        (image.metadata.rootfs.as_str(), image.metadata.size),
        ("docker:///me/hello#latest", 7)
    );
    fake.is_cleared().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_image_is_said_once_with_the_cell() {
    let fake = Fake::start();
    let telling = async {
        let guid = fake.start_on("cell-1").await;
        fake.complete(&guid, "cell-1", "me/hello does not exist", staging::NO_ANSWER);
    };
    let (image, ()) = tokio::join!(staged(&fake, PATIENCE), telling);
    assert_eq!(image, Err(Error::Image("me/hello does not exist (on cell-1)".to_owned())));
    fake.is_cleared().await;
}

#[tokio::test]
async fn one_whose_cell_is_lost_is_tried_again_and_not_for_ever() {
    let fake = Fake::start();
    let losing = async {
        let mut guids = Vec::new();
        for _ in 0..STAGING_ATTEMPTS_MAX - 1 {
            let guid = fake.start_on("cell-1").await;
            fake.complete(&guid, "cell-1", "task container does not exist", "");
            guids.push(guid);
            fake.is_cleared().await;
        }
        let guid = fake.start_on("cell-2").await;
        fake.complete(&guid, "cell-2", "", &result());
        guids.push(guid);
        guids
    };
    let (image, mut guids) = tokio::join!(staged(&fake, PATIENCE), losing);
    assert_eq!(image.unwrap().task_guid, *guids.last().unwrap());
    guids.dedup();
    assert_eq!(guids.len(), 3, "each has a guid of its own");
    fake.is_cleared().await;

    let losing = async {
        for _ in 0..STAGING_ATTEMPTS_MAX {
            let guid = fake.start_on("cell-1").await;
            fake.complete(&guid, "cell-1", "cell disappeared before completion", "");
            fake.is_cleared().await;
        }
    };
    let (image, ()) = tokio::join!(staged(&fake, PATIENCE), losing);
    expect!["docker.io/me/hello:latest is not staged, 3 times: cell disappeared before completion (on cell-1)"]
        .assert_eq(&image.unwrap_err().to_string());
}

#[tokio::test]
async fn one_that_no_cell_takes_says_why_not() {
    let fake = Fake::start();
    let (why, help) = ("insufficient resources: memory".to_owned(), "add a cell".to_owned());
    *fake.0.wait.lock().unwrap() = Some(Wait { why: why.clone(), help, until: None });
    let rejecting = async {
        for _ in 0..STAGING_ATTEMPTS_MAX {
            let task = fake.task(|task| task.rejection_count == 0 && task.result().is_none()).await;
            let task_guid = task.task_guid.clone();
            fake.apply(Command::RejectTask { task_guid, reason: why.clone() }).unwrap();
            fake.is_cleared().await;
        }
    };
    let (image, ()) = tokio::join!(staged(&fake, PATIENCE), rejecting);
    expect!["docker.io/me/hello:latest is not staged, 3 times: no cell takes it: insufficient resources: memory (add a cell)"]
        .assert_eq(&image.unwrap_err().to_string());
}

#[tokio::test]
async fn patience_ends_with_what_is_awaited_and_leaves_nothing() {
    let fake = Fake::start();
    let starting = fake.start_on("cell-1");
    let (image, guid) = tokio::join!(staged(&fake, Duration::from_millis(50)), starting);
    expect!["docker.io/me/hello:latest is not staged after 0 s: cell-1 still asks its registry"]
        .assert_eq(&image.unwrap_err().to_string());
    fake.is_cleared().await;
    assert!(guid.as_str().starts_with("staging-"), "{guid}");

    let image = staged(&fake, Duration::from_millis(50)).await;
    expect!["docker.io/me/hello:latest is not staged after 0 s: it waits for a cell"]
        .assert_eq(&image.unwrap_err().to_string());
    fake.is_cleared().await;
}

#[tokio::test]
async fn who_cancels_or_deletes_the_task_ends_the_staging() {
    let fake = Fake::start();
    let cancelling = async {
        let task_guid = fake.start_on("cell-1").await;
        fake.apply(Command::CancelTask { task_guid }).unwrap();
    };
    let (image, ()) = tokio::join!(staged(&fake, PATIENCE), cancelling);
    assert_eq!(image, Err(Error::Image("task was cancelled (on cell-1)".to_owned())));
    fake.is_cleared().await;
    // A client that has gone is as one that cancels.
    let waiting = staged(&fake, PATIENCE);
    tokio::select! {
        _ = waiting => panic!("nobody stages it"),
        _ = fake.start_on("cell-2") => {}
    }
    fake.is_cleared().await;
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_another_nodes_to_try() {
    let fake = Fake::start();
    *fake.0.leaderless.lock().unwrap() = true;
    let image = staged(&fake, PATIENCE).await;
    assert!(matches!(image, Err(Error::Unavailable(_))), "{image:?}");
}

#[tokio::test]
async fn a_password_is_desired_sealed_for_this_task_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, Secrets::new_key_file()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let secrets = Secrets::open(Some(&key)).unwrap();
    let (username, password) = ("me".to_owned(), "hush".to_owned());
    let wish = Wish { user: Some(Credentials { username, password }), ..wish() };
    let desired = definition(&secrets, &"t".into(), &wish).unwrap();
    let open = |guid: &str| {
        let guid = guid.into();
        secrets.open_sealed(Owner::Task(&guid), "me", &desired.image_password)
    };
    assert_eq!((desired.image_username.as_str(), open("t").as_deref()), ("me", Ok("hush")));
    assert!(open("another").is_err());
    assert_eq!(definition(&Secrets::default(), &"t".into(), &wish), Err(SealError::NoKey));
}
