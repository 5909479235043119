//! A small cluster told by a script, one statement a line: what the tests of the planner say and
//! what they get to see.
//!
//! | statement | effect |
//! |---|---|
//! | `cell NAME [zone= memory= disk= containers= roots= drivers= tags= optional=]` | registers a cell, and hears it |
//! | `app NAME [instances= memory= disk= root= tags=]` | desires an LRP of domain `d` |
//! | `task NAME [memory= disk= root= tags= callback=]` | desires a task of domain `d` |
//! | `scale NAME N`, `delete NAME`, `retire NAME/INDEX`, `domain NAME SECS` | as their commands |
//! | `place NAME/INDEX CELL` | claims, without an auction |
//! | `run` | all that is claimed runs, and all placed tasks start |
//! | `crash NAME/INDEX`, `gone NAME/INDEX` | its cell says that it crashed, or is no more |
//! | `fail-to-make TASK`, `finish TASK`, `resolve TASK`, `forget TASK` | as their commands |
//! | `heard CELL…`, `wait MILLIS` | what the leader hears, and how time goes on |
//! | `evacuate CELL`, `open CELL` | as their commands, with ten minutes |
//! | `settings [starting= maximum= pack= callbacks=]` | the auction's weights in thousandths, and its limit; room for callbacks |
//! | `turn` | plans, shows the plan and its report, and applies it |
//! | `rows` | shows where everything is |

#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "a script that cannot be read fails its test")]
#![expect(clippy::wildcard_enum_match_arm, reason = "what has no form of its own is shown as is")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use expect_test::Expect;
use model::*;
use plan::{Look, Plan, Settings, Sightings};

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) sightings: Sightings,
    pub(crate) now: Millis,
    pub(crate) settings: Settings,
    log_index: u64,
}

