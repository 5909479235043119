//! Everything that changes something, except `push`.

use model::{Command, FeatureFlag};

use crate::fake::{Fake, FakeMember};

fn with_hello() -> Fake {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello -i 2").ok();
    fake
}

fn instances(fake: &Fake) -> i32 {
    fake.with(|cluster| cluster.state.desired_lrp(&"hello".into()).unwrap().instances)
}

#[test]
fn scale_stop_and_start_remember_the_number() {
    let fake = with_hello();
    assert_eq!(
        fake.type_in("scale hello -i 3").ok(),
        "hello is scaled to 3; see it with: gavel app hello\n"
    );
    assert_eq!(instances(&fake), 3);
    fake.type_in("stop hello").ok();
    assert_eq!(instances(&fake), 0);
    assert!(fake.type_in("app hello").ok().contains("state:     stopped"));
    let shown = fake.type_in("start hello").ok();
    assert!(shown.contains("instances: 3/3"), "{shown}");
    // Started is started.
    fake.type_in("start hello").ok();
    assert_eq!(instances(&fake), 3);
    // Scaling to nothing is a stop, and keeps the number too.
    fake.type_in("scale hello -i 0").ok();
    fake.type_in("start hello").ok();
    assert_eq!(instances(&fake), 3);
}

#[test]
fn a_change_says_nothing_in_json() {
    let fake = with_hello();
    assert_eq!(fake.type_in("scale hello -i 3 --json").ok(), "");
    assert_eq!(fake.type_in("delete hello --json").ok(), "");
}

#[test]
fn delete_and_retire() {
    let fake = with_hello();
    let guid = |fake: &Fake| {
        let line = fake.type_in("actual-lrps -p hello --json").ok();
        let lrp: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        lrp["instance_guid"].to_string()
    };
    let before = guid(&fake);
    assert_eq!(fake.type_in("retire-actual-lrp hello 1").ok(), "hello/1 is retired\n");
    assert_eq!(guid(&fake), before, "only the one that was named is retired");
    let failed = fake.type_in("retire-actual-lrp hello 9").failed();
    assert_eq!(failed, "1: error: ResourceNotFound: actual LRP hello/9 could not be found\n");
    fake.type_in("delete hello").ok();
    let failed = fake.type_in("delete hello").failed();
    assert_eq!(failed, "1: error: ResourceNotFound: desired LRP hello could not be found\n");
}

#[test]
fn desired_lrps_from_json_and_from_files() {
    let fake = Fake::start();
    let definition = r#"{"process_guid":"app","domain":"d","rootfs":"docker:///me/hello",
        "instances":1,"action":{"run":{"path":"/a","user":"root"}}}"#;
    fake.run(["create-desired-lrp", definition]).ok();
    let failed = fake.run(["create-desired-lrp", definition]).failed();
    assert_eq!(failed, "1: error: ResourceExists: desired LRP app already exists\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"instances":4}"#).unwrap();
    fake.run(["update-desired-lrp", "app", &format!("@{}", file.path().display())]).ok();
    let found = fake.with(|cluster| cluster.state.desired_lrp(&"app".into()).unwrap().instances);
    assert_eq!(found, 4);
    fake.type_in("delete-desired-lrp app").ok();
    assert_eq!(fake.type_in("desired-lrps").ok(), "");
    let failed =
        fake.run(["create-desired-lrp", r#"{"process_guid":"app","domain":"d"}"#]).failed();
    assert!(
        failed.starts_with("2: error: the desired LRP cannot be read: missing field"),
        "{failed}"
    );
}

#[test]
fn a_task_is_resolved_before_it_is_deleted() {
    let fake = Fake::start();
    let task = r#"{"task_guid":"t","domain":"d","task_definition":{"rootfs":"docker:///me/t",
        "action":{"run":{"path":"/a","user":"root"}}}}"#;
    fake.run(["create-task", task]).ok();
    let failed = fake.type_in("delete-task t").failed();
    assert_eq!(
        failed,
        "1: error: InvalidStateTransition: Cannot transition from Pending to Resolving\n"
    );
    fake.type_in("cancel-task t").ok();
    fake.type_in("delete-task t").ok();
    let asked = fake.with(|cluster| cluster.asked.clone());
    assert_eq!(asked[asked.len() - 2..], ["resolving_task", "delete_task"]);
    assert_eq!(fake.type_in("tasks").ok(), "");
}

