//! Commands of every kind, most of which make sense in the state at hand. Some do not, or not any
//! more: a refusal is an answer like any other.

use std::net::Ipv4Addr;

use model::desired_lrp::UpdateStrategy;
use model::lock::LockKind;
use model::{
    Action, Capacity, Cell, CellHealth, CellId, Command, DesiredLrp, DesiredLrpUpdate, DomainName,
    FeatureFlag, InstanceKey, LockKey, Millis, NetInfo, ProcessGuid, RunAction, State,
    TaskDefinition, TaskGuid, TaskState,
};

use crate::limits;
use crate::rng::{PerMillion, Rng};

/// Cells that clients know of.
const CELLS: u64 = 4;

/// One command. What it makes is called `name`, which is new.
pub(super) fn draw(rng: &mut Rng, state: &State, name: &str) -> Command {
    let choice = rng.below(100);
    match choice {
        0..=1 => Command::InitCluster { salt: 7 },
        2..=9 => register_cell(rng),
        10..=12 => Command::CellMissing { cell_id: cell(rng) },
        13..=16 => Command::CellReturned { cell_id: cell(rng) },
        17..=19 => upsert_domain(rng),
        20 => Command::ExpireDomain { domain: domain(rng) },
        21 => lock(rng),
        22..=23 => set_flag(rng),
        24 => Command::EvacuateCell { cell_id: cell(rng), timeout: Millis(rng.below(20_000)) },
        25 => Command::OpenCell { cell_id: cell(rng) },
        26 => Command::CloseCell { cell_id: cell(rng) },
        99 => match state.tasks().next() {
            Some(task) => desire_task(rng, &task.task_guid.to_string(), String::new()),
            None => desire_again(rng, state).unwrap_or_else(|| lrp(rng, state, name)),
        },
        27..=60 => task(rng, state, name),
        _ => lrp(rng, state, name),
    }
}

/// One command as people and programs give them, for nodes that do the rest by themselves.
pub(super) fn ask(rng: &mut Rng, state: &State, name: &str) -> Command {
    if !state.is_initialised() {
        return Command::InitCluster { salt: 7 };
    }
    match rng.below(100) {
        0..=4 => return upsert_domain(rng),
        5..=7 => return set_flag(rng),
        8 => return claim_or_release(rng),
        _ => {}
    }
    let desired: Vec<_> = state.desired_lrps().collect();
    let tasks: Vec<_> = state.tasks().collect();
    if rng.below(100) == 0
        && let Some(command) = desire_again(rng, state)
    {
        return command;
    }
    let is_lrp = rng.chance(PerMillion(500_000));
    if is_lrp
        && (desired.is_empty() || desired.len() < limits::LRPS_RUNNING_MAX && rng.below(4) == 0)
    {
        return desire(rng, name);
    }
    if is_lrp {
        let process_guid = rng.pick(&desired).process_guid.clone();
        return match rng.below(6) {
            0 => Command::RemoveDesiredLrp { process_guid },
            1 | 2 => Command::RetireLrp { process_guid, index: index(rng) },
            _ => scale(rng, process_guid, name),
        };
    }
    if tasks.is_empty() || tasks.len() < limits::TASKS_MAX && rng.below(3) != 0 {
        return desire_task(rng, name, callback_url(name));
    }
    let task = rng.pick(&tasks);
    let task_guid = task.task_guid.clone();
    // Whoever wants to be told leaves it to that.
    let is_called_back = !task.definition.completion_callback_url.is_empty();
    match rng.below(4) {
        choice if choice == 0 || is_called_back => Command::CancelTask { task_guid },
        1 => Command::DeleteTask { task_guid },
        _ => Command::ResolvingTask { task_guid },
    }
}

fn cell(rng: &mut Rng) -> CellId {
    CellId::from(format!("cell-{}", rng.below(CELLS)))
}

/// The right cell, or now and then one that has nothing to say.
fn mostly(rng: &mut Rng, right: &CellId) -> CellId {
    if rng.chance(PerMillion(100_000)) { cell(rng) } else { right.clone() }
}

/// As a client does that was not told that it has it already. Of LRPs only: a task that was deleted
/// meanwhile would be another of the same name.
fn desire_again(rng: &mut Rng, state: &State) -> Option<Command> {
    let desired: Vec<_> = state.desired_lrps().collect();
    let name = match &desired[..] {
        [] => return None,
        some => rng.pick(some).process_guid.to_string(),
    };
    Some(desire(rng, &name))
}

fn upsert_domain(rng: &mut Rng) -> Command {
    Command::UpsertDomain { domain: domain(rng), ttl: Some(Millis(rng.below(20_000))) }
}