/// Runs a script and compares what it showed.
pub(crate) fn check(script: &str, expected: Expect) {
    expected.assert_eq(&World::new().run(script));
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Millis(1000);
        let mut world = Self {
            state: State::new(),
            sightings: Sightings::new(now),
            now,
            settings: Settings::default(),
            log_index: 0,
        };
        world.accept(Command::InitCluster { salt: 0xfeed });
        world.accept(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        world
    }

    /// One proposal of one command.
    pub(crate) fn propose(&mut self, commands: Vec<Command>) -> Outcome {
        self.log_index += 1;
        let proposal = Proposal { at: self.now, commands };
        let (outcome, _) = apply_proposal(&mut self.state, self.log_index, proposal);
        self.state.take_journal();
        if let Err(sentence) = invariants::check(&self.state) {
            panic!("{sentence}");
        }
        outcome
    }

    pub(crate) fn accept(&mut self, command: Command) {
        let outcome = self.propose(vec![command.clone()]);
        if let Some(Err(refusal)) = outcome.0.first() {
            panic!("{command:?}: {refusal}");
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan_at(self.now)
    }

    /// Plans with a look at everything, which must find nothing that a quick look does not.
    pub(crate) fn plan_at(&self, now: Millis) -> Plan {
        let plan = |look| plan::turn(&self.state, &self.sightings, now, &self.settings, look);
        let thorough = plan(Look::AtEverything);
        assert_eq!(thorough.overlooked, 0, "{:?}", thorough.commands);
        assert_eq!(thorough, plan(Look::AtWhatIsDue));
        thorough
    }

    pub(crate) fn run(&mut self, script: &str) -> String {
        let mut shown = String::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let statement = Statement::read(line);
            self.execute(&statement, &mut shown);
        }
        shown
    }

    fn execute(&mut self, statement: &Statement<'_>, shown: &mut String) {
        match statement.verb {
            "cell" => {
                let cell = statement.cell();
                self.sightings.hear(cell.cell_id.clone(), self.now);
                self.accept(Command::RegisterCell { cell: Box::new(cell) });
            }
            "app" => self.accept(Command::DesireLrp { desired_lrp: Box::new(statement.app()) }),
            "task" => self.accept(Command::DesireTask {
                task_guid: statement.noun(0).into(),
                domain: "d".into(),
                definition: Box::new(statement.task()),
            }),
            "scale" => {
                let instances = Some(statement.noun(1).parse().unwrap());
                let update = DesiredLrpUpdate { instances, ..DesiredLrpUpdate::default() };
                let process_guid = statement.noun(0).into();
                self.accept(Command::UpdateDesiredLrp { process_guid, update: Box::new(update) });
            }
            "delete" => {
                let process_guid = statement.noun(0).into();
                self.accept(Command::RemoveDesiredLrp { process_guid });
            }
            "retire" => {
                let (process_guid, index) = statement.instance();
                self.accept(Command::RetireLrp { process_guid, index });
            }
            "domain" => {
                let ttl = Some(Millis::from_secs(statement.noun(1).parse().unwrap()));
                self.accept(Command::UpsertDomain { domain: statement.noun(0).into(), ttl });
            }
            "place" => {
                let (process_guid, index) = statement.instance();
                let cell_id = statement.noun(1).into();
                self.accept(Command::PlaceLrp { process_guid, index, cell_id });
            }
            "run" => self.start_all(),
            "crash" => {
                let (key, instance) = self.placement(statement);
                let reason = "Exited with status 1".to_owned();
                self.accept(Command::CrashLrp { key, instance, reason });
            }
            "gone" => {
                let (key, instance) = self.placement(statement);
                self.accept(Command::RemoveLrp { key, instance });
            }
            "fail-to-make" => {
                let (task_guid, cell_id) = self.task_on_cell(statement);
                let reason = "failed to create container: no image".to_owned();
                self.accept(Command::RejectTaskOnCell { task_guid, cell_id, reason });
            }
            "finish" => {
                let (task_guid, cell_id) = self.task_on_cell(statement);
                let (failed, failure_reason, result) = (false, String::new(), String::new());
                let finish =
                    Command::CompleteTask { task_guid, cell_id, failed, failure_reason, result };
                self.accept(finish);
            }
            "resolve" => {
                self.accept(Command::ResolvingTask { task_guid: statement.noun(0).into() })
            }
            "forget" => self.accept(Command::DeleteTask { task_guid: statement.noun(0).into() }),
            "heard" => {
                for cell in &statement.nouns {
                    self.sightings.hear((*cell).into(), self.now);
                }
            }
            "evacuate" => {
                let (cell_id, timeout) = (statement.noun(0).into(), Millis::from_secs(600));
                self.accept(Command::EvacuateCell { cell_id, timeout });
            }
            "open" => self.accept(Command::OpenCell { cell_id: statement.noun(0).into() }),
            "settings" => {
                let all = &mut self.settings;
                all.starting_container_weight =
                    statement.number("starting", all.starting_container_weight);
                all.starting_container_count_maximum =
                    statement.number("maximum", all.starting_container_count_maximum);
                all.bin_pack_first_fit_weight =
                    statement.number("pack", all.bin_pack_first_fit_weight);
                all.callbacks_max = statement.number("callbacks", all.callbacks_max);
            }
            "wait" => self.now = self.now + Millis(statement.noun(0).parse().unwrap()),
            "turn" => {
                let plan = self.plan();
                for (command, result) in
                    plan.commands.iter().zip(self.propose(plan.commands.clone()).0)
                {
                    assert_eq!(result, Ok(true), "{command:?}");
                }
                let shown_plan = show_plan(&plan, &self.state, self.now);
                writeln!(shown, "turn\n{shown_plan}").unwrap();
            }
            "rows" => writeln!(shown, "rows\n{}", show_rows(&self.state)).unwrap(),
            verb => panic!("no statement begins with {verb:?}"),
        }
    }

    /// All that is claimed runs, and all placed tasks start.
    pub(crate) fn start_all(&mut self) {
        let claimed: Vec<_> = self
            .state
            .actual_lrps()
            .filter(|row| row.presence == Presence::Ordinary && !row.is_running())
            .filter_map(|row| row.instance().map(|instance| (row.key.clone(), instance.clone())))
            .collect();
        let placed: Vec<_> = self
            .state
            .tasks()
            .filter(|task| matches!(task.state, TaskState::Pending { .. }))
            .filter_map(|task| task.cell().map(|cell| (task.task_guid.clone(), cell.clone())))
            .collect();
        for (key, instance) in claimed {
            self.accept(Command::StartLrp { key, instance, net_info: net_info(1), routable: true });
        }
        for (task_guid, cell_id) in placed {
            self.accept(Command::StartTask { task_guid, cell_id });
        }
    }

    fn placement(&self, statement: &Statement<'_>) -> (ActualLrpKey, InstanceKey) {
        let (process_guid, index) = statement.instance();
        let row = self.state.actual_lrp(&ActualLrpId::ordinary(process_guid, index)).unwrap();
        (row.key.clone(), row.instance().unwrap().clone())
    }

    fn task_on_cell(&self, statement: &Statement<'_>) -> (TaskGuid, CellId) {
        let task = self.state.task(&statement.noun(0).into()).unwrap();
        (task.task_guid.clone(), task.cell().unwrap().clone())
    }
}