#[test]
fn a_delete_that_was_lost_half_way_is_finished_by_the_next() {
    let fake = Fake::start();
    let task = r#"{"task_guid":"t","domain":"d","task_definition":{"rootfs":"docker:///me/t",
        "action":{"run":{"path":"/a","user":"root"}}}}"#;
    fake.run(["create-task", task]).ok();
    fake.type_in("cancel-task t").ok();
    fake.with(|cluster| cluster.loses_answer = true);
    let failed = fake.type_in("delete-task t").failed();
    assert!(failed.contains("see with: gavel task t"), "{failed}");
    assert_eq!(fake.type_in("delete-task t").ok(), "task t is deleted\n");
}

#[test]
fn flags_and_leadership() {
    let fake = Fake::start();
    fake.type_in("disable-feature-flag diego_docker").ok();
    assert!(!fake.with(|cluster| cluster.state.is_enabled(FeatureFlag::DiegoDocker)));
    fake.type_in("enable-feature-flag diego_docker").ok();
    assert!(fake.with(|cluster| cluster.state.is_enabled(FeatureFlag::DiegoDocker)));
    assert_eq!(fake.type_in("cluster transfer-leadership node-2").ok(), "node-2 leads\n");
    assert_eq!(fake.type_in("cluster transfer-leadership 2").ok(), "node-2 leads already\n");
    let failed = fake.type_in("cluster transfer-leadership node-9").failed();
    assert_eq!(
        failed,
        "1: error: node-9 is no member of the cluster; there are: node-1, node-2, node-3\n"
    );
}

fn newcomer(number: u64) -> FakeMember {
    FakeMember { name: format!("node-{number}"), votes: false, runs: true }
}

#[test]
fn members_come_and_go() {
    let fake = Fake::start();
    let nobody = fake.type_in("cluster join 10.0.0.4:7440 --timeout 300ms").failed();
    assert!(nobody.contains("the last node asked said: nobody waits at 10.0.0.4:7440"), "{nobody}");
    fake.with(|cluster| cluster.newcomers = vec![newcomer(4)]);
    let joined = fake.type_in("cluster join 10.0.0.4:7440").ok();
    assert!(joined.starts_with("10.0.0.4:7440 is member 100"), "{joined}");
    assert_eq!(fake.type_in("cluster promote node-4").ok(), "node-4 votes\n");
    let demoted = fake.type_in("cluster demote node-4").ok();
    assert_eq!(demoted, "node-4 follows, and does not vote\n");
    let runs = fake.type_in("cluster leave node-2").failed();
    assert_eq!(runs, "1: error: InvalidRequest: member 2 runs\n");
    assert_eq!(fake.type_in("cluster leave node-3").ok(), "node-3 is no member any more\n");
    let gone = fake.type_in("cluster leave node-3").failed();
    assert!(gone.contains("node-3 is no member of the cluster; there are: node-1, node-2, node-4"));
    fake.with(|cluster| cluster.newcomers = vec![newcomer(5)]);
    let joined = fake.type_in("cluster join 10.0.0.5:7440 --voter").ok();
    assert!(joined.ends_with("and votes\n"), "{joined}");
}

