//! Properties of planning over random worlds: turns and obedient cells come to rest, and what
//! they rest at is right.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod world;

use std::collections::BTreeMap;

use model::task::TaskDefinition;
use model::*;
use plan::{CellAction, Container, Handle, Observed, Plan, Sightings, Work, reconcile};
use proptest::prelude::*;
use world::{World, action, app, cell, net_info};

/// Rounds in which a world must come to rest. One that is at rest is so by the third round after
/// the last change; the bound only has to end a test that would not.
const ROUNDS_MAX: usize = 20;

#[derive(Clone, Debug)]
struct Place {
    zone: u8,
    memory: u32,
    disk: u32,
    containers: u32,
    required: u8,
    optional: u8,
    has_stacks: bool,
}

#[derive(Clone, Debug)]
struct Want {
    instances: u8,
    memory: i32,
    disk: i32,
    tags: u8,
    needs_stack: bool,
}

/// What happens to a world at rest.
#[derive(Clone, Debug)]
enum Trouble {
    Scale { app: usize, instances: u8 },
    Delete { app: usize },
    Retire { app: usize, index: u8 },
    Silence { cell: usize },
    Return { cell: usize },
    Add { place: Place },
    Desire { want: Want },
    Task { want: Want },
    Wait { secs: u16 },
    Crash { nth: usize },
}

fn places() -> impl Strategy<Value = Place> {
    let size = (0..3_u8, 100..2000_u32, 100..2000_u32, 1..12_u32);
    // Mostly plain, so that the wants meet.
    let tags = (weighted_tags(), weighted_tags(), prop::bool::weighted(0.3));
    (size, tags).prop_map(|((zone, memory, disk, containers), (required, optional, has_stacks))| {
        Place { zone, memory, disk, containers, required, optional, has_stacks }
    })
}

fn wants() -> impl Strategy<Value = Want> {
    let size = (0..7_u8, 0..700_i32, 0..700_i32);
    (size, weighted_tags(), prop::bool::weighted(0.1)).prop_map(
        |((instances, memory, disk), tags, needs_stack)| Want {
            instances,
            memory,
            disk,
            tags,
            needs_stack,
        },
    )
}

/// A set of up to two tags, as bits.
fn weighted_tags() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0_u8), 1 => 1..4_u8]
}

fn troubles() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0..6_usize, 0..9_u8).prop_map(|(app, instances)| Trouble::Scale { app, instances }),
        (0..6_usize).prop_map(|app| Trouble::Delete { app }),
        (0..6_usize, 0..6_u8).prop_map(|(app, index)| Trouble::Retire { app, index }),
        (0..5_usize).prop_map(|cell| Trouble::Silence { cell }),
        (0..5_usize).prop_map(|cell| Trouble::Return { cell }),
        places().prop_map(|place| Trouble::Add { place }),
        wants().prop_map(|want| Trouble::Desire { want }),
        wants().prop_map(|want| Trouble::Task { want }),
        (0..2000_u16).prop_map(|secs| Trouble::Wait { secs }),
        (0..20_usize).prop_map(|nth| Trouble::Crash { nth }),
    ]
}

/// A cell that does what it is told: containers run as soon as they are made.
#[derive(Default)]
struct Obedient {
    observed: Observed,
    is_silent: bool,
    is_quick: bool,
}

struct Cluster {
    world: World,
    cells: BTreeMap<CellId, Obedient>,
    apps: usize,
    tasks: usize,
}

impl Cluster {
    fn new(places: &[Place], wants: &[Want]) -> Self {
        let mut cluster = Self { world: World::new(), cells: BTreeMap::new(), apps: 0, tasks: 0 };
        for place in places {
            cluster.add(place);
        }
        for want in wants {
            cluster.desire(want);
        }
        cluster
    }

    fn add(&mut self, place: &Place) {
        let name = format!("cell-{}", self.cells.len());
        let mut rootfs_providers = vec![RootfsProvider::arbitrary("docker")];
        rootfs_providers.extend(place.has_stacks.then(|| RootfsProvider::arbitrary("preloaded")));
        let cell = Cell {
            zone: format!("z{}", place.zone).into(),
            capacity: Capacity {
                memory_mb: place.memory,
                disk_mb: place.disk,
                containers: place.containers,
            },
            rootfs_providers,
            placement_tags: tags(place.required),
            optional_placement_tags: tags(place.optional),
            ..cell(&name)
        };
        let is_quick = place.memory.is_multiple_of(2);
        self.cells.insert(cell.cell_id.clone(), Obedient { is_quick, ..Obedient::default() });
        self.world.accept(Command::RegisterCell { cell: Box::new(cell) });
    }

