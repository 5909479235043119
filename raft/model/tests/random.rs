//! Properties of the model over random histories: sequences of proposals by deciders that are
//! sometimes right and sometimes stale, foolish or twice the same.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use model::desired_lrp::UpdateStrategy;
use model::lock::LockKind;
use model::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// One decision, before it is known what there is to decide about.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    app: u8,
    index: u8,
    cell: u8,
    name: u8,
    /// Whether the decider looks at the state first.
    is_wise: bool,
}

/// Decisions that travel together, and how long after the ones before.
#[derive(Clone, Debug)]
struct Round {
    wait_secs: u16,
    steps: Vec<Step>,
}

const KINDS: u8 = 54;

fn histories() -> impl Strategy<Value = Vec<Round>> {
    let step = (0..KINDS, 0..3_u8, 0..5_u8, 0..4_u8, 0..4_u8, prop::bool::weighted(0.8)).prop_map(
        |(what, app, index, cell, name, is_wise)| Step { what, app, index, cell, name, is_wise },
    );
    // Mostly moments; sometimes long enough for back-offs and terms to end.
    let wait = prop_oneof![6 => 0..20_u16, 2 => 20..200_u16, 1 => 200..4000_u16];
    let round = (wait, prop::collection::vec(step, 1..8))
        .prop_map(|(wait_secs, steps)| Round { wait_secs, steps });
    prop::collection::vec(round, 1..60)
}

/// A replica: its state, and its rows as its disk has them.
#[derive(Clone, Default)]
struct Replica {
    state: State,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    log_index: u64,
}

