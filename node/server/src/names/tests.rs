//! A small cluster, and what each name in it means.

use expect_test::{Expect, expect};
use model::{
    ActualLrpId, ActualLrpKey, Capacity, Cell, CellHealth, Command, DesiredLrpUpdate, FeatureFlag,
    Intake, Millis, PortMapping, RootfsProvider, Stamp,
};
use serde_json::json;

use super::*;

/// The cluster, and the names that follow it event by event.
struct World {
    state: State,
    names: Names,
    index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::new(), names: Names::default(), index: 0 };
        world.does(Command::InitCluster { salt: 1 });
        world.does(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        for (node_id, cell_id) in [(1, "near"), (2, "far")] {
            let capacity = Capacity { memory_mb: 10_000, disk_mb: 10_000, containers: 100 };
            let cell = Cell {
                cell_id: cell_id.into(),
                node_id,
                address: address_of(cell_id),
                zone: "z".into(),
                capacity,
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
        applied.events.iter().for_each(|event| self.names.apply(event));
        assert_eq!(self.names, Names::of(&self.state), "following is as good as reading anew");
    }

    /// An app, some of whose instances run: where, and whether they are routable.
    fn app(&mut self, name: &str, hostnames: &[&str], running: &[(&str, bool)], instances: i32) {
        let action = json!({"run": {"path": "/a", "user": "root"}});
        let mut desired: DesiredLrp = serde_json::from_value(json!({
            "process_guid": name, "domain": "d", "rootfs": "docker:///a", "ports": [8080],
            "action": action, "instances": instances, "memory_mb": 1, "disk_mb": 1,
        }))
        .unwrap();
        desired.routes = routes(hostnames);
        self.does(Command::DesireLrp { desired_lrp: Box::new(desired) });
        for (index, (cell, routable)) in (0..).zip(running) {
            self.run(name, index, cell, *routable);
        }
    }

    fn run(&mut self, name: &str, index: u32, cell_id: &str, routable: bool) {
        let guid = ProcessGuid::from(name);
        let (process_guid, cell_id) = (guid.clone(), cell_id.into());
        self.does(Command::PlaceLrp { process_guid, index, cell_id });
        let row = self.state.actual_lrp(&ActualLrpId::ordinary(guid, index)).unwrap();
        let (instance, key) = (row.instance().unwrap().clone(), row.key.clone());
        let last = 2 + u8::try_from(self.index).unwrap();
        let net_info = NetInfo {
            address: address_of(instance.cell_id.as_str()),
            instance_address: [10, 88, u8::from(instance.cell_id.as_str() == "far"), last].into(),
            ports: vec![PortMapping { container_port: 8080, host_port: 61_000 + u16::from(last) }],
        };
        self.does(Command::StartLrp { key, instance, net_info, routable });
    }

    fn here(networks: &[&str]) -> Here {
        let container_networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        Here { cell_id: "near".into(), container_networks }
    }

    /// Each name's addresses, and its services.
    fn check(&self, here: &Here, names: &[&str], expected: Expect) {
        let mut text = String::new();
        for name in names {
            let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
            let told = match self.names.find(&self.state, &labels) {
                None => "unknown".to_owned(),
                Some(meaning) => {
                    let addresses: Vec<_> =
                        meaning.addresses(here).iter().map(Ipv4Addr::to_string).collect();
                    let services: Vec<_> = meaning
                        .services(here)
                        .into_iter()
                        .map(|(port, host)| format!("{host}:{port}"))
                        .collect();
                    format!("{} | {}", addresses.join(" "), services.join(" "))
                }
            };
            text.push_str(&format!("{name}: {told}\n"));
        }
        expected.assert_eq(&text);
    }
}

fn address_of(cell_id: &str) -> Ipv4Addr {
    if cell_id == "near" { [192, 0, 2, 1].into() } else { [192, 0, 2, 2].into() }
}

fn routes(hostnames: &[&str]) -> std::collections::BTreeMap<String, String> {
    let hostnames: Vec<_> = hostnames.iter().map(|name| json!({"hostname": name})).collect();
    [("internal-router".to_owned(), json!(hostnames).to_string())].into()
}

#[test]
fn an_app_is_its_routable_instances_and_an_index_is_one_of_them() {
    let mut world = World::new();
    world.app("web", &[], &[("near", true), ("near", true), ("near", false)], 4);
    world.app("idle", &[], &[], 0);
    world.check(
        &World::here(&[]),
        &[
            "web.internal",
            "0.web.internal",
            "1.web.internal",
            "2.web.internal",
            "3.web.internal",
            "4.web.internal",
            "00.web.internal",
            "+1.web.internal",
            "x.web.internal",
            "0.0.web.internal",
            "idle.internal",
            "0.idle.internal",
            "nobody.internal",
            "internal",
            "web.example",
            "web",
        ],
        expect![[r#"
            web.internal: 10.88.0.8 10.88.0.10 | 0.web.internal:8080 1.web.internal:8080
            0.web.internal: 10.88.0.8 | 0.web.internal:8080
            1.web.internal: 10.88.0.10 | 1.web.internal:8080
            2.web.internal:  | 
            3.web.internal:  | 
            4.web.internal: unknown
            00.web.internal: unknown
            +1.web.internal: unknown
            x.web.internal: unknown
            0.0.web.internal: unknown
            idle.internal:  | 
            0.idle.internal: unknown
            nobody.internal: unknown
            internal:  | 
            web.example: unknown
            web: unknown
        "#]],
    );
}

#[test]
fn an_instance_elsewhere_is_its_own_address_where_there_is_a_route_and_else_its_cells() {
    let mut world = World::new();
    world.app("both", &[], &[("near", true), ("far", true)], 2);
    world.app("away", &[], &[("far", true), ("far", true)], 2);
    let names = ["both.internal", "0.both.internal", "1.both.internal", "away.internal"];
    world.check(
        &World::here(&[]),
        &names,
        expect![[r#"
        both.internal: 10.88.0.8 | 0.both.internal:8080 1.both.internal:61010
        0.both.internal: 10.88.0.8 | 0.both.internal:8080
        1.both.internal: 192.0.2.2 | 1.both.internal:61010
        away.internal: 192.0.2.2 | 0.away.internal:61013 1.away.internal:61015
    "#]],
    );
    world.check(
        &World::here(&["10.88.0.0/16"]),
        &names,
        expect![[r#"
        both.internal: 10.88.0.8 10.88.1.10 | 0.both.internal:8080 1.both.internal:8080
        0.both.internal: 10.88.0.8 | 0.both.internal:8080
        1.both.internal: 10.88.1.10 | 1.both.internal:8080
        away.internal: 10.88.1.13 10.88.1.15 | 0.away.internal:8080 1.away.internal:8080
    "#]],
    );
    world.check(
        &World::here(&["10.88.0.0/24"]),
        &names,
        expect![[r#"
        both.internal: 10.88.0.8 | 0.both.internal:8080 1.both.internal:61010
        0.both.internal: 10.88.0.8 | 0.both.internal:8080
        1.both.internal: 192.0.2.2 | 1.both.internal:61010
        away.internal: 192.0.2.2 | 0.away.internal:61013 1.away.internal:61015
    "#]],
    );
}

#[test]
fn names_follow_the_cluster() {
    let mut world = World::new();
    let names = ["web.internal", "0.web.internal", "front.apps.internal"];
    let here = World::here(&[]);
    world.check(
        &here,
        &names,
        expect![[r#"
        web.internal: unknown
        0.web.internal: unknown
        front.apps.internal: unknown
    "#]],
    );
    world.app("web", &["front.apps.internal"], &[("near", true)], 1);
    world.check(
        &here,
        &names,
        expect![[r#"
        web.internal: 10.88.0.8 | 0.web.internal:8080
        0.web.internal: 10.88.0.8 | 0.web.internal:8080
        front.apps.internal: 10.88.0.8 | 0.web.internal:8080
    "#]],
    );
    let update = DesiredLrpUpdate { routes: Some(routes(&[])), ..DesiredLrpUpdate::default() };
    let process_guid = ProcessGuid::from("web");
    let update = Box::new(update);
    world.does(Command::UpdateDesiredLrp { process_guid: process_guid.clone(), update });
    world.check(
        &here,
        &names,
        expect![[r#"
        web.internal: 10.88.0.8 | 0.web.internal:8080
        0.web.internal: 10.88.0.8 | 0.web.internal:8080
        front.apps.internal: unknown
    "#]],
    );
    let row = world.state.actual_lrp(&ActualLrpId::ordinary(process_guid.clone(), 0)).unwrap();
    let key: ActualLrpKey = row.key.clone();
    let instance = row.instance().unwrap().clone();
    world.does(Command::CrashLrp { key, instance, reason: "it fell".to_owned() });
    world.check(
        &here,
        &names,
        expect![[r#"
        web.internal:  | 
        0.web.internal:  | 
        front.apps.internal: unknown
    "#]],
    );
    world.does(Command::RemoveDesiredLrp { process_guid });
    world.check(
        &here,
        &names,
        expect![[r#"
        web.internal: unknown
        0.web.internal: unknown
        front.apps.internal: unknown
    "#]],
    );
}

#[test]
fn hostnames_of_internal_routes_are_names_too_and_several_apps_may_share_one() {
    let mut world = World::new();
    world.app("blue", &["Shop.Apps.Internal", "blue.internal."], &[("near", true)], 1);
    world.app("green", &["shop.apps.internal"], &[("near", true), ("near", true)], 2);
    // What is not in the zone, or no route at all, is nobody's.
    world.app("liar", &["example.com", "internal", "xinternal", ""], &[("near", true)], 1);
    let broken = [("internal-router".to_owned(), "not JSON".to_owned())].into();
    let update = DesiredLrpUpdate { routes: Some(broken), ..DesiredLrpUpdate::default() };
    world.app("broken", &[], &[], 1);
    let (process_guid, update) = ("broken".into(), Box::new(update));
    world.does(Command::UpdateDesiredLrp { process_guid, update });
    world.check(
        &World::here(&[]),
        &[
            "shop.apps.internal",
            "0.shop.apps.internal",
            "1.shop.apps.internal",
            "2.shop.apps.internal",
            "apps.internal",
            "blue.internal",
            "example.com",
            "broken.internal",
        ],
        expect![[r#"
            shop.apps.internal: 10.88.0.8 10.88.0.11 10.88.0.13 | 0.blue.internal:8080 0.green.internal:8080 1.green.internal:8080
            0.shop.apps.internal: 10.88.0.8 10.88.0.11 | 0.blue.internal:8080 0.green.internal:8080
            1.shop.apps.internal: 10.88.0.13 | 1.green.internal:8080
            2.shop.apps.internal: unknown
            apps.internal: unknown
            blue.internal: 10.88.0.8 | 0.blue.internal:8080
            example.com: unknown
            broken.internal:  | 
        "#]],
    );
}

#[test]
fn nobody_takes_anothers_name_by_a_route() {
    let mut world = World::new();
    world.app("bank", &[], &[("near", true)], 1);
    let stolen = ["bank.internal", "0.bank.internal", "www.bank.internal"];
    world.app("thief", &stolen, &[("near", true)], 1);
    // Yet an app named as a part of others' routes does not take these.
    world.app("apps", &[], &[], 0);
    world.app("good", &["good.apps.internal"], &[("near", true)], 1);
    world.check(
        &World::here(&[]),
        &["bank.internal", "0.bank.internal", "www.bank.internal", "good.apps.internal"],
        expect![[r#"
            bank.internal: 10.88.0.8 | 0.bank.internal:8080
            0.bank.internal: 10.88.0.8 | 0.bank.internal:8080
            www.bank.internal: 10.88.0.11 | 0.thief.internal:8080
            good.apps.internal: 10.88.0.15 | 0.good.internal:8080
        "#]],
    );
}

#[test]
fn of_apps_that_differ_in_case_only_the_one_in_lower_case_is_meant() {
    let mut world = World::new();
    world.app("WEB", &[], &[("near", true)], 1);
    world.check(
        &World::here(&[]),
        &["web.internal"],
        expect![[r#"
        web.internal: 10.88.0.8 | 0.web.internal:8080
    "#]],
    );
    world.app("Web", &[], &[("near", true)], 1);
    world.app("web", &[], &[("near", true)], 1);
    world.check(
        &World::here(&[]),
        &["web.internal"],
        expect![[r#"
        web.internal: 10.88.0.14 | 0.web.internal:8080
    "#]],
    );
    world.does(Command::RemoveDesiredLrp { process_guid: "web".into() });
    world.check(
        &World::here(&[]),
        &["web.internal"],
        expect![[r#"
        web.internal: 10.88.0.8 | 0.web.internal:8080
    "#]],
    );
}
