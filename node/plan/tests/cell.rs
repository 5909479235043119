//! The cell's reconciliation, case by case: given the record and the container, these actions.

#![expect(clippy::unwrap_used, reason = "a case that cannot be read fails its test")]

mod world;

use expect_test::{Expect, expect};
use model::*;
use plan::{CellAction, Container, Handle, Observed, Work, reconcile};
use world::{World, net_info};

/// What `cell-1` does after a script about each of some observations.
fn check<const N: usize>(script: &str, observations: [(&str, Observed); N], expected: Expect) {
    let mut world = World::new();
    world.run("cell cell-1\ncell cell-2");
    world.run(script);
    let mut lines = Vec::new();
    for (name, observed) in observations {
        let actions = reconcile(&world.state, &"cell-1".into(), &observed);
        let shown: Vec<String> = actions.iter().map(show).collect();
        let shown = if shown.is_empty() { "-".to_owned() } else { shown.join("; ") };
        lines.push(format!("{name}: {shown}"));
    }
    expected.assert_eq(&lines.join("\n"));
}

fn show(action: &CellAction) -> String {
    match action {
        CellAction::Create { handle, work: Work::Lrp { key, instance, desired } } => {
            assert_eq!(*handle, Handle::Lrp(instance.instance_guid.clone()));
            assert_eq!(key.process_guid, desired.process_guid);
            format!("create {handle} for {}/{}", key.process_guid, key.index)
        }
        CellAction::Create { handle, work: Work::Task { task } } => {
            assert_eq!(*handle, Handle::Task(task.task_guid.clone()));
            format!("create {handle}")
        }
        CellAction::Report(Command::StartLrp { key, instance, net_info, routable }) => format!(
            "report: {}/{} runs as {} at {}{}",
            key.process_guid,
            key.index,
            instance.instance_guid,
            net_info.instance_address,
            if *routable { "" } else { ", not ready" }
        ),
        CellAction::Report(Command::CrashLrp { key, instance, reason }) => format!(
            "report: {}/{} crashed as {}: {reason}",
            key.process_guid, key.index, instance.instance_guid
        ),
        CellAction::Report(Command::RemoveLrp { key, instance }) => {
            format!(
                "report: {}/{} is gone as {}",
                key.process_guid, key.index, instance.instance_guid
            )
        }
        CellAction::Report(command) => format!("report: {command:?}"),
        CellAction::Stop { handle, is_routed: false } => format!("stop {handle}"),
        CellAction::Stop { handle, is_routed: true } => format!("drain and stop {handle}"),
        CellAction::Destroy { handle } => format!("destroy {handle}"),
    }
}

/// The container of `web/0`: the scripts place it with the sixth entry of the log.
fn web() -> Handle {
    "lrp-0000feed-0000-0000-0006-0000".parse().unwrap()
}

fn job() -> Handle {
    Handle::Task("job".into())
}

fn nothing() -> Observed {
    Observed::default()
}

fn only(handle: Handle, container: Container) -> Observed {
    Observed { containers: [(handle, container)].into(), ..nothing() }
}