#[test]
fn a_member_that_lost_its_disk_is_replaced_by_its_own_node() {
    let fake = Fake::start();
    let runs = fake.type_in("cluster replace node-2").failed();
    assert!(runs.ends_with("error: InvalidRequest: member 2 runs\n"), "{runs}");
    let replaced = std::thread::scope(|scope| {
        let replaces = scope.spawn(|| fake.type_in("cluster replace node-3 --timeout 20s").ok());
        while fake.with(|cluster| cluster.members.contains_key(&3)) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fake.with(|cluster| cluster.newcomers = vec![newcomer(3)]);
        replaces.join().unwrap()
    });
    assert!(replaced.starts_with("node-3 is member 100"), "{replaced}");
    assert!(replaced.ends_with(" and votes\n"), "{replaced}");
    // Where the node does not come, what is left to do is said.
    fake.with(|cluster| {
        cluster.newcomers.clear();
        cluster.members.get_mut(&2).unwrap().runs = false;
    });
    let waits = fake.type_in("cluster replace node-2 --timeout 300ms").failed();
    assert!(waits.contains("node-2 has left and is not let in again after 300ms"), "{waits}");
    assert!(waits.contains("gavel cluster join 10.0.0.2:7440"), "{waits}");
}

fn on_node_1(fake: &Fake) -> u32 {
    fake.with(|cluster| cluster.state.load(&"node-1".into()).map_or(0, |load| load.containers))
}

#[test]
fn an_evacuated_cell_is_empty_until_it_is_given_back() {
    let fake = with_hello();
    assert_eq!(on_node_1(&fake), 1);
    let cancel = "give it work again with: gavel evacuate node-1 --cancel";
    let empty = format!("node-1 is empty; {cancel}\n");
    assert_eq!(fake.type_in("evacuate node-1").ok(), empty);
    assert_eq!(on_node_1(&fake), 0);
    assert_eq!(fake.type_in("evacuate node-1 --timeout 20m").ok(), empty, "nothing is there");
    assert!(fake.type_in("cells").ok().contains("node-1   evacuating"));
    fake.type_in("scale hello -i 5").ok();
    assert_eq!(on_node_1(&fake), 0);
    assert_eq!(fake.type_in("evacuate node-1 --cancel").ok(), "node-1 is given work again\n");
    fake.type_in("scale hello -i 6").ok();
    assert_eq!(on_node_1(&fake), 1);
    let failed = fake.type_in("evacuate node-9").failed();
    assert_eq!(failed, "1: error: ResourceNotFound: cell node-9 could not be found\n");
}

/// An evacuation for which there is something to wait, and what happens meanwhile.
fn evacuate_while(fake: &Fake, line: &str, happens: impl FnOnce()) -> String {
    std::thread::scope(|scope| {
        let evacuates = scope.spawn(|| fake.type_in(line).failed());
        let evacuating = || fake.with(|cluster| cluster.asked.contains(&"evacuate_cell"));
        while !evacuating() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // Long enough for a look at what is there.
        std::thread::sleep(std::time::Duration::from_millis(300));
        happens();
        evacuates.join().unwrap()
    })
}

#[test]
fn an_evacuation_tells_what_the_end_of_its_time_took() {
    let fake = with_hello();
    fake.with(|cluster| cluster.holds = true);
    let failed = evacuate_while(&fake, "evacuate node-1 --timeout 1s", || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let cell_id = "node-1".into();
        fake.with(|cluster| cluster.apply(Command::CloseCell { cell_id })).unwrap();
    });
    assert_eq!(
        failed,
        "1: node-1: 1 instance left\n\
         error: node-1: not empty after 1s; ended there: 1 instance\n\
         the cell is empty now, and gets no work before: gavel evacuate node-1 --cancel\n"
    );
    assert!(fake.type_in("cells").ok().contains("node-1   closed"));
}

#[test]
fn an_evacuation_that_somebody_ends_says_so() {
    let fake = with_hello();
    fake.with(|cluster| cluster.holds = true);
    let failed = evacuate_while(&fake, "evacuate node-1", || {
        fake.type_in("evacuate node-1 --cancel").ok();
    });
    assert_eq!(
        failed,
        "1: node-1: 1 instance left\n\
         error: node-1 was given work again by somebody else\n"
    );
}