/// Where the container of a test is reached.
pub(crate) fn net_info(host: u8) -> NetInfo {
    NetInfo {
        address: Ipv4Addr::new(10, 0, 0, 1),
        instance_address: Ipv4Addr::new(10, 88, 0, host),
        ports: vec![PortMapping { container_port: 8080, host_port: 61000 + u16::from(host) }],
    }
}

/// A line, taken apart: a verb, nouns, and settings.
struct Statement<'a> {
    verb: &'a str,
    nouns: Vec<&'a str>,
    settings: BTreeMap<&'a str, &'a str>,
}

impl<'a> Statement<'a> {
    fn read(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let (settings, nouns): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        let settings = settings.iter().map(|word| word.split_once('=').unwrap()).collect();
        Self { verb, nouns, settings }
    }

    fn noun(&self, at: usize) -> &'a str {
        self.nouns.get(at).unwrap_or_else(|| panic!("{} lacks a word", self.verb))
    }

    fn instance(&self) -> (ProcessGuid, u32) {
        let (guid, index) = self.noun(0).split_once('/').unwrap();
        (guid.into(), index.parse().unwrap())
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str, default: T) -> T {
        self.settings.get(name).map_or(default, |text| text.parse().unwrap())
    }

    fn list(&self, name: &str, default: &str) -> Vec<String> {
        let text = self.settings.get(name).copied().unwrap_or(default);
        text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn rootfs(&self) -> String {
        let root = self.settings.get("root").copied().unwrap_or("docker");
        if root.contains(':') { root.to_owned() } else { format!("{root}:///library/app") }
    }

    fn cell(&self) -> Cell {
        Cell {
            zone: self.settings.get("zone").copied().unwrap_or("z1").into(),
            capacity: Capacity {
                memory_mb: self.number("memory", 1000),
                disk_mb: self.number("disk", 10_000),
                containers: self.number("containers", 10),
            },
            rootfs_providers: self.list("roots", "docker").iter().map(|it| provider(it)).collect(),
            volume_drivers: self.list("drivers", ""),
            rep_url: String::new(),
            placement_tags: self.list("tags", ""),
            optional_placement_tags: self.list("optional", ""),
            ..cell(self.noun(0))
        }
    }

    fn app(&self) -> DesiredLrp {
        DesiredLrp {
            instances: self.number("instances", 1),
            update_strategy: match self.settings.get("update") {
                Some(&"recreate") => model::desired_lrp::UpdateStrategy::Recreate,
                _ => model::desired_lrp::UpdateStrategy::Rolling,
            },
            memory_mb: self.number("memory", 100),
            disk_mb: self.number("disk", 100),
            rootfs: self.rootfs(),
            placement_tags: self.list("tags", ""),
            ..app(self.noun(0))
        }
    }

    fn task(&self) -> TaskDefinition {
        TaskDefinition {
            memory_mb: self.number("memory", 100),
            disk_mb: self.number("disk", 100),
            rootfs: self.rootfs(),
            placement_tags: self.list("tags", ""),
            completion_callback_url: self.list("callback", "").concat(),
            action: action(),
            ..TaskDefinition::default()
        }
    }
}

pub(crate) fn cell(name: &str) -> Cell {
    Cell {
        cell_id: name.into(),
        node_id: 1,
        address: Ipv4Addr::LOCALHOST,
        zone: "z1".into(),
        capacity: Capacity { memory_mb: 1000, disk_mb: 10_000, containers: 10 },
        rootfs_providers: vec![RootfsProvider::arbitrary("docker")],
        volume_drivers: Vec::new(),
        rep_url: String::new(),
        intake: model::Intake::Open,
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        health: CellHealth::Present,
    }
}

