//! What routers are told of a small cluster's first cell.

use expect_test::{Expect, expect};
use model::{ActualLrpId, Command, DesiredLrpUpdate, Millis};
use serde_json::json;

use super::*;
use crate::testing::{View, World, route};

impl View for Feed {
    fn of(state: &State) -> Self {
        let mut feed = Self::new("c1".into(), Settings::default());
        feed.sync(state);
        feed
    }

    fn follow(&mut self, event: &Event) {
        self.apply(event);
    }

    fn show(&self) -> String {
        lines(self.registrations(Audience::Routers))
    }

    fn apps(&self) -> usize {
        self.apps.len()
    }
}

fn lines(tellings: Vec<Telling>) -> String {
    let line = |telling: Telling| {
        let Message { host, port, uris, private_instance_index: index, .. } = &*telling.message;
        let age = if telling.message.endpoint_updated_at_ns == 0 { "" } else { " that is new" };
        format!("{} {uris:?} {index} {host}:{port}{age}\n", telling.subject())
    };
    tellings.into_iter().map(line).collect()
}

impl World<Feed> {
    fn check(&mut self, expected: Expect) {
        expected.assert_eq(&lines(self.view.take_changes()));
    }

    fn update(&mut self, name: &str, text: &str) {
        let routes = Some([("cf-router".to_owned(), text.to_owned())].into());
        let update = Box::new(DesiredLrpUpdate { routes, ..DesiredLrpUpdate::default() });
        self.does(Command::UpdateDesiredLrp { process_guid: name.into(), update });
    }
}

/// An LRP with all that a message tells of, and its one instance, which runs.
fn rich() -> (DesiredLrp, ActualLrp) {
    let cf_router = json!([{
        "hostnames": ["Shop.example.com/v1"], "port": 8080, "protocol": "http2",
        "route_service_url": "https://rs.example.com", "isolation_segment": "iso",
        "options": {"loadbalancing": "least-connection"},
    }]);
    let desired = serde_json::from_value(json!({
        "process_guid": "shop", "domain": "d", "rootfs": "docker:///a", "log_guid": "app-guid",
        "metric_tags": {
            "space_name": {"static": "s"}, "instance_id": {"dynamic": "INDEX"},
            "guid": {"dynamic": "INSTANCE_GUID"},
        },
        "routes": {
            "cf-router": cf_router.to_string(), "internal-router": r#"[{"hostname":"shop.apps.internal"}]"#,
        },
    }));
    let actual = serde_json::from_value(json!({
        "key": {"process_guid": "shop", "index": 3, "domain": "d"}, "presence": "ORDINARY",
        "state": {"Running": {
            "instance": {"instance_guid": "ig", "cell_id": "c1"},
            "net_info": {
                "address": "10.0.0.1", "instance_address": "10.88.0.7",
                "ports": [{"container_port": 8080, "host_port": 61001}],
            },
        }},
        "crash_count": 0, "crash_reason": "", "since": 1_700_000_000_000_u64, "memory_mb": 1,
        "disk_mb": 1, "modification_tag": {"epoch": "e", "index": 1}, "routable": true,
        "availability_zone": "z1",
    }));
    (desired.unwrap(), actual.unwrap())
}

fn golden(settings: Settings, expected: Expect) {
    let (desired, actual) = rich();
    let mut feed = Feed::new("c1".into(), settings);
    feed.apply(&Event::DesiredLrpCreated(Arc::new(desired)));
    feed.apply(&Event::ActualLrpCreated(Arc::new(actual)));
    let text = |telling: Telling| {
        let bytes = String::from_utf8(telling.message.to_bytes()).unwrap();
        format!("{} {bytes}\n", telling.subject())
    };
    let text: String = feed.take_changes().into_iter().map(text).collect();
    expected.assert_eq(&text);
}