impl Replica {
    fn apply(&mut self, proposal: &Proposal) -> (Outcome, Vec<Event>) {
        self.log_index += 1;
        // As it travels: through its bytes.
        let bytes = codec::encode_proposal(proposal);
        let proposal = codec::decode_proposal(&bytes).unwrap();
        let told = apply_proposal(&mut self.state, self.log_index, proposal);
        for row in self.state.take_journal() {
            let key = codec::row_key(&row);
            match codec::row_value(&self.state, &row) {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        told
    }

    /// What a restart makes of the disk.
    fn restarted(&self) -> Self {
        let mut state = State::new();
        for (key, value) in &self.rows {
            codec::load_row(&mut state, key, value).unwrap();
        }
        state.take_journal();
        Self { state, rows: self.rows.clone(), log_index: self.log_index }
    }
}

/// A history as it unfolds on one replica.
struct Run {
    replica: Replica,
    now: Millis,
}

impl Run {
    /// A cluster of three cells with an app of which an instance has crashed twice, and one that
    /// runs and must not run twice: what random steps would take long to get to.
    fn new() -> Self {
        let mut run = Self { replica: Replica::default(), now: Millis(1_000_000) };
        run.accept(Command::InitCluster { salt: 0xfeed });
        run.accept(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        let step = |cell| Step { what: 0, app: 0, index: 4, cell, name: 0, is_wise: true };
        for cell in 0..3 {
            run.accept(Command::RegisterCell { cell: Box::new(step(cell).registered()) });
        }
        run.accept(Command::DesireLrp { desired_lrp: Box::new(step(1).desired_lrp()) });
        for _ in 0..2 {
            let (process_guid, cell_id) = (step(0).app(), step(0).cell());
            run.accept(Command::PlaceLrp { process_guid, index: 0, cell_id });
            let (key, instance) = step(0).placement(&run.replica.state);
            run.accept(Command::CrashLrp { key, instance, reason: "no".to_owned() });
        }
        let step = Step { app: 2, index: 1, ..step(1) };
        run.accept(Command::DesireLrp { desired_lrp: Box::new(step.desired_lrp()) });
        let (process_guid, cell_id) = (step.app(), step.cell());
        run.accept(Command::PlaceLrp { process_guid, index: 0, cell_id });
        let (key, instance) = step.placement(&run.replica.state);
        run.accept(Command::StartLrp { key, instance, net_info: step.net_info(), routable: true });
        run
    }

    fn accept(&mut self, command: Command) {
        let (outcome, _) = self.replica.apply(&Proposal { at: self.now, commands: vec![command] });
        assert_eq!(outcome, Outcome(vec![Ok(true)]));
    }

    fn proposal(&mut self, round: &Round) -> Proposal {
        self.now = self.now + Millis::from_secs(round.wait_secs.into());
        let state = &self.replica.state;
        let commands = round.steps.iter().map(|step| step.decide(state)).collect();
        Proposal { at: self.now, commands }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_each_command_and_a_refusal_changes_nothing(history in histories()) {
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            let mut state = run.replica.state.clone();
            for (position, command) in (0..).zip(proposal.commands.clone()) {
                let before = state.clone();
                let log_index = run.replica.log_index + 1;
                let stamp = Stamp { log_index, position, at: proposal.at };
                let result = apply(&mut state, stamp, command.clone());
                prop_assert_eq!(invariants::check(&state), Ok(()), "{:?}", command);
                match result {
                    Err(_) => prop_assert_eq!(&before, &state, "{:?} is refused", command),
                    Ok(applied) if !applied.changed() => {
                        prop_assert_eq!(&before, &state, "{:?} tells nothing", command);
                    }
                    Ok(_) => {}
                }
                if let Command::PlaceLrp { cell_id, .. } | Command::PlaceTask { cell_id, .. } =
                    command
                    && before != state
                {
                    let (load, room) = (state.load(&cell_id).unwrap(), state.cell(&cell_id).unwrap());
                    prop_assert!(room.takes_work());
                    prop_assert!(load.containers <= room.capacity.containers);
                    prop_assert!(load.memory_mb <= room.capacity.memory_mb.into());
                    prop_assert!(load.disk_mb <= room.capacity.disk_mb.into());
                }
            }
            run.replica.apply(&proposal);
        }
    }

    #[test]
    fn time_never_goes_back(history in histories(), clocks in prop::collection::vec(any::<u32>(), 60)) {
        let mut run = Run::new();
        for (round, clock) in history.iter().zip(clocks) {
            let before = run.replica.state.now();
            let proposal = Proposal { at: Millis(clock.into()), ..run.proposal(round) };
            run.replica.apply(&proposal);
            prop_assert!(run.replica.state.now() >= before);
        }
    }

    #[test]
    fn replicas_fed_the_same_log_are_the_same(history in histories()) {
        let mut run = Run::new();
        let mut other = run.replica.clone();
        for round in &history {
            let proposal = run.proposal(round);
            let told = run.replica.apply(&proposal);
            prop_assert_eq!(other.apply(&proposal), told);
            prop_assert_eq!(codec::digest(&other.state), codec::digest(&run.replica.state));
        }
    }

    #[test]
    fn a_replica_that_restarts_goes_on_as_the_others(history in histories(), restart in 0..60_usize) {
        let mut run = Run::new();
        let mut other = run.replica.clone();
        for (number, round) in history.iter().enumerate() {
            let proposal = run.proposal(round);
            let told = run.replica.apply(&proposal);
            if number >= restart.min(history.len() - 1) {
                // From here on from its rows, each time anew.
                other = other.restarted();
            }
            prop_assert_eq!(other.apply(&proposal), told);
        }
        prop_assert_eq!(&other.state, &run.replica.state);
        prop_assert!(other.state.loads().eq(run.replica.state.loads()));
        prop_assert!(other.state.unclaimed().eq(run.replica.state.unclaimed()));
        prop_assert!(other.state.unplaced_tasks().eq(run.replica.state.unplaced_tasks()));
    }

    #[test]
    fn the_journal_names_every_row_that_changed(history in histories()) {
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            run.replica.apply(&proposal);
            // The rows are kept by the journal alone, and here are all of them.
            let rows: BTreeMap<_, _> = codec::rows(&run.replica.state).collect();
            prop_assert_eq!(&run.replica.rows, &rows);
        }
    }

    #[test]
    fn a_snapshot_restores_the_digest(history in histories()) {
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            run.replica.apply(&proposal);
        }
        let rows: Vec<_> = codec::rows(&run.replica.state).collect();
        prop_assert!(rows.is_sorted(), "rows come in the order of their keys");
        let mut restored = State::new();
        // In any order: here, backwards.
        for (key, value) in rows.iter().rev() {
            codec::load_row(&mut restored, key, value).unwrap();
        }
        prop_assert_eq!(&restored, &run.replica.state);
        prop_assert_eq!(codec::digest(&restored), codec::digest(&run.replica.state));
        prop_assert_eq!(invariants::check(&restored), Ok(()));
    }

    #[test]
    fn a_proposal_comes_back_from_its_bytes(history in histories()) {
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            let bytes = codec::encode_proposal(&proposal);
            prop_assert_eq!(codec::decode_proposal(&bytes), Ok(proposal.clone()));
            prop_assert!(codec::decode_proposal(&bytes[..bytes.len() - 1]).is_err());
            let longer = [&bytes[..], &[0]].concat();
            prop_assert!(codec::decode_proposal(&longer).is_err(), "a byte too many");
            run.replica.apply(&proposal);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        history in histories(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            let mut bytes = codec::encode_proposal(&proposal);
            *at.get_mut(&mut bytes) = byte;
            bytes.truncate(end.index(bytes.len() + 1));
            if let Ok(damaged) = codec::decode_proposal(&bytes) {
                // It may well mean something; then apply says what it thinks of it.
                let mut state = run.replica.state.clone();
                apply_proposal(&mut state, 1, damaged);
                prop_assert_eq!(invariants::check(&state), Ok(()));
            }
            run.replica.apply(&proposal);
        }
        for (key, value) in &run.replica.rows {
            let (mut key, mut value) = (key.clone(), value.clone());
            if byte % 2 == 0 {
                *at.get_mut(&mut value) = byte;
                value.truncate(end.index(value.len() + 1));
            } else {
                *at.get_mut(&mut key) = byte;
            }
            // Read or refused; the rest is the checksum's affair.
            drop(codec::load_row(&mut State::new(), &key, &value));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        key in prop::collection::vec(any::<u8>(), 0..40),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        table in 0..9_u8,
    ) {
        let versioned = [&[codec::VERSION][..], &bytes].concat();
        let keyed = [&[table][..], &key].concat();
        for bytes in [&bytes, &versioned] {
            drop(codec::decode_proposal(bytes));
            for key in [&key, &keyed] {
                drop(codec::load_row(&mut State::new(), key, bytes));
            }
        }
    }
}

/// A property over histories says nothing about commands that they never get to.
#[test]
fn histories_get_every_command_accepted_and_refused() {
    let mut runner = TestRunner::deterministic();
    let mut accepted = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for _ in 0..150 {
        let history = histories().new_tree(&mut runner).unwrap().current();
        let mut run = Run::new();
        for round in &history {
            let proposal = run.proposal(round);
            let (outcome, _) = run.replica.apply(&proposal);
            for (command, result) in proposal.commands.iter().zip(&outcome.0) {
                let seen = if result.is_ok() { &mut accepted } else { &mut refused };
                seen.insert(name(command));
            }
        }
    }
    // The cluster's birth is behind all histories, and a flag is set whatever it was.
    accepted.insert("InitCluster".to_owned());
    refused.insert("SetFeatureFlag".to_owned());
    assert_eq!(accepted, refused);
    assert_eq!(accepted.len(), COMMANDS, "{accepted:?}");
}

/// How many kinds of commands there are: as many as [`Step::decide`] can decide.
const COMMANDS: usize = 39;

fn name(command: &Command) -> String {
    format!("{command:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
}

impl Step {
    fn decide(&self, state: &State) -> Command {
        let process_guid = self.app();
        let index = u32::from(self.index);
        let cell_id = self.cell();
        let task_guid = TaskGuid::from(["job-a", "job-b", "job-c", ""][usize::from(self.name)]);
        let reason =
            ["because", "", "Exited with status 1", "no"][usize::from(self.name)].to_owned();
        let domain = DomainName::from(["d", "e", "f", ""][usize::from(self.name)]);
        let lock_key = || LockKey::from(["k", "l", "bbs", ""][usize::from(self.name)]);
        let owner = ["one", "two"][usize::from(self.app) % 2].to_owned();
        match self.what {
            0 => Command::InitCluster { salt: u32::from(self.name) },
            1 | 2 => Command::DesireLrp { desired_lrp: Box::new(self.desired_lrp()) },
            3 => Command::UpdateDesiredLrp {
                process_guid,
                update: Box::new(DesiredLrpUpdate {
                    instances: Some(i32::from(self.index) - i32::from(!self.is_wise)),
                    annotation: (self.name == 0).then(|| "note".to_owned()),
                    ..DesiredLrpUpdate::default()
                }),
            },
            4 => Command::RemoveDesiredLrp { process_guid },
            5 => Command::RetireLrp { process_guid, index },
            6 | 7 => Command::DesireTask {
                task_guid,
                domain: "d".into(),
                definition: Box::new(self.definition()),
            },
            8 => Command::CancelTask { task_guid },
            9 => Command::ResolvingTask { task_guid },
            10 => Command::DeleteTask { task_guid },
            11 => {
                let ttl = (self.index > 0).then(|| Millis::from_secs(60 * u64::from(self.index)));
                Command::UpsertDomain { domain, ttl }
            }
            12 => Command::SetFeatureFlag {
                flag: FeatureFlag::DiegoDocker,
                enabled: self.is_wise || self.name > 0,
            },
            13 => Command::CreateLrp { process_guid, index },
            14..=17 => {
                let (process_guid, index) = self
                    .pick(state.unclaimed().map(|(guid, index)| (guid.clone(), index)), || {
                        (process_guid.clone(), index)
                    });
                Command::PlaceLrp { process_guid, index, cell_id }
            }
            18 => Command::FailLrp { process_guid, index, placement_error: reason },
            19 => {
                let crashed = state.actual_lrps().filter(|row| row.state == ActualState::Crashed);
                let (process_guid, index) = self
                    .pick(crashed.map(|row| (row.key.process_guid.clone(), row.key.index)), || {
                        (process_guid.clone(), index)
                    });
                Command::RestartLrp { process_guid, index }
            }
            20 => {
                let task_guid = self.pick(state.unplaced_tasks().cloned(), || task_guid.clone());
                Command::PlaceTask { task_guid, cell_id }
            }
            21 => Command::RejectTask { task_guid, reason },
            22 => Command::ExpirePendingTask { task_guid },
            23 => Command::ExpireCompletedTask { task_guid },
            24 => Command::DemoteResolvingTask { task_guid },
            25 => Command::ExpireDomain { domain },
            26 => Command::CellMissing { cell_id },
            27 => Command::CellReturned { cell_id },
            28 => Command::RegisterCell { cell: Box::new(self.registered()) },
            29 | 30 => {
                let (key, instance) = self.placement(state);
                let (net_info, routable) = (self.net_info(), self.what == 29);
                Command::StartLrp { key, instance, net_info, routable }
            }
            31 | 36 | 37 => {
                let (key, instance) = self.placement(state);
                Command::CrashLrp { key, instance, reason }
            }
            32 => {
                let (key, instance) = self.placement(state);
                Command::RemoveLrp { key, instance }
            }
            33 => {
                let (task_guid, cell_id) = self.placed_task(state, task_guid);
                Command::StartTask { task_guid, cell_id }
            }
            34 => {
                let (task_guid, cell_id) = self.placed_task(state, task_guid);
                let (failed, result) = (self.name > 1, "42".to_owned());
                Command::CompleteTask { task_guid, cell_id, failed, failure_reason: reason, result }
            }
            38 | 39 => {
                let timeout = Millis::from_secs(60 * u64::from(self.index));
                Command::EvacuateCell { cell_id, timeout }
            }
            40 => Command::OpenCell { cell_id },
            41 | 42 => {
                let evacuated = state.cells().filter(|cell| cell.intake != Intake::Open);
                let cell_id =
                    self.pick(evacuated.map(|cell| cell.cell_id.clone()), || cell_id.clone());
                Command::CloseCell { cell_id }
            }
            43..=45 => {
                let is_evacuated = |row: &&ActualLrp| {
                    let on = row.instance().and_then(|on| state.cell(&on.cell_id));
                    on.is_some_and(|cell| cell.intake != Intake::Open)
                };
                let running = state.actual_lrps().map(|row| &**row).filter(|row| row.is_running());
                let running =
                    running.filter(is_evacuated).filter(|row| row.key.process_guid == "c".into());
                let (process_guid, index) = self
                    .pick(running.map(|row| (row.key.process_guid.clone(), row.key.index)), || {
                        (process_guid.clone(), index)
                    });
                Command::RecreateLrp { process_guid, index }
            }
            46 => Command::FailTask { task_guid, reason },
            47 | 48 => Command::ClaimLock {
                key: lock_key(),
                owner,
                value: reason,
                kind: LockKind::Lock,
                ttl: Millis::from_secs(60 * u64::from(self.index)),
            },
            49 => Command::ReleaseLock { key: lock_key(), owner },
            50 => Command::ExpireLock { key: lock_key() },
            51 | 52 => {
                let (key, instance) = self.placement(state);
                Command::EvacuateLrp { key, instance, runs: self.what < 52 }
            }
            _ => {
                let (task_guid, cell_id) = self.placed_task(state, task_guid);
                Command::RejectTaskOnCell { task_guid, cell_id, reason }
            }
        }
    }

    /// One of those that are there, for the wise; what comes to mind for others.
    fn pick<T>(&self, there: impl Iterator<Item = T>, otherwise: impl Fn() -> T) -> T {
        let mut there: Vec<T> = there.collect();
        if !self.is_wise || there.is_empty() {
            return otherwise();
        }
        there.swap_remove((usize::from(self.index) + usize::from(self.name)) % there.len())
    }

    fn app(&self) -> ProcessGuid {
        ["a", "b", "c"][usize::from(self.app)].into()
    }

    /// One of three, or one that nobody knows.
    fn cell(&self) -> CellId {
        ["cell-1", "cell-2", "cell-3", "cell-9"][usize::from(self.cell)].into()
    }

    /// A placement that is on record, or was perhaps once.
    fn placement(&self, state: &State) -> (ActualLrpKey, InstanceKey) {
        let placed = state
            .actual_lrps()
            .filter_map(|row| row.instance().map(|on| (row.key.clone(), on.clone())));
        self.pick(placed, || {
            let instance_guid =
                InstanceGuid::mint(0xfeed, u64::from(self.name) + 2, u32::from(self.index));
            let instance = InstanceKey { instance_guid, cell_id: self.cell() };
            let (process_guid, index) = (self.app(), self.index.into());
            (ActualLrpKey { process_guid, index, domain: "d".into() }, instance)
        })
    }

    fn placed_task(&self, state: &State, otherwise: TaskGuid) -> (TaskGuid, CellId) {
        let placed = state
            .tasks()
            .filter_map(|task| task.cell().map(|cell| (task.task_guid.clone(), cell.clone())));
        self.pick(placed, || (otherwise.clone(), self.cell()))
    }

    fn desired_lrp(&self) -> DesiredLrp {
        DesiredLrp {
            process_guid: self.app(),
            domain: "d".into(),
            log_guid: String::new(),
            log_source: String::new(),
            rootfs: "docker:///library/app".to_owned(),
            rootfs_digest: None,
            instances: if self.is_wise { i32::from(self.index) } else { -1 },
            memory_mb: 100 * i32::from(self.cell),
            disk_mb: if self.cell == 0 { 200 } else { 100 },
            max_pids: 0,
            cpu_weight: 0,
            env: Vec::new(),
            action: action(),
            ports: vec![8080],
            routes: BTreeMap::new(),
            annotation: String::new(),
            placement_tags: Vec::new(),
            // Those of "c" must not run twice.
            update_strategy: [UpdateStrategy::Rolling, UpdateStrategy::Recreate]
                [usize::from(self.app == 2)],
            ..DesiredLrp::default()
        }
    }

    fn definition(&self) -> TaskDefinition {
        TaskDefinition {
            rootfs: "docker:///library/app".to_owned(),
            action: action(),
            memory_mb: 100 * i32::from(self.cell),
            disk_mb: if self.cell == 0 { 200 } else { 100 },
            ..TaskDefinition::default()
        }
    }

    fn registered(&self) -> Cell {
        let number = self.cell % 3 + 1;
        Cell {
            cell_id: format!("cell-{number}").into(),
            node_id: number.into(),
            address: Ipv4Addr::LOCALHOST,
            zone: "z1".into(),
            capacity: Capacity {
                memory_mb: 250 * u32::from(self.index),
                disk_mb: [1000, 250, 1000, 350][usize::from(self.name)],
                containers: 2 + u32::from(self.app),
            },
            rootfs_providers: vec![model::RootfsProvider::arbitrary("docker")],
            volume_drivers: Vec::new(),
            rep_url: String::new(),
            intake: model::Intake::Open,
            placement_tags: Vec::new(),
            optional_placement_tags: Vec::new(),
            health: CellHealth::Present,
        }
    }

    fn net_info(&self) -> NetInfo {
        NetInfo {
            address: Ipv4Addr::new(10, 0, 0, 1),
            instance_address: Ipv4Addr::new(10, 88, 0, 2 + self.name),
            ports: vec![PortMapping { container_port: 8080, host_port: 61000 }],
        }
    }
}

fn action() -> Option<Action> {
    let run = RunAction { path: "/app".into(), user: "root".into(), ..RunAction::default() };
    Some(Action::Run(run))
}