    fn desire(&mut self, want: &Want) {
        let desired_lrp = DesiredLrp {
            instances: want.instances.into(),
            memory_mb: want.memory,
            disk_mb: want.disk,
            rootfs: rootfs(want),
            placement_tags: tags(want.tags),
            ..app(&format!("app-{}", self.apps))
        };
        self.apps += 1;
        self.world.accept(Command::DesireLrp { desired_lrp: Box::new(desired_lrp) });
    }

    fn desire_task(&mut self, want: &Want) {
        let definition = TaskDefinition {
            memory_mb: want.memory,
            disk_mb: want.disk,
            rootfs: rootfs(want),
            placement_tags: tags(want.tags),
            action: action(),
            ..TaskDefinition::default()
        };
        let task_guid = format!("task-{}", self.tasks).into();
        self.tasks += 1;
        let (domain, definition) = ("d".into(), Box::new(definition));
        self.world.accept(Command::DesireTask { task_guid, domain, definition });
    }

    /// Whoever is there is heard, the leader plans, the cells obey. Says whether anything was done.
    fn round(&mut self) -> bool {
        for (cell_id, cell) in &self.cells {
            if !cell.is_silent {
                self.world.sightings.hear(cell_id.clone(), self.world.now);
            }
        }
        let plan = self.world.plan();
        let outcome = self.world.propose(plan.commands.clone());
        for (command, result) in plan.commands.iter().zip(outcome.0) {
            assert_eq!(result, Ok(true), "{command:?}");
        }
        self.check_not_due_before(plan.next_due);
        let mut has_acted = !plan.commands.is_empty();
        for (cell_id, cell) in &mut self.cells {
            has_acted |= !cell.is_silent && cell.obey(cell_id, &mut self.world);
        }
        has_acted
    }

    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds: {:?}", self.world.plan());
    }

    fn meet(&mut self, trouble: &Trouble) {
        let guid = |app: usize| format!("app-{app}").into();
        let cell = |nth: usize| CellId::from(format!("cell-{nth}"));
        match trouble {
            Trouble::Scale { app, instances } => {
                let instances = Some((*instances).into());
                let update = DesiredLrpUpdate { instances, ..DesiredLrpUpdate::default() };
                let (process_guid, update) = (guid(*app), Box::new(update));
                self.world.propose(vec![Command::UpdateDesiredLrp { process_guid, update }]);
            }
            Trouble::Delete { app } => {
                let process_guid = guid(*app);
                self.world.propose(vec![Command::RemoveDesiredLrp { process_guid }]);
            }
            Trouble::Retire { app, index } => {
                let (process_guid, index) = (guid(*app), u32::from(*index));
                self.world.propose(vec![Command::RetireLrp { process_guid, index }]);
            }
            Trouble::Silence { cell: nth } => {
                if let Some(cell) = self.cells.get_mut(&cell(*nth)) {
                    cell.is_silent = true;
                    self.hear_others();
                    self.world.now = self.world.now + Millis(15_001);
                }
            }
            Trouble::Return { cell: nth } => {
                if let Some(cell) = self.cells.get_mut(&cell(*nth)) {
                    cell.is_silent = false;
                }
            }
            Trouble::Add { place } => self.add(place),
            Trouble::Desire { want } => self.desire(want),
            Trouble::Task { want } => self.desire_task(want),
            Trouble::Wait { secs } => {
                self.hear_others();
                self.world.now = self.world.now + Millis::from_secs((*secs).into());
            }
            Trouble::Crash { nth } => {
                let running: Vec<_> = self
                    .world
                    .state
                    .actual_lrps()
                    .filter(|row| row.is_running() && row.presence == Presence::Ordinary)
                    .filter_map(|row| row.instance().map(|on| (row.key.clone(), on.clone())))
                    .collect();
                if let Some((key, instance)) = running.get(nth % running.len().max(1)).cloned() {
                    let reason = "Exited with status 1".to_owned();
                    self.world.accept(Command::CrashLrp { key, instance, reason });
                }
            }
        }
    }

    fn hear_others(&mut self) {
        for (cell_id, _) in self.cells.iter().filter(|(_, cell)| !cell.is_silent) {
            self.world.sightings.hear(cell_id.clone(), self.world.now);
        }
    }

    /// Whether a container of this size and kind could be anywhere, found out the slow way.
    fn has_room(&self, need: (u64, u64), rootfs: &str, tags: &[String]) -> bool {
        let state = &self.world.state;
        state.cells().filter(|cell| cell.is_present()).any(|cell| {
            let load = state.load(&cell.cell_id).cloned().unwrap_or_default();
            suits(cell, rootfs, tags)
                && load.containers < cell.capacity.containers
                && load.memory_mb + need.0 <= cell.capacity.memory_mb.into()
                && load.disk_mb + need.1 <= cell.capacity.disk_mb.into()
        })
    }

    /// What must be true of a world at rest.
    fn check(&self) {
        let state = &self.world.state;
        let plan = self.world.plan();
        assert_eq!(plan.commands, [], "at rest a turn plans nothing");
        for (cell_id, load) in state.loads() {
            let capacity = state.cell(cell_id).unwrap().capacity;
            assert!(load.containers <= capacity.containers, "{cell_id} is over its capacity");
            assert!(load.memory_mb <= capacity.memory_mb.into(), "{cell_id} is over its memory");
            assert!(load.disk_mb <= capacity.disk_mb.into(), "{cell_id} is over its disk");
        }
        for desired in state.desired_lrps() {
            for index in desired.indices() {
                let id = ActualLrpId::ordinary(desired.process_guid.clone(), index);
                self.check_instance(state.actual_lrp(&id).unwrap(), desired, &plan);
            }
        }
        for task in state.tasks() {
            self.check_task(task, &plan);
        }
        for (cell_id, cell) in self.cells.iter().filter(|(_, cell)| !cell.is_silent) {
            self.check_containers(cell_id, cell);
        }
        self.check_due(&plan);
    }

    fn check_instance(&self, row: &ActualLrp, desired: &DesiredLrp, plan: &Plan) {
        let waits = plan.report.explain_lrps(&self.world.state, &desired.process_guid);
        let told = waits.iter().find(|(index, _)| *index == row.key.index).map(|(_, wait)| wait);
        match &row.state {
            ActualState::Running { instance, .. } => {
                let cell = self.world.state.cell(&instance.cell_id).unwrap();
                assert!(cell.is_present());
                assert!(suits(cell, &desired.rootfs, &desired.placement_tags));
                assert!(told.is_none(), "{row:?} runs and waits");
            }
            ActualState::Claimed { .. } => panic!("{row:?} was never made"),
            ActualState::Crashed => assert!(told.unwrap().until.is_some()),
            ActualState::Unclaimed { placement_error } => {
                assert_eq!(told.unwrap().why, *placement_error);
                let need = (row.memory_mb.into(), row.disk_mb.into());
                let fits = self.has_room(need, &desired.rootfs, &desired.placement_tags);
                assert!(!fits, "{row:?} would fit");
            }
        }
    }

    fn check_task(&self, task: &Task, plan: &Plan) {
        let told = plan.report.task(&task.task_guid);
        match &task.state {
            TaskState::Running { cell_id } => {
                assert!(told.is_none());
                let cell = self.world.state.cell(cell_id).unwrap();
                assert!(suits(cell, &task.definition.rootfs, &task.definition.placement_tags));
            }
            TaskState::Pending { placed_on } => {
                assert!(placed_on.is_none(), "{task:?} was never started");
                assert!(task.rejection_count > 0, "{task:?} was never tried");
                assert!(told.unwrap().until.is_some(), "{task:?} rests");
            }
            TaskState::Completed { .. } | TaskState::Resolving { .. } => assert!(told.is_none()),
        }
    }

    /// Each record has its container and each container its record.
    fn check_containers(&self, cell_id: &CellId, cell: &Obedient) {
        let load = self.world.state.load(cell_id).cloned().unwrap_or_default();
        assert_eq!(cell.observed.containers.len(), load.lrps.len() + load.tasks.len());
    }

    /// Until a plan is due again, time alone gives nothing to do; then it does.
    fn check_due(&self, plan: &Plan) {
        self.check_not_due_before(plan.next_due);
        if let Some(due) = plan.next_due {
            assert!(due > self.world.now, "at rest nothing is due");
            assert_ne!(self.turn(due), [], "something is due at {due}");
        }
    }

    fn check_not_due_before(&self, due: Option<Millis>) {
        let just_before = due.map_or(Millis::from_secs(1_000_000), |due| due - Millis(1));
        assert_eq!(self.turn(just_before), [], "nothing is due before {due:?}");
    }

    fn turn(&self, now: Millis) -> Vec<Command> {
        self.world.plan_at(now).commands
    }
}