/// A container of each kind.
fn each(handle: &Handle) -> [(&'static str, Observed); 10] {
    let ended = |failed: bool, reason: &str| {
        let (reason, result) = (reason.to_owned(), "42".to_owned());
        Container::Exited { failed, reason, result }
    };
    let running = |n, routable| Container::Running { net_info: net_info(n), routable };
    let not_made = |retryable| Container::Failed { reason: "no such image".to_owned(), retryable };
    [
        ("preparing", Container::Preparing),
        ("starting", Container::Starting),
        ("running at 10.88.0.1", running(1, true)),
        ("running at 10.88.0.2", running(2, true)),
        ("running, not ready", running(1, false)),
        ("stopping", Container::Stopping),
        ("succeeded", ended(false, "Exited with status 0")),
        ("failed", ended(true, "Exited with status 1")),
        ("not made", not_made(true)),
        ("never to be made", not_made(false)),
    ]
    .map(|(name, container)| (name, only(handle.clone(), container)))
}

#[test]
fn a_claimed_instance_is_made_and_told_of() {
    let claimed = "app web\nplace web/0 cell-1";
    check(
        claimed,
        [("nothing", nothing())],
        expect!["nothing: create lrp-0000feed-0000-0000-0006-0000 for web/0"],
    );
    check(
        claimed,
        each(&web()),
        expect![[r#"
            preparing: -
            starting: -
            running at 10.88.0.1: report: web/0 runs as 0000feed-0000-0000-0006-0000 at 10.88.0.1
            running at 10.88.0.2: report: web/0 runs as 0000feed-0000-0000-0006-0000 at 10.88.0.2
            running, not ready: report: web/0 runs as 0000feed-0000-0000-0006-0000 at 10.88.0.1, not ready
            stopping: -
            succeeded: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 0
            failed: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 1
            not made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image
            never to be made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image"#]],
    );
}

#[test]
fn a_running_instance_is_there_or_gone() {
    let running = "app web\nplace web/0 cell-1\nrun";
    check(
        running,
        [("nothing", nothing())],
        expect!["nothing: report: web/0 is gone as 0000feed-0000-0000-0006-0000"],
    );
    check(
        running,
        each(&web()),
        expect![[r#"
            preparing: -
            starting: -
            running at 10.88.0.1: -
            running at 10.88.0.2: report: web/0 runs as 0000feed-0000-0000-0006-0000 at 10.88.0.2
            running, not ready: report: web/0 runs as 0000feed-0000-0000-0006-0000 at 10.88.0.1, not ready
            stopping: -
            succeeded: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 0
            failed: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 1
            not made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image
            never to be made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image"#]],
    );
}

#[test]
fn a_suspect_is_kept_and_its_start_is_not_told() {
    let suspect = "app web\nplace web/0 cell-1\nwait 15001\nheard cell-2\nturn";
    check(
        suspect,
        [("nothing", nothing())],
        expect!["nothing: create lrp-0000feed-0000-0000-0006-0000 for web/0"],
    );
    check(
        suspect,
        each(&web()),
        expect![[r#"
            preparing: -
            starting: -
            running at 10.88.0.1: -
            running at 10.88.0.2: -
            running, not ready: -
            stopping: -
            succeeded: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 0
            failed: report: web/0 crashed as 0000feed-0000-0000-0006-0000: Exited with status 1
            not made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image
            never to be made: report: web/0 crashed as 0000feed-0000-0000-0006-0000: no such image"#]],
    );
}

#[test]
fn containers_without_a_record_go() {
    check(
        "app web",
        each(&web()),
        expect![[r#"
            preparing: destroy lrp-0000feed-0000-0000-0006-0000
            starting: stop lrp-0000feed-0000-0000-0006-0000
            running at 10.88.0.1: drain and stop lrp-0000feed-0000-0000-0006-0000
            running at 10.88.0.2: drain and stop lrp-0000feed-0000-0000-0006-0000
            running, not ready: drain and stop lrp-0000feed-0000-0000-0006-0000
            stopping: -
            succeeded: destroy lrp-0000feed-0000-0000-0006-0000
            failed: destroy lrp-0000feed-0000-0000-0006-0000
            not made: destroy lrp-0000feed-0000-0000-0006-0000
            never to be made: destroy lrp-0000feed-0000-0000-0006-0000"#]],
    );
    check(
        "app web\nplace web/0 cell-2",
        each(&web()),
        expect![[r#"
            preparing: destroy lrp-0000feed-0000-0000-0006-0000
            starting: stop lrp-0000feed-0000-0000-0006-0000
            running at 10.88.0.1: drain and stop lrp-0000feed-0000-0000-0006-0000
            running at 10.88.0.2: drain and stop lrp-0000feed-0000-0000-0006-0000
            running, not ready: drain and stop lrp-0000feed-0000-0000-0006-0000
            stopping: -
            succeeded: destroy lrp-0000feed-0000-0000-0006-0000
            failed: destroy lrp-0000feed-0000-0000-0006-0000
            not made: destroy lrp-0000feed-0000-0000-0006-0000
            never to be made: destroy lrp-0000feed-0000-0000-0006-0000"#]],
    );
    check(
        "",
        each(&job()),
        expect![[r#"
            preparing: destroy task-job
            starting: stop task-job
            running at 10.88.0.1: stop task-job
            running at 10.88.0.2: stop task-job
            running, not ready: stop task-job
            stopping: -
            succeeded: destroy task-job
            failed: destroy task-job
            not made: destroy task-job
            never to be made: destroy task-job"#]],
    );
}

#[test]
fn a_placed_task_asks_to_start_once_the_place_is_clear() {
    let placed = "task job\nturn";
    let job: TaskGuid = "job".into();
    let asked = Observed { tasks_asked: [job.clone()].into(), ..nothing() };
    let answered = Observed { tasks_started: [job].into(), ..nothing() };
    let observations = [("nothing", nothing()), ("asked", asked), ("answered", answered)];
    check(
        placed,
        observations,
        expect![[r#"
            nothing: report: StartTask { task_guid: "job", cell_id: "cell-1" }
            asked: -
            answered: -"#]],
    );
    check(
        placed,
        each(&self::job()),
        expect![[r#"
            preparing: destroy task-job
            starting: stop task-job
            running at 10.88.0.1: stop task-job
            running at 10.88.0.2: stop task-job
            running, not ready: stop task-job
            stopping: -
            succeeded: destroy task-job
            failed: destroy task-job
            not made: destroy task-job
            never to be made: destroy task-job"#]],
    );
}

#[test]
fn a_started_task_is_made_only_by_whoever_started_it() {
    let running = "task job\nturn\nrun";
    let job: TaskGuid = "job".into();
    let asked = Observed { tasks_asked: [job.clone()].into(), ..nothing() };
    let started = Observed { tasks_started: [job].into(), ..nothing() };
    let observations = [("nothing", nothing()), ("asked", asked), ("started", started)];
    check(
        running,
        observations,
        expect![[r#"
            nothing: report: CompleteTask { task_guid: "job", cell_id: "cell-1", failed: true, failure_reason: "task container does not exist", result: "task container does not exist" }
            asked: -
            started: create task-job"#]],
    );
    check(
        running,
        each(&self::job()),
        expect![[r#"
            preparing: -
            starting: -
            running at 10.88.0.1: -
            running at 10.88.0.2: -
            running, not ready: -
            stopping: -
            succeeded: report: CompleteTask { task_guid: "job", cell_id: "cell-1", failed: false, failure_reason: "", result: "42" }
            failed: report: CompleteTask { task_guid: "job", cell_id: "cell-1", failed: true, failure_reason: "Exited with status 1", result: "42" }
            not made: report: RejectTaskOnCell { task_guid: "job", cell_id: "cell-1", reason: "no such image" }
            never to be made: report: CompleteTask { task_guid: "job", cell_id: "cell-1", failed: true, failure_reason: "no such image", result: "" }"#]],
    );
}

#[test]
fn a_task_that_is_over_leaves_no_container() {
    check(
        "task job\nturn\nrun\nfinish job",
        each(&job()),
        expect![[r#"
            preparing: destroy task-job
            starting: stop task-job
            running at 10.88.0.1: stop task-job
            running at 10.88.0.2: stop task-job
            running, not ready: stop task-job
            stopping: -
            succeeded: destroy task-job
            failed: destroy task-job
            not made: destroy task-job
            never to be made: destroy task-job"#]],
    );
}

#[test]
fn work_on_other_cells_is_not_ours() {
    let elsewhere = "app web instances=2\nplace web/0 cell-2\nplace web/1 cell-2\nrun";
    check(elsewhere, [("nothing", nothing())], expect!["nothing: -"]);
}

#[test]
fn handles_read_what_they_write() {
    for handle in [web(), job(), Handle::Task("lrp-0".into())] {
        assert_eq!(handle.to_string().parse(), Ok(handle));
    }
    let error = "job".parse::<Handle>().unwrap_err();
    expect![[r#""job" names no container: expected lrp- or task- and a guid"#]]
        .assert_eq(&error.to_string());
}
