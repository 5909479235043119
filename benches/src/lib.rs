//! A cluster's state of any size, as the benches start from it: nothing is made by hand, all of
//! it by commands.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use model::{
    Action, ActualLrpId, ActualLrpKey, Capacity, Cell, CellHealth, CellId, Command, DesiredLrp,
    EnvironmentVariable, FeatureFlag, InstanceKey, Millis, NetInfo, Outcome, PortMapping, Proposal,
    RunAction, State, TaskDefinition, apply_proposal,
};
use plan::{Look, Plan, Settings, Sightings};

/// Instances of each app; Cloud Foundry's own scale tests used 1 to 100.
pub const INSTANCES_OF_APP: u32 = 50;
/// Availability zones.
const ZONES: u32 = 3;

/// A cluster without Raft: its state, and what its leader hears.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub state: State,
    pub sightings: Sightings,
    pub now: Millis,
    pub settings: Settings,
    log_index: u64,
}

impl Cluster {
    /// So many cells that all have been heard, and nothing on them.
    #[must_use]
    pub fn of_cells(cells: u32) -> Self {
        Self::of((0..cells).map(cell))
    }

    /// These cells, all of which have been heard, and nothing on them.
    #[must_use]
    pub fn of(cells: impl IntoIterator<Item = Cell>) -> Self {
        let now = Millis(1_000_000);
        let (state, sightings) = (State::new(), Sightings::new(now));
        let mut cluster =
            Self { state, sightings, now, settings: Settings::default(), log_index: 0 };
        cluster.propose(vec![Command::InitCluster { salt: 7 }]);
        let flag = FeatureFlag::DiegoDocker;
        cluster.propose(vec![Command::SetFeatureFlag { flag, enabled: true }]);
        for cell in cells {
            cluster.sightings.hear(cell.cell_id.clone(), now);
            cluster.propose(vec![Command::RegisterCell { cell: Box::new(cell) }]);
        }
        cluster
    }

    /// Apps are desired until so many instances wait for a place.
    ///
    /// # Panics
    ///
    /// `instances` is not a multiple of [`INSTANCES_OF_APP`].
    pub fn desire(&mut self, instances: u32) {
        assert_eq!(instances % INSTANCES_OF_APP, 0);
        for number in 0..instances / INSTANCES_OF_APP {
            self.desire_lrp(app(number, INSTANCES_OF_APP));
        }
    }

    pub fn desire_lrp(&mut self, desired_lrp: DesiredLrp) {
        self.propose(vec![Command::DesireLrp { desired_lrp: Box::new(desired_lrp) }]);
    }

    /// Desires an LRP whose only instance runs on this cell.
    pub fn run_on(&mut self, desired_lrp: DesiredLrp, cell_id: &CellId) {
        let process_guid = desired_lrp.process_guid.clone();
        self.desire_lrp(desired_lrp);
        let (index, cell_id) = (0, cell_id.clone());
        let id = ActualLrpId::ordinary(process_guid.clone(), index);
        self.propose(vec![Command::PlaceLrp { process_guid, index, cell_id }]);
        let row = self.state.actual_lrp(&id).expect("it was desired");
        let (key, instance) = (row.key.clone(), row.instance().expect("it was placed").clone());
        self.propose(vec![Command::StartLrp {
            key,
            instance,
            net_info: net_info(),
            routable: true,
        }]);
    }

    /// Turns are taken and applied until nothing more can be placed. Returns how long the turns
    /// took, without the applying.
    pub fn place_all(&mut self) -> Duration {
        let mut planning = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let commands = self.turn().commands;
            planning += begun.elapsed();
            if commands.is_empty() {
                return planning;
            }
            self.propose(commands);
        }
    }

    /// Memory that is taken of each cell, in mebibytes.
    #[must_use]
    pub fn used(&self) -> BTreeMap<CellId, u64> {
        let used = |id: &CellId| self.state.load(id).map_or(0, |load| load.memory_mb);
        self.state.cells().map(|cell| (cell.cell_id.clone(), used(&cell.cell_id))).collect()
    }

    /// What a planner or a reader gets.
    #[must_use]
    pub fn clone_state(&self) -> State {
        self.state.clone()
    }

    /// Turns are taken and all that is placed starts, until nothing is left to plan.
    ///
    /// # Panics
    ///
    /// It does not come to an end.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            let plan = self.turn();
            if plan.commands.is_empty() {
                return;
            }
            self.propose(plan.commands);
            self.start_all();
        }
        panic!("turns go on and on");
    }

    #[must_use]
    pub fn turn(&self) -> Plan {
        plan::turn(&self.state, &self.sightings, self.now, &self.settings, Look::AtWhatIsDue)
    }

    /// As a committed entry is applied.
    ///
    /// # Panics
    ///
    /// A command is refused: the bench would measure something else.
    pub fn propose(&mut self, commands: Vec<Command>) -> Outcome {
        self.log_index += 1;
        let proposal = Proposal { at: self.now, commands };
        let (outcome, _) = apply_proposal(&mut self.state, self.log_index, proposal);
        self.state.take_journal();
        for result in &outcome.0 {
            result.as_ref().expect("the benches propose what is allowed");
        }
        outcome
    }

    /// The claimed instances that do not run yet.
    #[must_use]
    pub fn claimed(&self) -> Vec<(ActualLrpKey, InstanceKey)> {
        let claimed = self.state.actual_lrps().filter(|row| !row.is_running());
        claimed.filter_map(|row| Some((row.key.clone(), row.instance()?.clone()))).collect()
    }

    fn start_all(&mut self) {
        for (key, instance) in self.claimed() {
            let net_info = net_info();
            self.propose(vec![Command::StartLrp { key, instance, net_info, routable: true }]);
        }
    }

    /// Nothing is heard of one cell for long enough.
    pub fn lose_a_cell(&mut self) {
        self.now = self.now + Millis::from_secs(3600);
        let lost = cell(0).cell_id;
        let others: Vec<CellId> =
            self.state.cells().map(|cell| cell.cell_id.clone()).filter(|id| *id != lost).collect();
        for cell_id in others {
            self.sightings.hear(cell_id, self.now);
        }
    }
}

