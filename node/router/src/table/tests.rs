//! A small cluster, and who answers where in it.

use expect_test::{Expect, expect};
use model::{
    ActualLrpId, Capacity, Cell, CellHealth, Command, DesiredLrpUpdate, FeatureFlag, Intake,
    Millis, NetInfo, PortMapping, RootfsProvider, Stamp,
};
use serde_json::{Value, json};

use super::*;

/// The cluster, and the table that follows it event by event.
struct World {
    state: State,
    table: Table,
    index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::new(), table: Table::default(), index: 0 };
        world.does(Command::InitCluster { salt: 1 });
        world.does(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        for node_id in [1, 2] {
            let cell = Cell {
                cell_id: format!("c{node_id}").as_str().into(),
                node_id,
                address: [10, 0, 0, u8::try_from(node_id).unwrap()].into(),
                zone: "z".into(),
                capacity: Capacity { memory_mb: 10_000, disk_mb: 10_000, containers: 100 },
                rootfs_providers: vec![RootfsProvider::arbitrary("docker")],
                placement_tags: vec![],
                optional_placement_tags: vec![],
                volume_drivers: vec![],
                rep_url: String::new(),
                health: CellHealth::Present,
                intake: Intake::Open,
            };
            world.does(Command::RegisterCell { cell: Box::new(cell) });
        }
        world
    }

    fn does(&mut self, command: Command) {
        self.index += 1;
        let stamp = Stamp { log_index: self.index, position: 0, at: Millis(self.index) };
        let applied = model::apply(&mut self.state, stamp, command).unwrap();
        applied.events.iter().for_each(|event| self.table.apply(event));
        let anew = Table::of(&self.state);
        assert_eq!(show(&self.table), show(&anew), "following is as good as reading anew");
        assert_eq!(self.table.apps.len(), anew.apps.len(), "nothing is kept that is over");
    }

    /// An app, of which one instance runs for each port given, on alternating cells.
    fn app(&mut self, name: &str, routes: &Value, host_ports: &[u16]) {
        let desired: DesiredLrp = serde_json::from_value(json!({
            "process_guid": name, "domain": "d", "rootfs": "docker:///a", "ports": [8080, 9090],
            "action": {"run": {"path": "/a", "user": "root"}},
            "instances": host_ports.len(), "memory_mb": 1, "disk_mb": 1,
            "routes": {"cf-router": routes.to_string()},
        }))
        .unwrap();
        self.does(Command::DesireLrp { desired_lrp: Box::new(desired) });
        for (index, port) in (0..).zip(host_ports) {
            let process_guid = ProcessGuid::from(name);
            let cell_id = if index % 2 == 0 { "c1" } else { "c2" }.into();
            self.does(Command::PlaceLrp { process_guid, index, cell_id });
            self.run(name, index, *port, true);
        }
    }

    fn row(&self, name: &str, index: u32) -> Arc<ActualLrp> {
        let id = ActualLrpId::ordinary(ProcessGuid::from(name), index);
        Arc::clone(self.state.actual_lrp(&id).unwrap())
    }

    fn run(&mut self, name: &str, index: u32, port: u16, routable: bool) {
        let row = self.row(name, index);
        let instance = row.instance().unwrap().clone();
        let address = self.state.cell(&instance.cell_id).unwrap().address;
        let ports = vec![
            PortMapping { container_port: 8080, host_port: port },
            PortMapping { container_port: 9090, host_port: port + 1 },
        ];
        let net_info = NetInfo { address, instance_address: [10, 88, 0, 2].into(), ports };
        self.does(Command::StartLrp { key: row.key.clone(), instance, net_info, routable });
    }

    fn check(&self, requests: &[&str], expected: Expect) {
        let mut text = String::new();
        for request in requests {
            let (host, path) = match request.find('/') {
                Some(at) => request.split_at(at),
                None => (*request, ""),
            };
            let answer = match self.table.look_up(host, path) {
                None => "unknown".to_owned(),
                Some(pool) => places(&pool),
            };
            text.push_str(&format!("{request}: {answer}\n"));
        }
        expected.assert_eq(&text);
    }
}

fn places(pool: &Pool) -> String {
    let place = |one: &Endpoint| format!("{}/{} {}", one.app, one.index, one.address);
    format!("[{}]", pool.endpoints.iter().map(place).collect::<Vec<_>>().join(", "))
}

fn show(table: &Table) -> String {
    table.routes().map(|(host, path, pool)| format!("{host}{path} {}\n", places(pool))).collect()
}

