//! Who answers where in a small cluster.

use expect_test::{Expect, expect};
use model::{Command, DesiredLrpUpdate, Millis};

use super::*;
use crate::testing::{View, World, route};

impl View for Table {
    fn of(state: &State) -> Self {
        Self::of(state)
    }

    fn follow(&mut self, event: &Event) {
        self.apply(event);
    }

    fn show(&self) -> String {
        let line =
            |(host, path, pool): (&str, &str, &Pool)| format!("{host}{path} {}\n", places(pool));
        self.routes().map(line).collect()
    }

    fn apps(&self) -> usize {
        self.apps.len()
    }
}

impl World<Table> {
    fn check(&self, requests: &[&str], expected: Expect) {
        let mut text = String::new();
        for request in requests {
            let (host, path) = match request.find('/') {
                Some(at) => request.split_at(at),
                None => (*request, ""),
            };
            let answer = match self.view.look_up(host, path) {
                None => "unknown".to_owned(),
                Some(pool) => places(&pool),
            };
            text.push_str(&format!("{request}: {answer}\n"));
        }
        expected.assert_eq(&text);
    }
}

fn places(pool: &Pool) -> String {
    let place = |one: &Arc<Endpoint>| format!("{}/{} {}", one.app, one.index, one.address);
    format!("[{}]", pool.endpoints.iter().map(place).collect::<Vec<_>>().join(", "))
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
    let evacuating = |world: &World<Table>| {
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

/// Otherwise who desires many apps of one route would have each of them look at all.
#[test]
fn an_app_of_which_nothing_runs_leaves_its_routes_as_they_are() {
    let mut world = World::<Table>::new();
    world.app("runs", &route(&["app.example"], 8080), &[61_000]);
    let pool = world.view.look_up("app.example", "").unwrap();
    world.app("idle", &route(&["app.example"], 8080), &[]);
    world.does(Command::RemoveDesiredLrp { process_guid: "idle".into() });
    assert!(Arc::ptr_eq(&pool, &world.view.look_up("app.example", "").unwrap()));
}