fn lock(rng: &mut Rng) -> Command {
    if rng.below(4) == 0 {
        Command::ExpireLock { key: lock_key(rng) }
    } else {
        claim_or_release(rng)
    }
}

/// Of few locks by few owners, so that they meet.
fn claim_or_release(rng: &mut Rng) -> Command {
    let (key, owner) = (lock_key(rng), format!("owner-{}", rng.below(2)));
    if rng.below(4) == 0 {
        return Command::ReleaseLock { key, owner };
    }
    let ttl = Millis(1 + rng.below(20_000));
    Command::ClaimLock { key, owner, value: String::new(), kind: LockKind::Lock, ttl }
}

fn lock_key(rng: &mut Rng) -> LockKey {
    LockKey::from(format!("lock-{}", rng.below(2)))
}

fn set_flag(rng: &mut Rng) -> Command {
    let enabled = rng.chance(PerMillion(500_000));
    Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled }
}

fn domain(rng: &mut Rng) -> DomainName {
    DomainName::from(format!("domain-{}", rng.below(3)))
}

pub(crate) fn action() -> Action {
    Action::Run(RunAction {
        path: "/bin/true".into(),
        user: "nobody".into(),
        ..RunAction::default()
    })
}

fn register_cell(rng: &mut Rng) -> Command {
    let node_id = 1 + rng.below(CELLS);
    Command::RegisterCell {
        cell: Box::new(Cell {
            cell_id: cell(rng),
            node_id,
            address: Ipv4Addr::LOCALHOST,
            zone: "z1".into(),
            capacity: Capacity { memory_mb: 256, disk_mb: 8192, containers: 50 },
            rootfs_providers: vec![model::RootfsProvider::arbitrary("preloaded")],
            volume_drivers: Vec::new(),
            rep_url: String::new(),
            intake: model::Intake::Open,
            placement_tags: Vec::new(),
            optional_placement_tags: Vec::new(),
            health: CellHealth::Present,
        }),
    }
}

/// Something that moves some task on, or a new task.
fn task(rng: &mut Rng, state: &State, name: &str) -> Command {
    let tasks: Vec<_> = state.tasks().collect();
    let is_new =
        tasks.is_empty() || tasks.len() < limits::TASKS_MAX && rng.chance(PerMillion(300_000));
    if is_new {
        // Nobody is there who would tell a client.
        return desire_task(rng, name, String::new());
    }
    let task = rng.pick(&tasks);
    let task_guid = task.task_guid.clone();
    if rng.chance(PerMillion(100_000)) {
        return match rng.below(6) {
            5 => Command::FailTask { task_guid, reason: "asked to".into() },
            0 => Command::CancelTask { task_guid },
            1 => Command::RejectTask { task_guid, reason: "no room".into() },
            2 => Command::ExpirePendingTask { task_guid },
            3 => Command::ExpireCompletedTask { task_guid },
            _ => Command::DemoteResolvingTask { task_guid },
        };
    }
    match &task.state {
        TaskState::Pending { placed_on: None } => {
            Command::PlaceTask { task_guid, cell_id: cell(rng) }
        }
        TaskState::Pending { placed_on: Some(cell_id) } if rng.chance(PerMillion(100_000)) => {
            let (cell_id, reason) = (cell_id.clone(), "image missing".into());
            Command::RejectTaskOnCell { task_guid, cell_id, reason }
        }
        TaskState::Pending { placed_on: Some(cell_id) } => {
            Command::StartTask { task_guid, cell_id: mostly(rng, cell_id) }
        }
        TaskState::Running { cell_id } => Command::CompleteTask {
            task_guid,
            cell_id: mostly(rng, cell_id),
            failed: false,
            failure_reason: String::new(),
            result: "done".into(),
        },
        TaskState::Completed { .. } => Command::ResolvingTask { task_guid },
        TaskState::Resolving { .. } => Command::DeleteTask { task_guid },
    }
}

fn desire_task(rng: &mut Rng, name: &str, completion_callback_url: String) -> Command {
    let definition = TaskDefinition {
        rootfs: "preloaded:busybox".into(),
        action: Some(action()),
        memory_mb: 16,
        disk_mb: 16,
        annotation: "x".repeat(rng.index(200)),
        completion_callback_url,
        ..TaskDefinition::default()
    };
    let task_guid = TaskGuid::from(name.to_owned());
    let definition = Box::new(definition);
    Command::DesireTask { task_guid, domain: domain(rng), definition }
}

/// Every other client wants to be told.
fn callback_url(name: &str) -> String {
    let is_even = name.bytes().next_back().is_some_and(|byte| byte % 2 == 0);
    if is_even { format!("http://client/{name}") } else { String::new() }
}