fn route(hostnames: &[&str], port: u16) -> Value {
    json!([{ "hostnames": hostnames, "port": port }])
}

#[test]
fn hosts_paths_and_patterns_lead_to_the_nearest() {
    let mut world = World::new();
    world.app("web", &route(&["web.example.com", "*.example.com"], 8080), &[61_000, 61_010]);
    world.app("api", &route(&["web.example.com/api", "web.example.com/api/v2/x"], 9090), &[62_000]);
    world.app("all", &route(&["*.com"], 8080), &[63_000]);
    world.check(
        &[
            "web.example.com",
            "web.example.com/",
            "web.example.com/apis",
            "web.example.com/api",
            "web.example.com/api/v2/",
            "other.example.com/api",
            "a.b.example.com",
            "example.com",
            "com",
            "example.org",
        ],
        expect![[r#"
            web.example.com: [web/0 10.0.0.1:61000, web/1 10.0.0.2:61010]
            web.example.com/: [web/0 10.0.0.1:61000, web/1 10.0.0.2:61010]
            web.example.com/apis: [web/0 10.0.0.1:61000, web/1 10.0.0.2:61010]
            web.example.com/api: [api/0 10.0.0.1:62001]
            web.example.com/api/v2/: [api/0 10.0.0.1:62001]
            other.example.com/api: [web/0 10.0.0.1:61000, web/1 10.0.0.2:61010]
            a.b.example.com: [web/0 10.0.0.1:61000, web/1 10.0.0.2:61010]
            example.com: [all/0 10.0.0.1:63000]
            com: unknown
            example.org: unknown
        "#]],
    );
}

#[test]
fn an_instance_is_there_while_it_runs_and_is_routable() {
    let mut world = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000, 61_010]);
    world.run("a", 1, 61_010, false);
    world.check(&["a.example"], expect![["a.example: [a/0 10.0.0.1:61000]\n"]]);
    let row = world.row("a", 0);
    let (key, instance) = (row.key.clone(), row.instance().unwrap().clone());
    world.does(Command::CrashLrp { key, instance, reason: "x".to_owned() });
    world.check(&["a.example"], expect![["a.example: []\n"]]);
    world.run("a", 1, 61_010, true);
    world.check(&["a.example"], expect![["a.example: [a/1 10.0.0.2:61010]\n"]]);
    world.does(Command::RemoveDesiredLrp { process_guid: "a".into() });
    world.check(&["a.example"], expect![["a.example: unknown\n"]]);
}

#[test]
fn routes_change_and_are_shared() {
    let mut world = World::new();
    world.app("blue", &route(&["app.example"], 8080), &[61_000]);
    world.app("green", &route(&["app.example", "green.example"], 8080), &[62_000]);
    world.check(
        &["app.example"],
        expect![["app.example: [blue/0 10.0.0.1:61000, green/0 10.0.0.1:62000]\n"]],
    );
    let routes = [("cf-router".to_owned(), route(&["old.example"], 9090).to_string())].into();
    let update = DesiredLrpUpdate { routes: Some(routes), ..DesiredLrpUpdate::default() };
    world.does(Command::UpdateDesiredLrp { process_guid: "blue".into(), update: Box::new(update) });
    world.check(
        &["app.example", "old.example", "green.example"],
        expect![[r#"
            app.example: [green/0 10.0.0.1:62000]
            old.example: [blue/0 10.0.0.1:61001]
            green.example: [green/0 10.0.0.1:62000]
        "#]],
    );
}

#[test]
fn in_an_evacuation_both_are_there() {
    let mut world = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    world.does(Command::EvacuateCell { cell_id: "c1".into(), timeout: Millis(60_000) });
    let evacuating = |world: &World| {
        world.state.actual_lrps().filter(|row| row.presence == Presence::Evacuating).count()
    };
    assert_eq!(evacuating(&world), 1);
    world.check(&["a.example"], expect![["a.example: [a/0 10.0.0.1:61000]\n"]]);
    let (process_guid, index, cell_id) = ("a".into(), 0, "c2".into());
    world.does(Command::PlaceLrp { process_guid, index, cell_id });
    world.check(&["a.example"], expect![["a.example: [a/0 10.0.0.1:61000]\n"]]);
    world.run("a", 0, 61_020, true);
    assert_eq!(evacuating(&world), 0);
    world.check(&["a.example"], expect![["a.example: [a/0 10.0.0.2:61020]\n"]]);
}