pub(crate) fn app(name: &str) -> DesiredLrp {
    DesiredLrp {
        process_guid: name.into(),
        domain: "d".into(),
        log_guid: String::new(),
        log_source: String::new(),
        rootfs: "docker:///library/app".to_owned(),
        rootfs_digest: None,
        instances: 1,
        memory_mb: 100,
        disk_mb: 100,
        max_pids: 0,
        cpu_weight: 0,
        env: Vec::new(),
        action: action(),
        ports: vec![8080],
        routes: BTreeMap::new(),
        annotation: String::new(),
        placement_tags: Vec::new(),
        ..DesiredLrp::default()
    }
}

pub(crate) fn action() -> Option<Action> {
    let run = RunAction { path: "/app".into(), user: "root".into(), ..RunAction::default() };
    Some(Action::Run(run))
}

/// `docker` is all images, `preloaded:a|b` two stacks.
fn provider(text: &str) -> RootfsProvider {
    match text.split_once(':') {
        None => RootfsProvider::arbitrary(text),
        Some((scheme, stacks)) => RootfsProvider::FixedSet {
            scheme: scheme.to_owned(),
            stacks: stacks.split('|').map(str::to_owned).collect(),
        },
    }
}

fn show_plan(plan: &Plan, after: &State, now: Millis) -> String {
    let until = |moment: Millis| format!("in {}", moment - now);
    let mut lines: Vec<String> = plan.commands.iter().map(show_command).collect();
    let lrps = after.desired_lrps().flat_map(|desired| {
        let guid = &desired.process_guid;
        let waits = plan.report.explain_lrps(after, guid);
        waits.into_iter().map(move |(index, wait)| (format!("{guid}/{index}"), wait))
    });
    let tasks =
        plan.report.tasks.iter().map(|(guid, wait)| (guid.to_string(), plan::Wait::clone(wait)));
    for (name, wait) in lrps.chain(tasks) {
        let until = wait.until.map_or(String::new(), |moment| format!(" ({})", until(moment)));
        lines.push(format!("  {name} waits{until}: {}\n    {}", wait.why, wait.help));
    }
    lines.push(
        plan.next_due
            .map_or_else(|| "  nothing due".to_owned(), |at| format!("  due {}", until(at))),
    );
    lines.join("\n")
}

pub(crate) fn show_command(command: &Command) -> String {
    match command {
        Command::CreateLrp { process_guid, index } => format!("  create {process_guid}/{index}"),
        Command::PlaceLrp { process_guid, index, cell_id } => {
            format!("  place {process_guid}/{index} on {cell_id}")
        }
        Command::FailLrp { process_guid, index, placement_error } => {
            format!("  fail {process_guid}/{index}: {placement_error}")
        }
        Command::RestartLrp { process_guid, index } => format!("  restart {process_guid}/{index}"),
        Command::PlaceTask { task_guid, cell_id } => format!("  place {task_guid} on {cell_id}"),
        Command::RejectTask { task_guid, reason } => format!("  reject {task_guid}: {reason}"),
        Command::CellMissing { cell_id } => format!("  {cell_id} is missing"),
        Command::CellReturned { cell_id } => format!("  {cell_id} has returned"),
        other => format!("  {other:?}"),
    }
}

fn show_rows(state: &State) -> String {
    let mut lines = Vec::new();
    for row in state.actual_lrps() {
        let on = row.instance().map_or(String::new(), |on| format!(" on {}", on.cell_id));
        let error = match &row.state {
            ActualState::Unclaimed { placement_error } if !placement_error.is_empty() => {
                format!(": {placement_error}")
            }
            _ => String::new(),
        };
        let (key, presence, state) = (&row.key, row.presence.name(), row.state.name());
        lines.push(format!("  {}/{} {presence} {state}{on}{error}", key.process_guid, key.index));
    }
    for task in state.tasks() {
        let on = task.cell().map_or(String::new(), |cell| format!(" on {cell}"));
        let end = task.result().map_or(String::new(), |end| format!(": {:?}", end.failure_reason));
        lines.push(format!("  {} {}{on}{end}", task.task_guid, task.state.name()));
    }
    lines.join("\n")
}
