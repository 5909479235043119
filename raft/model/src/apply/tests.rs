//! Apply, command by command: given a state, when a command comes, expect these events or this
//! refusal. After each command the invariants hold, and a refusal has changed nothing.

mod evacuation;
mod transitions;

use std::net::Ipv4Addr;

use expect_test::{Expect, expect};

use crate::lock::LockKind;
use crate::*;

/// A state under test, and its log so far.
struct Cluster {
    state: State,
    log_index: u64,
    now: Millis,
}

impl Cluster {
    /// Initialised, with Docker allowed and two cells of 1000 MiB each.
    fn new() -> Self {
        let mut cluster = Self { state: State::new(), log_index: 0, now: Millis(1000) };
        cluster.accept(Command::InitCluster { salt: 0xfeed });
        cluster.accept(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        for node_id in [1, 2] {
            cluster.accept(Command::RegisterCell { cell: Box::new(cell(node_id)) });
        }
        cluster
    }

    fn apply(&mut self, command: Command) -> Result<Vec<Event>, Refusal> {
        self.log_index += 1;
        let before = self.state.clone();
        let stamp = Stamp { log_index: self.log_index, position: 0, at: self.now };
        let result = apply(&mut self.state, stamp, command);
        if let Err(sentence) = invariants::check(&self.state) {
            panic!("{sentence}");
        }
        match result {
            Ok(applied) => Ok(applied.events),
            Err(refusal) => {
                assert_eq!(before, self.state, "a refusal changes nothing");
                Err(refusal)
            }
        }
    }

    fn accept(&mut self, command: Command) -> Vec<Event> {
        self.apply(command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"))
    }

    fn check(&mut self, command: Command, expected: Expect) {
        let told = match self.apply(command) {
            Ok(events) => events.iter().map(tell).collect::<Vec<_>>().join("\n"),
            Err(refusal) => format!("{}: {refusal}", refusal.diego_type()),
        };
        expected.assert_eq(&told);
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Millis::from_secs(secs);
    }

    fn place(&mut self, index: u32, cell: &str) -> InstanceKey {
        let process_guid = ProcessGuid::from("app");
        self.accept(Command::PlaceLrp { process_guid, index, cell_id: cell.into() });
        let row = self.state.actual_lrp(&ActualLrpId::ordinary("app".into(), index)).unwrap();
        row.instance().unwrap().clone()
    }

    fn run(&mut self, index: u32, cell: &str) -> InstanceKey {
        let instance = self.place(index, cell);
        self.accept(start(index, &instance));
        instance
    }
}

/// An event on one line, as a reader of a log would want it.
fn tell(event: &Event) -> String {
    let row = |lrp: &ActualLrp| {
        let on = lrp.instance().map_or(String::new(), |i| format!(" on {}", i.cell_id));
        format!(
            "{}/{} {} {}{on}",
            lrp.key.process_guid,
            lrp.key.index,
            lrp.presence.name(),
            lrp.state.name()
        )
    };
    let task = |task: &Task| {
        let on = task.cell().map_or(String::new(), |cell| format!(" on {cell}"));
        let end = task.result().map_or(String::new(), |r| {
            format!(" failed={} {:?} {:?}", r.failed, r.failure_reason, r.result)
        });
        format!("{} {}{on}{end}", task.task_guid, task.state.name())
    };
    match event {
        Event::DesiredLrpCreated(lrp) => format!("desired {} x{}", lrp.process_guid, lrp.instances),
        Event::DesiredLrpChanged { after, .. } => {
            format!("desired {} -> x{}", after.process_guid, after.instances)
        }
        Event::DesiredLrpRemoved(lrp) => format!("desired {} removed", lrp.process_guid),
        Event::ActualLrpCreated(lrp) => format!("created {}", row(lrp)),
        Event::ActualLrpChanged { before, after } => {
            format!("changed {} -> {}", row(before), row(after))
        }
        Event::ActualLrpCrashed { key, count, reason, .. } => {
            format!("crashed {}/{} #{count} {reason:?}", key.process_guid, key.index)
        }
        Event::ActualLrpRemoved(lrp) => format!("removed {}", row(lrp)),
        Event::TaskCreated(t) => format!("task created {}", task(t)),
        Event::TaskChanged { before, after } => {
            format!("task changed {} -> {}", task(before), task(after))
        }
        Event::TaskRemoved(t) => format!("task removed {}", task(t)),
        Event::CellChanged(cell) => match cell.intake {
            Intake::Open => format!("cell {} {:?}", cell.cell_id, cell.health),
            intake @ (Intake::Evacuating { .. } | Intake::Closed) => {
                format!("cell {} {:?} {intake:?}", cell.cell_id, cell.health)
            }
        },
        Event::DomainChanged(name) => format!("domain {name}"),
        Event::LockChanged(key) => format!("lock {key}"),
        Event::FeatureFlagChanged { flag, enabled } => format!("{} {enabled}", flag.name()),
        Event::ClusterInitialised => "initialised".to_owned(),
    }
}

fn cell(node_id: u64) -> Cell {
    Cell {
        cell_id: format!("cell-{node_id}").into(),
        node_id,
        address: Ipv4Addr::LOCALHOST,
        zone: "z1".into(),
        capacity: Capacity { memory_mb: 1000, disk_mb: 10_000, containers: 3 },
        rootfs_providers: vec![crate::cell::RootfsProvider::arbitrary("docker")],
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        intake: crate::cell::Intake::Open,
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        health: CellHealth::Present,
    }
}

fn action() -> Option<Action> {
    Some(Action::Run(RunAction {
        path: "/app".to_owned(),
        user: "root".to_owned(),
        ..RunAction::default()
    }))
}

fn app(instances: i32) -> DesiredLrp {
    DesiredLrp {
        process_guid: "app".into(),
        domain: "cf-apps".into(),
        log_guid: String::new(),
        log_source: "APP".to_owned(),
        rootfs: "docker:///library/app".to_owned(),
        rootfs_digest: None,
        instances,
        memory_mb: 400,
        disk_mb: 100,
        max_pids: 0,
        cpu_weight: 0,
        env: Vec::new(),
        action: action(),
        ports: vec![8080],
        routes: std::collections::BTreeMap::new(),
        annotation: String::new(),
        placement_tags: Vec::new(),
        ..DesiredLrp::default()
    }
}

fn desire(desired_lrp: DesiredLrp) -> Command {
    Command::DesireLrp { desired_lrp: Box::new(desired_lrp) }
}

fn scale(instances: i32) -> Command {
    let update = DesiredLrpUpdate { instances: Some(instances), ..DesiredLrpUpdate::default() };
    Command::UpdateDesiredLrp { process_guid: "app".into(), update: Box::new(update) }
}

fn key(index: u32) -> ActualLrpKey {
    ActualLrpKey { process_guid: "app".into(), index, domain: "cf-apps".into() }
}

fn start(index: u32, instance: &InstanceKey) -> Command {
    start_if(true, index, instance)
}

/// The same, of an instance whose readiness check fails.
fn unready(index: u32, instance: &InstanceKey) -> Command {
    start_if(false, index, instance)
}

fn start_if(routable: bool, index: u32, instance: &InstanceKey) -> Command {
    let net_info = NetInfo {
        address: Ipv4Addr::new(10, 0, 0, 1),
        instance_address: Ipv4Addr::new(10, 88, 0, 2),
        ports: vec![PortMapping { container_port: 8080, host_port: 61001 }],
    };
    Command::StartLrp { key: key(index), instance: instance.clone(), net_info, routable }
}

fn crash(index: u32, instance: &InstanceKey) -> Command {
    let reason = "Exited with status 1".to_owned();
    Command::CrashLrp { key: key(index), instance: instance.clone(), reason }
}

fn missing(cell: &str) -> Command {
    Command::CellMissing { cell_id: cell.into() }
}

fn returned(cell: &str) -> Command {
    Command::CellReturned { cell_id: cell.into() }
}

fn place(index: u32, cell: &str) -> Command {
    Command::PlaceLrp { process_guid: "app".into(), index, cell_id: cell.into() }
}

fn desire_task() -> Command {
    let definition = TaskDefinition {
        rootfs: "docker:///library/app".to_owned(),
        memory_mb: 400,
        action: action(),
        ..TaskDefinition::default()
    };
    Command::DesireTask {
        task_guid: "task".into(),
        domain: "cf-tasks".into(),
        definition: Box::new(definition),
    }
}

fn place_task(cell: &str) -> Command {
    Command::PlaceTask { task_guid: "task".into(), cell_id: cell.into() }
}

fn start_task(cell: &str) -> Command {
    Command::StartTask { task_guid: "task".into(), cell_id: cell.into() }
}

fn complete_task(cell: &str) -> Command {
    Command::CompleteTask {
        task_guid: "task".into(),
        cell_id: cell.into(),
        failed: false,
        failure_reason: String::new(),
        result: "42".to_owned(),
    }
}

fn reject_task(cell: &str) -> Command {
    Command::RejectTaskOnCell {
        task_guid: "task".into(),
        cell_id: cell.into(),
        reason: "failed to create container: no such image".to_owned(),
    }
}

#[test]
fn an_lrp_lives_and_is_removed() {
    let mut cluster = Cluster::new();
    cluster.check(
        desire(app(2)),
        expect![[r#"
        desired app x2
        created app/0 ORDINARY UNCLAIMED
        created app/1 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(desire(app(2)), expect!["ResourceExists: desired LRP app already exists"]);
    cluster.check(
        place(0, "cell-1"),
        expect!["changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY CLAIMED on cell-1"],
    );
    let instance = cluster
        .state
        .actual_lrp(&ActualLrpId::ordinary("app".into(), 0))
        .unwrap()
        .instance()
        .unwrap()
        .clone();
    cluster.check(
        start(0, &instance),
        expect!["changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY RUNNING on cell-1"],
    );
    cluster.check(start(0, &instance), expect![""]);
    cluster.check(
        scale(3),
        expect![[r#"
        created app/2 ORDINARY UNCLAIMED
        desired app -> x3"#]],
    );
    cluster.check(
        scale(0),
        expect![[r#"
        removed app/0 ORDINARY RUNNING on cell-1
        removed app/1 ORDINARY UNCLAIMED
        removed app/2 ORDINARY UNCLAIMED
        desired app -> x0"#]],
    );
    cluster.check(
        Command::RemoveDesiredLrp { process_guid: "app".into() },
        expect!["desired app removed"],
    );
    cluster.check(scale(1), expect!["ResourceNotFound: desired LRP app could not be found"]);
}

#[test]
fn bad_fields_are_named_all_at_once() {
    let mut cluster = Cluster::new();
    let bad = DesiredLrp {
        process_guid: "a b".into(),
        domain: "".into(),
        rootfs: "nginx".to_owned(),
        instances: -1,
        action: None,
        ..app(1)
    };
    cluster.check(desire(bad), expect!["InvalidRequest: Invalid field: domain, Invalid field: rootfs, Invalid field: instances, Invalid field: domain, Invalid field: process_guid, invalid action type"]);
    cluster.check(scale(i32::MAX), expect!["InvalidRequest: Invalid field: instances"]);
}

#[test]
fn docker_needs_its_flag() {
    let mut cluster = Cluster::new();
    let flag = FeatureFlag::DiegoDocker;
    cluster.check(Command::SetFeatureFlag { flag, enabled: false }, expect!["diego_docker false"]);
    cluster.check(desire(app(1)), expect!["InvalidRequest: feature flag diego_docker is disabled; an operator can enable it with: gavel enable-feature-flag diego_docker"]);
    cluster.check(desire_task(), expect!["InvalidRequest: feature flag diego_docker is disabled; an operator can enable it with: gavel enable-feature-flag diego_docker"]);
    // To ask a registry about one is no way around it.
    assert!(!cluster.state.allows("staging:docker") && cluster.state.allows("preloaded:docker"));
}

#[test]
fn docker_apps_end_with_the_flag_and_come_back_with_it() {
    let mut cluster = Cluster::new();
    let set = |enabled| Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled };
    cluster.accept(desire(app(2)));
    cluster.accept(place(0, "cell-1"));
    cluster.accept(desire_task());
    let other = DesiredLrp { process_guid: "other".into(), rootfs: "preloaded:x".into(), ..app(1) };
    cluster.accept(desire(other));
    cluster.check(
        set(false),
        expect![[r#"
        diego_docker false
        removed app/0 ORDINARY CLAIMED on cell-1
        removed app/1 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(scale(3), expect!["desired app -> x3"]);
    let create = Command::CreateLrp { process_guid: "app".into(), index: 0 };
    cluster.check(create, expect!["InvalidRequest: feature flag diego_docker is disabled; an operator can enable it with: gavel enable-feature-flag diego_docker"]);
    cluster.check(
        set(true),
        expect![[r#"
        diego_docker true
        created app/0 ORDINARY UNCLAIMED
        created app/1 ORDINARY UNCLAIMED
        created app/2 ORDINARY UNCLAIMED"#]],
    );
}

#[test]
fn placing_checks_the_room_again() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(4)));
    cluster.accept(place(0, "cell-1"));
    cluster.accept(place(1, "cell-1"));
    cluster.check(place(1, "cell-2"), expect!["ActualLRPCannotBeClaimed: cannot claim actual LRP app/1: it is CLAIMED as 0000feed-0000-0000-0007-0000 on cell-1"]);
    cluster.check(place(2, "cell-1"), expect!["ResourceConflict: cell cell-1 has no room: memory"]);
    cluster.check(place(2, "cell-3"), expect!["ResourceNotFound: cell cell-3 could not be found"]);
    cluster.accept(missing("cell-2"));
    cluster.check(place(2, "cell-2"), expect!["ResourceConflict: cell cell-2 is not taking work"]);
}

#[test]
fn crashes_restart_at_once_then_wait() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    for _ in 0..2 {
        let instance = cluster.run(0, "cell-1");
        cluster.accept(crash(0, &instance));
    }
    let instance = cluster.run(0, "cell-1");
    cluster.check(
        crash(0, &instance),
        expect![[r#"
        crashed app/0 #3 "Exited with status 1"
        changed app/0 ORDINARY RUNNING on cell-1 -> app/0 ORDINARY CRASHED"#]],
    );
    cluster.check(
        crash(0, &instance),
        expect!["ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CRASHED"],
    );
    let restart = Command::RestartLrp { process_guid: "app".into(), index: 0 };
    cluster.wait(29);
    cluster.check(restart.clone(), expect!["ResourceConflict: it is not time yet"]);
    cluster.wait(1);
    cluster.check(restart, expect!["changed app/0 ORDINARY CRASHED -> app/0 ORDINARY UNCLAIMED"]);
    cluster.wait(0);
    let instance = cluster.run(0, "cell-2");
    cluster.wait(301);
    cluster.check(
        crash(0, &instance),
        expect![[r#"
        crashed app/0 #1 "Exited with status 1"
        changed app/0 ORDINARY RUNNING on cell-2 -> app/0 ORDINARY UNCLAIMED"#]],
    );
}

#[test]
fn reports_of_a_former_placement_are_refused() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let former = cluster.run(0, "cell-1");
    cluster.accept(crash(0, &former));
    cluster.place(0, "cell-2");
    cluster.check(start(0, &former), expect!["ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2"]);
    cluster.check(crash(0, &former), expect!["ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2"]);
    cluster.check(
        Command::RemoveLrp { key: key(0), instance: former },
        expect!["ResourceNotFound: actual LRP app/0 could not be found"],
    );
}

#[test]
fn a_lost_cells_instance_is_suspect_until_its_replacement_runs() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let lost = cluster.run(0, "cell-1");
    cluster.check(
        missing("cell-1"),
        expect![[r#"
        cell cell-1 Missing { since: Millis(1000) }
        changed app/0 ORDINARY RUNNING on cell-1 -> app/0 SUSPECT RUNNING on cell-1
        created app/0 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(start(0, &lost), expect![""]);
    let replacement = cluster.place(0, "cell-2");
    cluster.check(
        start(0, &replacement),
        expect![[r#"
        changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2
        removed app/0 SUSPECT RUNNING on cell-1"#]],
    );
    cluster.check(returned("cell-1"), expect!["cell cell-1 Present"]);
}

#[test]
fn a_returned_cells_suspect_wins_over_its_unfinished_replacement() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let lost = cluster.run(0, "cell-1");
    cluster.accept(missing("cell-1"));
    let replacement = cluster.place(0, "cell-2");
    cluster.check(
        returned("cell-1"),
        expect![[r#"
        cell cell-1 Present
        removed app/0 ORDINARY CLAIMED on cell-2
        changed app/0 SUSPECT RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1"#]],
    );
    cluster.check(start(0, &replacement), expect!["ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1"]);
    cluster.check(start(0, &lost), expect![""]);
}

#[test]
fn the_replacement_on_a_second_lost_cell_waits_again() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    cluster.run(0, "cell-1");
    cluster.accept(missing("cell-1"));
    cluster.place(0, "cell-2");
    cluster.check(
        missing("cell-2"),
        expect![[r#"
        cell cell-2 Missing { since: Millis(1000) }
        changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED"#]],
    );
}

#[test]
fn a_suspect_that_crashes_is_only_removed() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let lost = cluster.run(0, "cell-1");
    cluster.accept(missing("cell-1"));
    cluster.check(crash(0, &lost), expect!["removed app/0 SUSPECT RUNNING on cell-1"]);
}

#[test]
fn placement_errors_are_written_once() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let fail = Command::FailLrp {
        process_guid: "app".into(),
        index: 0,
        placement_error: "insufficient resources: memory".to_owned(),
    };
    cluster.check(
        fail.clone(),
        expect!["changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY UNCLAIMED"],
    );
    cluster.check(fail.clone(), expect![""]);
    cluster.place(0, "cell-1");
    cluster.check(fail, expect!["ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-1"]);
}

#[test]
fn a_removed_instance_is_made_anew() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let instance = cluster.run(0, "cell-1");
    cluster.check(
        Command::RemoveLrp { key: key(0), instance },
        expect!["removed app/0 ORDINARY RUNNING on cell-1"],
    );
    let create = |index| Command::CreateLrp { process_guid: "app".into(), index };
    cluster.check(create(0), expect!["created app/0 ORDINARY UNCLAIMED"]);
    cluster.check(create(0), expect![""]);
    cluster.check(create(1), expect!["ResourceNotFound: actual LRP app/1 could not be found"]);
    cluster.check(
        Command::RetireLrp { process_guid: "app".into(), index: 0 },
        expect!["removed app/0 ORDINARY UNCLAIMED"],
    );
    cluster.check(
        Command::RetireLrp { process_guid: "app".into(), index: 0 },
        expect!["ResourceNotFound: actual LRP app/0 could not be found"],
    );
}

#[test]
fn a_task_runs_once_and_is_resolved() {
    let mut cluster = Cluster::new();
    cluster.check(desire_task(), expect!["task created task Pending"]);
    cluster.check(desire_task(), expect!["ResourceExists: task task already exists"]);
    cluster.check(
        start_task("cell-1"),
        expect!["InvalidStateTransition: Cannot transition from Pending to Running"],
    );
    cluster.check(
        place_task("cell-1"),
        expect!["task changed task Pending -> task Pending on cell-1"],
    );
    cluster.check(
        place_task("cell-2"),
        expect!["InvalidStateTransition: Cannot transition from Pending to Pending"],
    );
    cluster.check(
        start_task("cell-2"),
        expect!["InvalidStateTransition: Cannot transition from Pending to Running"],
    );
    cluster.check(
        start_task("cell-1"),
        expect!["task changed task Pending on cell-1 -> task Running on cell-1"],
    );
    cluster.check(start_task("cell-1"), expect![""]);
    cluster.check(
        complete_task("cell-2"),
        expect!["RunningOnDifferentCell: Running on cell cell-1 not cell-2"],
    );
    cluster.check(
        complete_task("cell-1"),
        expect![[r#"task changed task Running on cell-1 -> task Completed failed=false "" "42""#]],
    );
    cluster.check(
        start_task("cell-1"),
        expect!["InvalidStateTransition: Cannot transition from Completed to Running"],
    );
    let delete = Command::DeleteTask { task_guid: "task".into() };
    cluster.check(
        delete.clone(),
        expect!["InvalidStateTransition: Cannot transition from Completed to Resolving"],
    );
    let resolving = Command::ResolvingTask { task_guid: "task".into() };
    cluster.check(resolving.clone(), expect![[r#"task changed task Completed failed=false "" "42" -> task Resolving failed=false "" "42""#]]);
    cluster.check(
        resolving,
        expect!["InvalidStateTransition: Cannot transition from Resolving to Resolving"],
    );
    cluster.check(delete.clone(), expect![[r#"task removed task Resolving failed=false "" "42""#]]);
    cluster.check(delete, expect!["ResourceNotFound: task task could not be found"]);
}

#[test]
fn the_fourth_rejection_fails_a_task() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    for _ in 0..3 {
        cluster.accept(place_task("cell-1"));
        cluster.check(
            reject_task("cell-1"),
            expect!["task changed task Pending on cell-1 -> task Pending"],
        );
    }
    cluster.accept(place_task("cell-1"));
    cluster.accept(start_task("cell-1"));
    cluster.check(
        reject_task("cell-2"),
        expect!["RunningOnDifferentCell: Running on cell cell-1 not cell-2"],
    );
    cluster.check(reject_task("cell-1"), expect![[r#"task changed task Running on cell-1 -> task Completed failed=true "failed to create container: no such image" """#]]);
    let task = cluster.state.task(&"task".into()).expect("it has ended");
    assert_eq!(task.rejection_count, 4, "Diego counts the last one too");
    assert_eq!(task.rejection_reason, "failed to create container: no such image");
    cluster.check(
        reject_task("cell-1"),
        expect!["InvalidStateTransition: Cannot transition from Completed to Pending"],
    );
}

#[test]
fn a_lost_cells_tasks_fail_if_they_had_started() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    cluster.accept(place_task("cell-1"));
    cluster.check(
        missing("cell-1"),
        expect![[r#"
        cell cell-1 Missing { since: Millis(1000) }
        task changed task Pending on cell-1 -> task Pending"#]],
    );
    cluster.accept(place_task("cell-2"));
    cluster.accept(start_task("cell-2"));
    cluster.check(missing("cell-2"), expect![[r#"
        cell cell-2 Missing { since: Millis(1000) }
        task changed task Running on cell-2 -> task Completed failed=true "cell disappeared before completion" """#]]);
}

#[test]
fn tasks_expire_when_due_and_not_before() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    let pending = Command::ExpirePendingTask { task_guid: "task".into() };
    cluster.wait(1800);
    cluster.check(pending.clone(), expect!["ResourceConflict: it is not time yet"]);
    cluster.wait(1);
    cluster.check(pending, expect![[r#"task changed task Pending -> task Completed failed=true "not started within time limit" """#]]);
    let completed = Command::ExpireCompletedTask { task_guid: "task".into() };
    cluster.wait(120);
    cluster.check(completed.clone(), expect!["ResourceConflict: it is not time yet"]);
    cluster.accept(Command::ResolvingTask { task_guid: "task".into() });
    let demote = Command::DemoteResolvingTask { task_guid: "task".into() };
    cluster.wait(30);
    cluster.check(demote.clone(), expect!["ResourceConflict: it is not time yet"]);
    cluster.wait(1);
    cluster.check(demote, expect![[r#"task changed task Resolving failed=true "not started within time limit" "" -> task Completed failed=true "not started within time limit" """#]]);
    cluster.check(
        completed,
        expect![[r#"task removed task Completed failed=true "not started within time limit" """#]],
    );
}

#[test]
fn cancel_ends_what_has_not_ended() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    let cancel = Command::CancelTask { task_guid: "task".into() };
    cluster.check(
        cancel.clone(),
        expect![[
            r#"task changed task Pending -> task Completed failed=true "task was cancelled" """#
        ]],
    );
    cluster.check(
        cancel,
        expect!["InvalidStateTransition: Cannot transition from Completed to Completed"],
    );
}

#[test]
fn domains_expire_when_due() {
    let mut cluster = Cluster::new();
    let ttl = Some(Millis::from_secs(2));
    cluster.check(Command::UpsertDomain { domain: "d".into(), ttl }, expect!["domain d"]);
    let expire = Command::ExpireDomain { domain: "d".into() };
    cluster.wait(1);
    cluster.check(expire.clone(), expect!["ResourceConflict: it is not time yet"]);
    cluster.wait(1);
    cluster.check(expire, expect!["domain d"]);
    cluster.check(
        Command::UpsertDomain { domain: "".into(), ttl: None },
        expect!["InvalidRequest: Invalid field: domain"],
    );
}

#[test]
fn a_lock_is_its_owners_until_he_releases_it_or_is_silent() {
    let mut cluster = Cluster::new();
    let claim = |key: &str, owner: &str, secs| Command::ClaimLock {
        key: key.into(),
        owner: owner.to_owned(),
        value: String::new(),
        kind: LockKind::Lock,
        ttl: Millis::from_secs(secs),
    };
    let release = |owner: &str| Command::ReleaseLock { key: "k".into(), owner: owner.to_owned() };
    let expire = || Command::ExpireLock { key: "k".into() };
    cluster.check(release("a"), expect![""]);
    cluster.check(claim("k", "a", 2), expect!["lock k"]);
    let held = || expect!["LockCollision: the lock k is held by another owner"];
    cluster.check(claim("k", "b", 2), held());
    cluster.check(release("b"), held());
    cluster.wait(1);
    cluster.check(claim("k", "a", 2), expect!["lock k"]);
    cluster.wait(1);
    cluster.check(expire(), expect!["ResourceConflict: it is not time yet"]);
    cluster.check(claim("k", "b", 2), held());
    cluster.wait(1);
    // Whether the leader has looked or not.
    cluster.check(claim("k", "b", 2), expect!["lock k"]);
    cluster.check(release("b"), expect!["lock k"]);
    cluster.check(claim("k", "a", 1), expect!["lock k"]);
    cluster.wait(1);
    cluster.check(expire(), expect!["lock k"]);
    cluster.check(expire(), expect![""]);
}

#[test]
fn locks_that_the_cluster_holds_itself_are_nobodys() {
    let mut cluster = Cluster::new();
    let mut claim = |key: &str, owner: &str, ttl, wrong: Expect| {
        let claim = Command::ClaimLock {
            key: key.into(),
            owner: owner.to_owned(),
            value: String::new(),
            kind: LockKind::Presence,
            ttl: Millis(ttl),
        };
        cluster.check(claim, wrong);
    };
    claim("bbs", "a", 1, expect!["LockCollision: the lock bbs is held by another owner"]);
    claim("cell-1", "a", 1, expect!["LockCollision: the lock cell-1 is held by another owner"]);
    claim("k", "a", 0, expect!["InvalidRequest: invalid-ttl"]);
    claim("k", "", 1, expect!["InvalidRequest: invalid-owner"]);
    claim("", "a", 1, expect!["InvalidRequest: Invalid field: key"]);
}

#[test]
fn a_client_may_fail_what_has_not_ended() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    let fail = |reason: &str| Command::FailTask { task_guid: "task".into(), reason: reason.into() };
    cluster.check(fail(""), expect!["InvalidRequest: Invalid field: failure_reason"]);
    cluster.check(
        fail("no"),
        expect![[r#"task changed task Pending -> task Completed failed=true "no" """#]],
    );
    cluster.check(
        fail("no"),
        expect!["InvalidStateTransition: Cannot transition from Completed to Completed"],
    );
}

#[test]
fn time_never_goes_back() {
    let mut cluster = Cluster::new();
    let proposal = |at| Proposal { at: Millis(at), commands: vec![scale(1)] };
    apply_proposal(&mut cluster.state, 90, proposal(9000));
    apply_proposal(&mut cluster.state, 91, proposal(8000));
    assert_eq!(cluster.state.now(), Millis(9000));
}

#[test]
fn rows_come_back_as_they_were() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(2)));
    cluster.run(0, "cell-1");
    cluster.accept(desire_task());
    cluster.accept(place_task("cell-2"));
    cluster.accept(Command::UpsertDomain { domain: "d".into(), ttl: None });
    let mut loaded = State::new();
    let mut stored = std::collections::BTreeMap::new();
    for row in cluster.state.take_journal() {
        let value = codec::row_value(&cluster.state, &row);
        stored.insert(codec::row_key(&row), value.unwrap());
    }
    assert!(
        stored.iter().map(|(k, v)| (k.clone(), v.clone())).eq(codec::rows(&cluster.state)),
        "the journal names every row, and keys sort as the tables do"
    );
    for (key, value) in &stored {
        codec::load_row(&mut loaded, key, value).unwrap();
    }
    assert_eq!(loaded, cluster.state);
    assert_eq!(codec::digest(&loaded), codec::digest(&cluster.state));
    invariants::check(&loaded).unwrap();
    cluster.accept(Command::CellMissing { cell_id: "cell-1".into() });
    assert_ne!(codec::digest(&loaded), codec::digest(&cluster.state));
}

#[test]
fn rubbish_rows_are_refused_by_name() {
    let mut state = State::new();
    let mut check = |key: &[u8], value: &[u8], expected: Expect| {
        let error = codec::load_row(&mut state, key, value).unwrap_err();
        expected.assert_eq(&error.to_string());
    };
    check(&[], &[], expect!["row key has no bytes"]);
    check(&[99], &[1], expect!["row with key [63] is of no known table"]);
    check(&[4], &[], expect!["task has no bytes"]);
    check(
        &[4],
        &[1, 0],
        expect![
            "task has format version 1, and this program reads 4: run the program that wrote it, or start the node with an empty data directory"
        ],
    );
    check(
        &[4],
        &[2, 200],
        expect![
            "task has format version 2, and this program reads 4: run the program that wrote it, or start the node with an empty data directory"
        ],
    );
    let flag = codec::row_value(&State::new(), &RowKey::FeatureFlag(FeatureFlag::DiegoDocker));
    check(
        &[7, 9],
        &flag.unwrap(),
        expect!["row with key [07, 09] holds the record of another key"],
    );
}