impl Obedient {
    /// Does one round of what reconciliation says. Says whether there was anything to do.
    fn obey(&mut self, me: &CellId, world: &mut World) -> bool {
        let mut has_acted = false;
        for container in self.observed.containers.values_mut() {
            if *container == Container::Preparing {
                *container = Container::Running { net_info: net_info(1), routable: true };
                has_acted = true;
            } else if *container == Container::Stopping {
                let reason = "Exited with status 143".to_owned();
                *container = Container::Exited { failed: true, reason, result: String::new() };
                has_acted = true;
            }
        }
        let actions = reconcile(&world.state, me, &self.observed);
        has_acted |= !actions.is_empty();
        for action in actions {
            self.act(action, world);
        }
        has_acted
    }

    fn act(&mut self, action: CellAction, world: &mut World) {
        match action {
            CellAction::Create { handle, work } => {
                if let Work::Task { task } = &work {
                    assert!(self.observed.tasks_started.remove(&task.task_guid));
                }
                let made = if self.is_quick {
                    Container::Running { net_info: net_info(1), routable: true }
                } else {
                    Container::Preparing
                };
                let before = self.observed.containers.insert(handle, made);
                assert_eq!(before, None, "a container is made once");
            }
            CellAction::Report(command) => {
                let outcome = world.propose(vec![command.clone()]);
                if let Command::StartTask { task_guid, .. } = command
                    && outcome.0 == [Ok(true)]
                {
                    self.observed.tasks_started.insert(task_guid);
                }
            }
            CellAction::Stop { handle, .. } => self.put(&handle, Container::Stopping),
            CellAction::Destroy { handle } => {
                self.observed.containers.remove(&handle).unwrap();
            }
        }
    }