/// Something that changes what is desired, or moves some instance on.
fn lrp(rng: &mut Rng, state: &State, name: &str) -> Command {
    let desired: Vec<_> = state.desired_lrps().collect();
    let is_new =
        desired.is_empty() || desired.len() < limits::LRPS_MAX && rng.chance(PerMillion(100_000));
    if is_new {
        return desire(rng, name);
    }
    let process_guid = rng.pick(&desired).process_guid.clone();
    match rng.below(13) {
        0 => Command::RemoveDesiredLrp { process_guid },
        1 => scale(rng, process_guid, name),
        2..=4 => Command::CreateLrp { process_guid, index: index(rng) },
        5 => Command::RecreateLrp { process_guid, index: index(rng) },
        _ => instance(rng, state, process_guid),
    }
}

fn scale(rng: &mut Rng, process_guid: ProcessGuid, name: &str) -> Command {
    let instances = Some(i32::try_from(rng.below(5)).expect("below five"));
    let annotation = Some(name.to_owned());
    let update = DesiredLrpUpdate { instances, annotation, ..DesiredLrpUpdate::default() };
    Command::UpdateDesiredLrp { process_guid, update: Box::new(update) }
}

fn index(rng: &mut Rng) -> u32 {
    u32::try_from(rng.below(4)).expect("below four")
}

fn desire(rng: &mut Rng, name: &str) -> Command {
    let docker = rng.chance(PerMillion(100_000));
    let rootfs = if docker { "docker:///nginx#1" } else { "preloaded:busybox" };
    let instances = i32::try_from(rng.below(4)).expect("below four");
    Command::DesireLrp { desired_lrp: Box::new(desired_lrp(name, instances, domain(rng), rootfs)) }
}

pub(crate) fn desired_lrp(
    name: &str,
    instances: i32,
    domain: DomainName,
    rootfs: &str,
) -> DesiredLrp {
    DesiredLrp {
        process_guid: ProcessGuid::from(name.to_owned()),
        domain,
        log_guid: String::new(),
        log_source: String::new(),
        rootfs: rootfs.to_owned(),
        rootfs_digest: None,
        instances,
        memory_mb: 32,
        disk_mb: 32,
        max_pids: 0,
        cpu_weight: 1,
        env: Vec::new(),
        action: Some(action()),
        ports: vec![8080],
        routes: std::collections::BTreeMap::new(),
        annotation: String::new(),
        placement_tags: Vec::new(),
        // One in ten must not run twice.
        update_strategy: if name.ends_with('7') {
            UpdateStrategy::Recreate
        } else {
            UpdateStrategy::Rolling
        },
        ..DesiredLrp::default()
    }
}

fn instance(rng: &mut Rng, state: &State, process_guid: ProcessGuid) -> Command {
    let rows: Vec<_> = state.actual_lrps_of(&process_guid).collect();
    if rows.is_empty() {
        return Command::CreateLrp { process_guid, index: index(rng) };
    }
    let row = rng.pick(&rows);
    let (key, index) = (row.key.clone(), row.key.index);
    let Some(instance) = row.instance().cloned() else {
        return match (row.is_unclaimed(), rng.below(4)) {
            (true, 0) => {
                let placement_error = "insufficient resources".into();
                Command::FailLrp { process_guid, index, placement_error }
            }
            (true, _) => Command::PlaceLrp { process_guid, index, cell_id: cell(rng) },
            (false, _) => Command::RestartLrp { process_guid, index },
        };
    };
    let instance = if rng.chance(PerMillion(100_000)) {
        // Of a cell that has not heard what became of it.
        InstanceKey { instance_guid: "0-gone".into(), ..instance }
    } else {
        instance
    };
    // What has crashed tends to crash again, and soonest where it never ran: only so does any come
    // to wait for its restart.
    let again = if row.is_running() { 300_000 } else { 700_000 };
    let crashes = row.crash_count > 0 && rng.chance(PerMillion(again));
    match rng.below(9) {
        _ if crashes => Command::CrashLrp { key, instance, reason: "exit status 2".into() },
        0 => Command::CrashLrp { key, instance, reason: "exit status 1".into() },
        1 => Command::RemoveLrp { key, instance },
        2 => Command::RetireLrp { process_guid, index },
        3 => Command::EvacuateLrp { key, instance, runs: rng.below(3) > 0 },
        _ => Command::StartLrp {
            key,
            instance,
            net_info: NetInfo {
                address: Ipv4Addr::LOCALHOST,
                instance_address: Ipv4Addr::LOCALHOST,
                ports: Vec::new(),
            },
            routable: rng.below(4) > 0,
        },
    }
}