#[must_use]
pub fn cell(number: u32) -> Cell {
    Cell {
        cell_id: format!("cell-{number:04}").as_str().into(),
        node_id: u64::from(number),
        address: Ipv4Addr::new(10, 0, 0, 1),
        zone: format!("z{}", number % ZONES).into(),
        capacity: Capacity { memory_mb: 128 * 1024, disk_mb: 512 * 1024, containers: 249 },
        rootfs_providers: vec![model::RootfsProvider::arbitrary("docker")],
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        intake: model::Intake::Open,
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        health: CellHealth::Present,
    }
}

/// A cell of Diego's auction simulation: 100 of everything.
#[must_use]
pub fn auction_cell(number: u32, zone: u32) -> Cell {
    let capacity = Capacity { memory_mb: 100, disk_mb: 100, containers: 100 };
    Cell { zone: format!("z{zone}").into(), capacity, ..cell(number) }
}

/// An app of Diego's auction simulation: it asks for as much disk as memory.
#[must_use]
pub fn auction_app(guid: &str, memory_mb: i32, instances: i32) -> DesiredLrp {
    DesiredLrp { process_guid: guid.into(), memory_mb, disk_mb: memory_mb, instances, ..app(0, 1) }
}

/// An app as `gavel push` makes them; every third is twice as large.
#[must_use]
pub fn app(number: u32, instances: u32) -> DesiredLrp {
    DesiredLrp {
        process_guid: format!("app-{number:06}").as_str().into(),
        domain: "cf-apps".into(),
        log_guid: format!("app-{number:06}"),
        log_source: "APP/PROC/WEB".to_owned(),
        rootfs: "docker:///library/nginx#1.27".to_owned(),
        rootfs_digest: None,
        instances: i32::try_from(instances).unwrap_or(i32::MAX),
        memory_mb: if number.is_multiple_of(3) { 512 } else { 256 },
        disk_mb: 1024,
        max_pids: 0,
        cpu_weight: 1,
        env: Vec::new(),
        action: Some(action()),
        ports: vec![8080],
        routes: BTreeMap::new(),
        annotation: "{\"image\":\"nginx:1.27\"}".to_owned(),
        placement_tags: Vec::new(),
        ..DesiredLrp::default()
    }
}

#[must_use]
pub fn task() -> TaskDefinition {
    TaskDefinition {
        rootfs: "docker:///library/nginx#1.27".to_owned(),
        memory_mb: 64,
        disk_mb: 64,
        action: Some(action()),
        ..TaskDefinition::default()
    }
}

fn action() -> Action {
    let variable = |name: &str, value: &str| EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    Action::Run(RunAction {
        path: "/docker-entrypoint.sh".to_owned(),
        args: vec!["nginx".to_owned(), "-g".to_owned(), "daemon off;".to_owned()],
        dir: "/".to_owned(),
        env: vec![variable("PORT", "8080"), variable("MEMORY_LIMIT", "256m")],
        user: "root".to_owned(),
        log_source: "APP/PROC/WEB".to_owned(),
        ..RunAction::default()
    })
}

#[must_use]
pub fn net_info() -> NetInfo {
    NetInfo {
        address: Ipv4Addr::new(10, 0, 0, 1),
        instance_address: Ipv4Addr::new(10, 88, 0, 2),
        ports: vec![PortMapping { container_port: 8080, host_port: 61_001 }],
    }
}