    fn put(&mut self, handle: &Handle, container: Container) {
        *self.observed.containers.get_mut(handle).unwrap() = container;
    }
}

/// Whether a cell may take something of this kind, however full it is.
fn suits(cell: &Cell, rootfs: &str, tags: &[String]) -> bool {
    let known: Vec<&String> =
        cell.placement_tags.iter().chain(&cell.optional_placement_tags).collect();
    cell.rootfs_providers.iter().any(|provider| provider.provides(rootfs))
        && cell.placement_tags.iter().all(|tag| tags.contains(tag))
        && tags.iter().all(|tag| known.contains(&tag))
}

fn tags(bits: u8) -> Vec<String> {
    let known = [(1, "gpu"), (2, "ssd")];
    known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, tag)| (*tag).to_owned()).collect()
}

fn rootfs(want: &Want) -> String {
    if want.needs_stack { "preloaded:stack".to_owned() } else { "docker:///app".to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn turns_and_obedient_cells_come_to_rest_with_all_that_fits_running(
        places in prop::collection::vec(places(), 0..6),
        wants in prop::collection::vec(wants(), 0..6),
        tasks in prop::collection::vec(wants(), 0..4),
        troubles in prop::collection::vec(prop::collection::vec(troubles(), 1..4), 0..8),
    ) {
        let mut cluster = Cluster::new(&places, &wants);
        for want in &tasks {
            cluster.desire_task(want);
        }
        cluster.come_to_rest();
        cluster.check();
        for burst in &troubles {
            for trouble in burst {
                cluster.meet(trouble);
            }
            cluster.come_to_rest();
            cluster.check();
        }
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_world_and_applies_as_planned(
        places in prop::collection::vec(places(), 0..6),
        wants in prop::collection::vec(wants(), 0..6),
        tasks in prop::collection::vec(wants(), 0..4),
    ) {
        let mut cluster = Cluster::new(&places, &wants);
        for want in &tasks {
            cluster.desire_task(want);
        }
        let now = cluster.world.now;
        cluster.world.sightings = Sightings::new(now);
        let plan = cluster.world.plan();
        prop_assert_eq!(&plan, &cluster.world.plan());
        for (command, result) in plan.commands.iter().zip(cluster.world.propose(plan.commands.clone()).0) {
            prop_assert_eq!(result, Ok(true), "{:?}", command);
        }
        prop_assert_eq!(cluster.world.plan().commands, []);
    }
}