#[test]
fn messages_are_those_of_the_route_emitter() {
    golden(
        Settings { has_internal_routes: true, ..Settings::default() },
        expect![[r#"
        router.register {"host":"10.0.0.1","port":61001,"uris":["Shop.example.com/v1"],"protocol":"http2","app":"app-guid","route_service_url":"https://rs.example.com","private_instance_id":"ig","private_instance_index":"3","server_cert_domain_san":"ig","isolation_segment":"iso","endpoint_updated_at_ns":1700000000000000000,"tags":{"component":"route-emitter","guid":"ig","instance_id":"3","space_name":"s"},"availability_zone":"z1","options":{"loadbalancing":"least-connection"}}
        service-discovery.register {"host":"10.88.0.7","port":0,"uris":["shop.apps.internal","3.shop.apps.internal"],"app":"app-guid","private_instance_index":"3","endpoint_updated_at_ns":1700000000000000000,"tags":{"component":"route-emitter"}}
    "#]],
    );
    golden(
        Settings { has_direct_routes: true, ..Settings::default() },
        expect![[r#"
        router.register {"host":"10.88.0.7","port":8080,"uris":["Shop.example.com/v1"],"protocol":"http2","app":"app-guid","route_service_url":"https://rs.example.com","private_instance_id":"ig","private_instance_index":"3","server_cert_domain_san":"ig","isolation_segment":"iso","endpoint_updated_at_ns":1700000000000000000,"tags":{"component":"route-emitter","guid":"ig","instance_id":"3","space_name":"s"},"availability_zone":"z1","options":{"loadbalancing":"least-connection"}}
    "#]],
    );
}

#[test]
fn what_is_not_there_is_left_out() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    let tellings = world.view.registrations(Audience::Routers);
    let [telling] = &tellings[..] else { panic!("{tellings:?}") };
    let message = Message { private_instance_id: "ig".to_owned(), ..(*telling.message).clone() };
    let text = String::from_utf8(message.to_bytes()).unwrap();
    let guid = &message.server_cert_domain_san;
    expect![[r#"{"host":"10.0.0.1","port":61000,"uris":["a.example"],"private_instance_id":"ig","private_instance_index":"0","server_cert_domain_san":"san","tags":{"component":"route-emitter"},"availability_zone":"z"}"#]].assert_eq(&text.replace(guid.as_str(), "san"));
}

#[test]
fn a_cell_tells_of_its_own_instances() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example", "b.example"], 8080), &[61_000, 61_010, 61_020]);
    world.check(expect![[r#"
        router.register ["a.example"] 0 10.0.0.1:61000 that is new
        router.register ["a.example"] 2 10.0.0.1:61020 that is new
        router.register ["b.example"] 0 10.0.0.1:61000 that is new
        router.register ["b.example"] 2 10.0.0.1:61020 that is new
    "#]]);
    world.check(expect![[""]]);
    world.run("a", 0, 61_000, false);
    world.check(expect![[r#"
        router.unregister ["a.example"] 0 10.0.0.1:61000
        router.unregister ["b.example"] 0 10.0.0.1:61000
    "#]]);
    world.run("a", 0, 61_000, true);
    let row = world.row("a", 2);
    let (key, instance) = (row.key.clone(), row.instance().unwrap().clone());
    world.does(Command::CrashLrp { key, instance, reason: "x".to_owned() });
    world.check(expect![[r#"
        router.register ["a.example"] 0 10.0.0.1:61000 that is new
        router.register ["b.example"] 0 10.0.0.1:61000 that is new
        router.unregister ["a.example"] 2 10.0.0.1:61020
        router.unregister ["b.example"] 2 10.0.0.1:61020
    "#]]);
    world.does(Command::RemoveDesiredLrp { process_guid: "a".into() });
    world.check(expect![[r#"
        router.unregister ["a.example"] 0 10.0.0.1:61000
        router.unregister ["b.example"] 0 10.0.0.1:61000
    "#]]);
    assert_eq!(world.view.apps(), 0);
}

#[test]
fn routes_that_change_are_told() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    world.view.take_changes();
    world.update("a", &route(&["a.example", "b.example"], 8080).to_string());
    world.check(expect![[r#"
        router.register ["b.example"] 0 10.0.0.1:61000
    "#]]);
    let served = r#"[{"hostnames":["b.example"],"port":8080,"route_service_url":"https://rs"}]"#;
    world.update("a", served);
    // What routers are to do otherwise is registered anew, not withdrawn.
    world.check(expect![[r#"
        router.register ["b.example"] 0 10.0.0.1:61000
        router.unregister ["a.example"] 0 10.0.0.1:61000
    "#]]);
    world.update("a", "no JSON");
    world.check(expect![[r#"
        router.unregister ["b.example"] 0 10.0.0.1:61000
    "#]]);
}

#[test]
fn an_evacuated_instance_stays_until_it_ends() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    world.view.take_changes();
    world.does(Command::EvacuateCell { cell_id: "c1".into(), timeout: Millis(60_000) });
    let id = ActualLrpId { presence: Presence::Evacuating, ..world.row("a", 0).id() };
    assert!(world.state.actual_lrp(&id).is_some());
    world.check(expect![[""]]);
    let (process_guid, index, cell_id) = ("a".into(), 0, "c2".into());
    world.does(Command::PlaceLrp { process_guid, index, cell_id });
    world.run("a", 0, 61_020, true);
    world.check(expect![[r#"
        router.unregister ["a.example"] 0 10.0.0.1:61000
    "#]]);
}

#[test]
fn withdrawals_are_repeated_until_it_is_registered_again() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    assert_eq!(world.view.repeat_withdrawals(3), []);
    world.run("a", 0, 61_000, false);
    let repeated = |world: &mut World<Feed>| lines(world.view.repeat_withdrawals(3));
    for _ in 0..3 {
        let withdrawal = "router.unregister [\"a.example\"] 0 10.0.0.1:61000\n";
        assert_eq!(repeated(&mut world), withdrawal);
    }
    assert_eq!(repeated(&mut world), "");
    world.run("a", 0, 61_000, true);
    world.run("a", 0, 61_000, false);
    world.run("a", 0, 61_000, true);
    assert_eq!(repeated(&mut world), "", "it leads somewhere again");
}

#[test]
fn what_was_missed_is_made_up_for() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    world.app("b", &route(&["b.example"], 8080), &[62_000]);
    world.view.take_changes();
    let mut missed = State::new();
    std::mem::swap(&mut missed, &mut world.state);
    let mut other: World<Feed> = World::new();
    other.app("b", &route(&["b.example"], 8080), &[62_000]);
    other.app("c", &route(&["c.example"], 8080), &[63_000]);
    world.view.sync(&other.state);
    let changes = lines(world.view.take_changes());
    assert!(changes.contains("router.register [\"c.example\"] 0 10.0.0.1:63000"), "{changes}");
    assert!(changes.contains("router.unregister [\"a.example\"] 0 10.0.0.1:61000"), "{changes}");
    assert_eq!(world.view.show(), other.view.show());
    assert_eq!(world.view.apps(), other.view.apps());
}

#[test]
fn all_is_taken_back_where_the_instances_end() {
    let mut world: World<Feed> = World::new();
    world.app("a", &route(&["a.example"], 8080), &[61_000]);
    world.view.take_changes();
    world.view.withdraw_all();
    world.check(expect![[r#"
        router.unregister ["a.example"] 0 10.0.0.1:61000
    "#]]);
    assert_eq!(world.view.registrations(Audience::Routers), []);
}
