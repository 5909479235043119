//! The tables of lifecycle.md, whole: in each state that a row can be in, each command that is about
//! it, with its events in order or its refusal. Sections 1.2 (tasks), 3.1 to 3.5 (actual LRPs) and
//! 4.2 (copies on cells that are being emptied).

use super::*;

/// Brings a cluster into one state.
type Scene = fn(&mut Cluster);
/// One command, made for the cluster at hand.
type Step = fn(&Cluster) -> Command;

/// What each command comes to in each state, as a text.
fn table(scenes: &[(&str, Scene)], steps: &[(&str, Step)]) -> String {
    let mut lines = Vec::new();
    for (scene_name, scene) in scenes {
        lines.push((*scene_name).to_owned());
        for (step_name, step) in steps {
            let mut cluster = Cluster::new();
            scene(&mut cluster);
            let command = step(&cluster);
            let told = match cluster.apply(command) {
                Ok(events) if events.is_empty() => vec!["nothing".to_owned()],
                Ok(events) => events.iter().map(tell).collect(),
                Err(refusal) => vec![format!("{}: {refusal}", refusal.diego_type())],
            };
            lines.push(format!("  {step_name}: {}", told.join("; ")));
        }
    }
    lines.join("\n")
}

/// The placement of the row of index 0 with this presence.
fn placed(cluster: &Cluster, presence: Presence) -> InstanceKey {
    let id = ActualLrpId { process_guid: "app".into(), index: 0, presence };
    let row = cluster.state.actual_lrp(&id);
    row.and_then(|row| row.instance()).cloned().unwrap_or_else(stranger)
}

/// A placement that is on no record.
fn stranger() -> InstanceKey {
    InstanceKey { instance_guid: "stranger".into(), cell_id: "cell-2".into() }
}

fn unclaimed(cluster: &mut Cluster) {
    cluster.accept(desire(app(1)));
}

fn claimed(cluster: &mut Cluster) {
    unclaimed(cluster);
    cluster.place(0, "cell-1");
}

fn running(cluster: &mut Cluster) {
    unclaimed(cluster);
    cluster.run(0, "cell-1");
}

fn crashed(cluster: &mut Cluster) {
    unclaimed(cluster);
    for _ in 0..3 {
        let instance = cluster.run(0, "cell-1");
        cluster.accept(crash(0, &instance));
    }
}

fn crashed_and_due(cluster: &mut Cluster) {
    crashed(cluster);
    cluster.wait(30);
}

fn retired(cluster: &mut Cluster) {
    unclaimed(cluster);
    cluster.accept(retire());
}

fn suspect_and_unclaimed(cluster: &mut Cluster) {
    running(cluster);
    cluster.accept(missing("cell-1"));
}

fn suspect_and_claimed(cluster: &mut Cluster) {
    suspect_and_unclaimed(cluster);
    cluster.place(0, "cell-2");
}

fn suspect_claimed_and_claimed(cluster: &mut Cluster) {
    claimed(cluster);
    cluster.accept(missing("cell-1"));
    cluster.place(0, "cell-2");
}

fn evacuating_and_unclaimed(cluster: &mut Cluster) {
    running(cluster);
    cluster.accept(evacuate());
}

fn evacuating_and_claimed(cluster: &mut Cluster) {
    evacuating_and_unclaimed(cluster);
    cluster.place(0, "cell-2");
}

fn retire() -> Command {
    Command::RetireLrp { process_guid: "app".into(), index: 0 }
}

fn evacuate() -> Command {
    Command::EvacuateCell { cell_id: "cell-1".into(), timeout: Millis::from_secs(600) }
}

fn evacuate_one(instance: InstanceKey) -> Command {
    Command::EvacuateLrp { key: key(0), instance, runs: true }
}

fn remove(instance: InstanceKey) -> Command {
    Command::RemoveLrp { key: key(0), instance }
}

/// What is said of the ordinary row, and of the index.
const OF_AN_INDEX: &[(&str, Step)] = &[
    ("create", |_| Command::CreateLrp { process_guid: "app".into(), index: 0 }),
    ("claim", |_| place(0, "cell-2")),
    ("start, same key", |cluster| start(0, &placed(cluster, Presence::Ordinary))),
    ("start, not ready", |cluster| unready(0, &placed(cluster, Presence::Ordinary))),
    ("start, other key", |_| start(0, &stranger())),
    ("crash, same key", |cluster| crash(0, &placed(cluster, Presence::Ordinary))),
    ("crash, other key", |_| crash(0, &stranger())),
    ("fail", |_| Command::FailLrp {
        process_guid: "app".into(),
        index: 0,
        placement_error: "insufficient resources: memory".to_owned(),
    }),
    ("remove, same key", |cluster| remove(placed(cluster, Presence::Ordinary))),
    ("remove, other key", |_| remove(stranger())),
    ("retire", |_| retire()),
    ("restart", |_| Command::RestartLrp { process_guid: "app".into(), index: 0 }),
    ("recreate", |_| Command::RecreateLrp { process_guid: "app".into(), index: 0 }),
    ("evacuate, same key", |cluster| evacuate_one(placed(cluster, Presence::Ordinary))),
    ("evacuate, other key", |_| evacuate_one(stranger())),
    ("its cell is missing", |_| missing("cell-1")),
    ("its cell returns", |_| returned("cell-1")),
    ("its cell is emptied", |_| evacuate()),
    ("its cell is opened", |_| Command::OpenCell { cell_id: "cell-1".into() }),
    ("scale to 0", |_| scale(0)),
    ("no longer desired", |_| Command::RemoveDesiredLrp { process_guid: "app".into() }),
];

#[test]
fn an_index_with_one_row() {
    let scenes: &[(&str, Scene)] = &[
        ("not desired", |_| {}),
        ("no row", retired),
        ("UNCLAIMED", unclaimed),
        ("CLAIMED", claimed),
        ("RUNNING", running),
        ("CRASHED", crashed),
        ("CRASHED, back-off over", crashed_and_due),
    ];
    expect![[r#"
        not desired
          create: ResourceNotFound: desired LRP app could not be found
          claim: ResourceNotFound: actual LRP app/0 could not be found
          start, same key: ResourceNotFound: actual LRP app/0 could not be found
          start, not ready: ResourceNotFound: actual LRP app/0 could not be found
          start, other key: ResourceNotFound: actual LRP app/0 could not be found
          crash, same key: ResourceNotFound: actual LRP app/0 could not be found
          crash, other key: ResourceNotFound: actual LRP app/0 could not be found
          fail: ResourceNotFound: actual LRP app/0 could not be found
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: ResourceNotFound: actual LRP app/0 could not be found
          restart: ResourceNotFound: actual LRP app/0 could not be found
          recreate: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: nothing
          scale to 0: ResourceNotFound: desired LRP app could not be found
          no longer desired: ResourceNotFound: desired LRP app could not be found
        no row
          create: created app/0 ORDINARY UNCLAIMED
          claim: ResourceNotFound: actual LRP app/0 could not be found
          start, same key: ResourceNotFound: actual LRP app/0 could not be found
          start, not ready: ResourceNotFound: actual LRP app/0 could not be found
          start, other key: ResourceNotFound: actual LRP app/0 could not be found
          crash, same key: ResourceNotFound: actual LRP app/0 could not be found
          crash, other key: ResourceNotFound: actual LRP app/0 could not be found
          fail: ResourceNotFound: actual LRP app/0 could not be found
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: ResourceNotFound: actual LRP app/0 could not be found
          restart: ResourceNotFound: actual LRP app/0 could not be found
          recreate: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: nothing
          scale to 0: desired app -> x0
          no longer desired: desired app removed
        UNCLAIMED
          create: nothing
          claim: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY CLAIMED on cell-2
          start, same key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, not ready: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          crash, same key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          fail: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY UNCLAIMED
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY UNCLAIMED
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY UNCLAIMED; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY UNCLAIMED
        CLAIMED
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          start, same key: changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          start, not ready: changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          crash, same key: crashed app/0 #1 "Exited with status 1"; changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          remove, same key: removed app/0 ORDINARY CLAIMED on cell-1
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CLAIMED on cell-1
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0006-0000 on cell-1
          evacuate, same key: changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY UNCLAIMED
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }; changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 SUSPECT CLAIMED on cell-1; created app/0 ORDINARY UNCLAIMED
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }; changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY UNCLAIMED
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY CLAIMED on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CLAIMED on cell-1
        RUNNING
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          start, same key: nothing
          start, not ready: changed app/0 ORDINARY RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          crash, same key: crashed app/0 #1 "Exited with status 1"; changed app/0 ORDINARY RUNNING on cell-1 -> app/0 ORDINARY UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          remove, same key: removed app/0 ORDINARY RUNNING on cell-1
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY RUNNING on cell-1
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1
          evacuate, same key: changed app/0 ORDINARY RUNNING on cell-1 -> app/0 EVACUATING RUNNING on cell-1; created app/0 ORDINARY UNCLAIMED
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }; changed app/0 ORDINARY RUNNING on cell-1 -> app/0 SUSPECT RUNNING on cell-1; created app/0 ORDINARY UNCLAIMED
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }; changed app/0 ORDINARY RUNNING on cell-1 -> app/0 EVACUATING RUNNING on cell-1; created app/0 ORDINARY UNCLAIMED
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY RUNNING on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY RUNNING on cell-1
        CRASHED
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CRASHED
          start, same key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          start, not ready: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          crash, same key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CRASHED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CRASHED
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CRASHED
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CRASHED
          restart: ResourceConflict: it is not time yet
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CRASHED
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY CRASHED; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CRASHED
        CRASHED, back-off over
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CRASHED
          start, same key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          start, not ready: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CRASHED
          crash, same key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CRASHED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CRASHED
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CRASHED
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CRASHED
          restart: changed app/0 ORDINARY CRASHED -> app/0 ORDINARY UNCLAIMED
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CRASHED
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(31000) }
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(631000) }
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY CRASHED; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CRASHED"#]].assert_eq(&table(scenes, OF_AN_INDEX));
}

#[test]
fn an_index_with_a_second_row() {
    let scenes: &[(&str, Scene)] = &[
        ("SUSPECT RUNNING and UNCLAIMED", suspect_and_unclaimed),
        ("SUSPECT RUNNING and CLAIMED", suspect_and_claimed),
        ("SUSPECT CLAIMED and CLAIMED", suspect_claimed_and_claimed),
        ("EVACUATING and UNCLAIMED", evacuating_and_unclaimed),
        ("EVACUATING and CLAIMED", evacuating_and_claimed),
    ];
    expect![[r#"
        SUSPECT RUNNING and UNCLAIMED
          create: nothing
          claim: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY CLAIMED on cell-2
          start, same key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, not ready: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          crash, same key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          fail: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY UNCLAIMED
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY UNCLAIMED
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: nothing
          its cell returns: cell cell-1 Present; removed app/0 ORDINARY UNCLAIMED; changed app/0 SUSPECT RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          its cell is emptied: ResourceConflict: cell cell-1 is not taking work
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY UNCLAIMED; removed app/0 SUSPECT RUNNING on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY UNCLAIMED; removed app/0 SUSPECT RUNNING on cell-1
        SUSPECT RUNNING and CLAIMED
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          start, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 SUSPECT RUNNING on cell-1
          start, not ready: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 SUSPECT RUNNING on cell-1
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          crash, same key: crashed app/0 #1 "Exited with status 1"; changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          remove, same key: removed app/0 ORDINARY CLAIMED on cell-2
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CLAIMED on cell-2
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          evacuate, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: nothing
          its cell returns: cell cell-1 Present; removed app/0 ORDINARY CLAIMED on cell-2; changed app/0 SUSPECT RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          its cell is emptied: ResourceConflict: cell cell-1 is not taking work
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 SUSPECT RUNNING on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 SUSPECT RUNNING on cell-1
        SUSPECT CLAIMED and CLAIMED
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          start, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 SUSPECT CLAIMED on cell-1
          start, not ready: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 SUSPECT CLAIMED on cell-1
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          crash, same key: crashed app/0 #1 "Exited with status 1"; changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          remove, same key: removed app/0 ORDINARY CLAIMED on cell-2
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CLAIMED on cell-2
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0008-0000 on cell-2
          evacuate, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: nothing
          its cell returns: cell cell-1 Present; removed app/0 ORDINARY CLAIMED on cell-2; changed app/0 SUSPECT CLAIMED on cell-1 -> app/0 ORDINARY CLAIMED on cell-1
          its cell is emptied: ResourceConflict: cell cell-1 is not taking work
          its cell is opened: nothing
          scale to 0: removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 SUSPECT CLAIMED on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 SUSPECT CLAIMED on cell-1
        EVACUATING and UNCLAIMED
          create: nothing
          claim: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY CLAIMED on cell-2
          start, same key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, not ready: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          crash, same key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          fail: changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY UNCLAIMED
          remove, same key: ResourceNotFound: actual LRP app/0 could not be found
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY UNCLAIMED
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED
          evacuate, same key: ResourceNotFound: actual LRP app/0 could not be found
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) } Evacuating { until: Millis(601000) }; removed app/0 EVACUATING RUNNING on cell-1
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: cell cell-1 Present; removed app/0 ORDINARY UNCLAIMED; changed app/0 EVACUATING RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          scale to 0: removed app/0 ORDINARY UNCLAIMED; removed app/0 EVACUATING RUNNING on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY UNCLAIMED; removed app/0 EVACUATING RUNNING on cell-1
        EVACUATING and CLAIMED
          create: nothing
          claim: ActualLRPCannotBeClaimed: cannot claim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          start, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 EVACUATING RUNNING on cell-1
          start, not ready: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2; removed app/0 EVACUATING RUNNING on cell-1
          start, other key: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          crash, same key: crashed app/0 #1 "Exited with status 1"; changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          crash, other key: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          fail: ActualLRPCannotBeFailed: cannot fail actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          remove, same key: removed app/0 ORDINARY CLAIMED on cell-2
          remove, other key: ResourceNotFound: actual LRP app/0 could not be found
          retire: removed app/0 ORDINARY CLAIMED on cell-2
          restart: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          recreate: ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          evacuate, same key: changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED
          evacuate, other key: ResourceNotFound: actual LRP app/0 could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) } Evacuating { until: Millis(601000) }; removed app/0 EVACUATING RUNNING on cell-1
          its cell returns: nothing
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
          its cell is opened: cell cell-1 Present; removed app/0 ORDINARY CLAIMED on cell-2; changed app/0 EVACUATING RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
          scale to 0: removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 EVACUATING RUNNING on cell-1; desired app -> x0
          no longer desired: desired app removed; removed app/0 ORDINARY CLAIMED on cell-2; removed app/0 EVACUATING RUNNING on cell-1"#]].assert_eq(&table(scenes, OF_AN_INDEX));
}

#[test]
fn a_second_row_by_its_own_key() {
    let suspects: &[(&str, Scene)] = &[
        ("SUSPECT RUNNING and UNCLAIMED", suspect_and_unclaimed),
        ("SUSPECT CLAIMED and CLAIMED", suspect_claimed_and_claimed),
    ];
    let of_suspects: &[(&str, Step)] = &[
        ("start", |cluster| start(0, &placed(cluster, Presence::Suspect))),
        ("crash", |cluster| crash(0, &placed(cluster, Presence::Suspect))),
        ("remove", |cluster| remove(placed(cluster, Presence::Suspect))),
    ];
    let copies: &[(&str, Scene)] = &[
        ("EVACUATING and UNCLAIMED", evacuating_and_unclaimed),
        ("EVACUATING and CLAIMED", evacuating_and_claimed),
    ];
    let of_copies: &[(&str, Step)] = &[
        ("start", |cluster| start(0, &placed(cluster, Presence::Evacuating))),
        ("crash", |cluster| crash(0, &placed(cluster, Presence::Evacuating))),
        ("remove", |cluster| remove(placed(cluster, Presence::Evacuating))),
    ];
    let both = [table(suspects, of_suspects), table(copies, of_copies)].join("\n");
    expect![[r#"
        SUSPECT RUNNING and UNCLAIMED
          start: nothing
          crash: removed app/0 SUSPECT RUNNING on cell-1
          remove: removed app/0 SUSPECT RUNNING on cell-1
        SUSPECT CLAIMED and CLAIMED
          start: nothing
          crash: removed app/0 SUSPECT CLAIMED on cell-1
          remove: removed app/0 SUSPECT CLAIMED on cell-1
        EVACUATING and UNCLAIMED
          start: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED
          crash: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is UNCLAIMED
          remove: removed app/0 EVACUATING RUNNING on cell-1
        EVACUATING and CLAIMED
          start: ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          crash: ActualLRPCannotBeCrashed: cannot crash actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-0009-0000 on cell-2
          remove: removed app/0 EVACUATING RUNNING on cell-1"#]].assert_eq(&both);
}

fn on_task(command: fn(TaskGuid) -> Command) -> Command {
    command("task".into())
}

fn task_placed(cluster: &mut Cluster) {
    cluster.accept(desire_task());
    cluster.accept(place_task("cell-1"));
}

fn task_running(cluster: &mut Cluster) {
    task_placed(cluster);
    cluster.accept(start_task("cell-1"));
}

fn task_completed(cluster: &mut Cluster) {
    task_running(cluster);
    cluster.accept(complete_task("cell-1"));
}

fn task_resolving(cluster: &mut Cluster) {
    task_completed(cluster);
    cluster.accept(on_task(|task_guid| Command::ResolvingTask { task_guid }));
}

const OF_A_TASK: &[(&str, Step)] = &[
    ("desire", |_| desire_task()),
    ("place", |_| place_task("cell-2")),
    ("start, same cell", |_| start_task("cell-1")),
    ("start, other cell", |_| start_task("cell-2")),
    ("complete, same cell", |_| complete_task("cell-1")),
    ("complete, other cell", |_| complete_task("cell-2")),
    ("cancel", |_| on_task(|task_guid| Command::CancelTask { task_guid })),
    ("reject", |_| {
        let reason = "insufficient resources: memory".to_owned();
        Command::RejectTask { task_guid: "task".into(), reason }
    }),
    ("reject without a reason", |_| Command::RejectTask {
        task_guid: "task".into(),
        reason: String::new(),
    }),
    ("reject, same cell", |_| reject_task("cell-1")),
    ("reject, other cell", |_| reject_task("cell-2")),
    ("resolving", |_| on_task(|task_guid| Command::ResolvingTask { task_guid })),
    ("delete", |_| on_task(|task_guid| Command::DeleteTask { task_guid })),
    ("expire pending", |_| on_task(|task_guid| Command::ExpirePendingTask { task_guid })),
    ("expire completed", |_| on_task(|task_guid| Command::ExpireCompletedTask { task_guid })),
    ("demote", |_| on_task(|task_guid| Command::DemoteResolvingTask { task_guid })),
    ("its cell is missing", |_| missing("cell-1")),
    ("its cell is emptied", |_| evacuate()),
];

#[test]
fn a_task() {
    let scenes: &[(&str, Scene)] = &[
        ("none", |_| {}),
        ("Pending", |cluster| {
            cluster.accept(desire_task());
        }),
        ("Pending, placed", task_placed),
        ("Running", task_running),
        ("Completed", task_completed),
        ("Resolving", task_resolving),
    ];
    expect![[r#"
        none
          desire: task created task Pending
          place: ResourceNotFound: task task could not be found
          start, same cell: ResourceNotFound: task task could not be found
          start, other cell: ResourceNotFound: task task could not be found
          complete, same cell: ResourceNotFound: task task could not be found
          complete, other cell: ResourceNotFound: task task could not be found
          cancel: ResourceNotFound: task task could not be found
          reject: ResourceNotFound: task task could not be found
          reject without a reason: ResourceNotFound: task task could not be found
          reject, same cell: ResourceNotFound: task task could not be found
          reject, other cell: ResourceNotFound: task task could not be found
          resolving: ResourceNotFound: task task could not be found
          delete: ResourceNotFound: task task could not be found
          expire pending: ResourceNotFound: task task could not be found
          expire completed: ResourceNotFound: task task could not be found
          demote: ResourceNotFound: task task could not be found
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
        Pending
          desire: ResourceExists: task task already exists
          place: task changed task Pending -> task Pending on cell-2
          start, same cell: InvalidStateTransition: Cannot transition from Pending to Running
          start, other cell: InvalidStateTransition: Cannot transition from Pending to Running
          complete, same cell: InvalidStateTransition: Cannot transition from Pending to Completed
          complete, other cell: InvalidStateTransition: Cannot transition from Pending to Completed
          cancel: task changed task Pending -> task Completed failed=true "task was cancelled" ""
          reject: task changed task Pending -> task Pending
          reject without a reason: InvalidRequest: Invalid field: failure_reason
          reject, same cell: InvalidStateTransition: Cannot transition from Pending to Pending
          reject, other cell: InvalidStateTransition: Cannot transition from Pending to Pending
          resolving: InvalidStateTransition: Cannot transition from Pending to Resolving
          delete: InvalidStateTransition: Cannot transition from Pending to Resolving
          expire pending: ResourceConflict: it is not time yet
          expire completed: InvalidStateTransition: Cannot transition from Pending to Completed
          demote: InvalidStateTransition: Cannot transition from Pending to Completed
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
        Pending, placed
          desire: ResourceExists: task task already exists
          place: InvalidStateTransition: Cannot transition from Pending to Pending
          start, same cell: task changed task Pending on cell-1 -> task Running on cell-1
          start, other cell: InvalidStateTransition: Cannot transition from Pending to Running
          complete, same cell: InvalidStateTransition: Cannot transition from Pending to Completed
          complete, other cell: InvalidStateTransition: Cannot transition from Pending to Completed
          cancel: task changed task Pending on cell-1 -> task Completed failed=true "task was cancelled" ""
          reject: InvalidStateTransition: Cannot transition from Pending to Pending
          reject without a reason: InvalidStateTransition: Cannot transition from Pending to Pending
          reject, same cell: task changed task Pending on cell-1 -> task Pending
          reject, other cell: RunningOnDifferentCell: Running on cell cell-1 not cell-2
          resolving: InvalidStateTransition: Cannot transition from Pending to Resolving
          delete: InvalidStateTransition: Cannot transition from Pending to Resolving
          expire pending: ResourceConflict: it is not time yet
          expire completed: InvalidStateTransition: Cannot transition from Pending to Completed
          demote: InvalidStateTransition: Cannot transition from Pending to Completed
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }; task changed task Pending on cell-1 -> task Pending
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }; task changed task Pending on cell-1 -> task Pending
        Running
          desire: ResourceExists: task task already exists
          place: InvalidStateTransition: Cannot transition from Running to Pending
          start, same cell: nothing
          start, other cell: InvalidStateTransition: Cannot transition from Running to Running
          complete, same cell: task changed task Running on cell-1 -> task Completed failed=false "" "42"
          complete, other cell: RunningOnDifferentCell: Running on cell cell-1 not cell-2
          cancel: task changed task Running on cell-1 -> task Completed failed=true "task was cancelled" ""
          reject: InvalidStateTransition: Cannot transition from Running to Pending
          reject without a reason: InvalidStateTransition: Cannot transition from Running to Pending
          reject, same cell: task changed task Running on cell-1 -> task Pending
          reject, other cell: RunningOnDifferentCell: Running on cell cell-1 not cell-2
          resolving: InvalidStateTransition: Cannot transition from Running to Resolving
          delete: InvalidStateTransition: Cannot transition from Running to Resolving
          expire pending: InvalidStateTransition: Cannot transition from Running to Completed
          expire completed: InvalidStateTransition: Cannot transition from Running to Completed
          demote: InvalidStateTransition: Cannot transition from Running to Completed
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }; task changed task Running on cell-1 -> task Completed failed=true "cell disappeared before completion" ""
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
        Completed
          desire: ResourceExists: task task already exists
          place: InvalidStateTransition: Cannot transition from Completed to Pending
          start, same cell: InvalidStateTransition: Cannot transition from Completed to Running
          start, other cell: InvalidStateTransition: Cannot transition from Completed to Running
          complete, same cell: InvalidStateTransition: Cannot transition from Completed to Completed
          complete, other cell: InvalidStateTransition: Cannot transition from Completed to Completed
          cancel: InvalidStateTransition: Cannot transition from Completed to Completed
          reject: InvalidRequest: the request received is invalid
          reject without a reason: InvalidRequest: Invalid field: failure_reason
          reject, same cell: InvalidStateTransition: Cannot transition from Completed to Pending
          reject, other cell: InvalidStateTransition: Cannot transition from Completed to Pending
          resolving: task changed task Completed failed=false "" "42" -> task Resolving failed=false "" "42"
          delete: InvalidStateTransition: Cannot transition from Completed to Resolving
          expire pending: InvalidStateTransition: Cannot transition from Completed to Completed
          expire completed: ResourceConflict: it is not time yet
          demote: InvalidStateTransition: Cannot transition from Completed to Completed
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }
        Resolving
          desire: ResourceExists: task task already exists
          place: InvalidStateTransition: Cannot transition from Resolving to Pending
          start, same cell: InvalidStateTransition: Cannot transition from Resolving to Running
          start, other cell: InvalidStateTransition: Cannot transition from Resolving to Running
          complete, same cell: InvalidStateTransition: Cannot transition from Resolving to Completed
          complete, other cell: InvalidStateTransition: Cannot transition from Resolving to Completed
          cancel: InvalidStateTransition: Cannot transition from Resolving to Completed
          reject: InvalidRequest: the request received is invalid
          reject without a reason: InvalidRequest: Invalid field: failure_reason
          reject, same cell: InvalidStateTransition: Cannot transition from Resolving to Pending
          reject, other cell: InvalidStateTransition: Cannot transition from Resolving to Pending
          resolving: InvalidStateTransition: Cannot transition from Resolving to Resolving
          delete: task removed task Resolving failed=false "" "42"
          expire pending: InvalidStateTransition: Cannot transition from Resolving to Completed
          expire completed: InvalidStateTransition: Cannot transition from Resolving to Completed
          demote: ResourceConflict: it is not time yet
          its cell is missing: cell cell-1 Missing { since: Millis(1000) }
          its cell is emptied: cell cell-1 Present Evacuating { until: Millis(601000) }"#]].assert_eq(&table(scenes, OF_A_TASK));
}

#[test]
fn a_task_that_waited_for_too_long() {
    fn late(cluster: &mut Cluster) {
        cluster.wait(1801);
    }
    let scenes: &[(&str, Scene)] = &[
        ("Pending", |cluster| {
            cluster.accept(desire_task());
            late(cluster);
        }),
        ("Pending, placed", |cluster| {
            task_placed(cluster);
            late(cluster);
        }),
        ("Running", |cluster| {
            task_running(cluster);
            late(cluster);
        }),
        ("Completed", |cluster| {
            task_completed(cluster);
            late(cluster);
        }),
        ("Resolving", |cluster| {
            task_resolving(cluster);
            late(cluster);
        }),
    ];
    let by_time: Vec<(&str, Step)> = OF_A_TASK
        .iter()
        .filter(|(name, _)| name.starts_with("expire") || *name == "demote")
        .copied()
        .collect();
    expect![[r#"
        Pending
          expire pending: task changed task Pending -> task Completed failed=true "not started within time limit" ""
          expire completed: InvalidStateTransition: Cannot transition from Pending to Completed
          demote: InvalidStateTransition: Cannot transition from Pending to Completed
        Pending, placed
          expire pending: task changed task Pending on cell-1 -> task Completed failed=true "not started within time limit" ""
          expire completed: InvalidStateTransition: Cannot transition from Pending to Completed
          demote: InvalidStateTransition: Cannot transition from Pending to Completed
        Running
          expire pending: InvalidStateTransition: Cannot transition from Running to Completed
          expire completed: InvalidStateTransition: Cannot transition from Running to Completed
          demote: InvalidStateTransition: Cannot transition from Running to Completed
        Completed
          expire pending: InvalidStateTransition: Cannot transition from Completed to Completed
          expire completed: task removed task Completed failed=false "" "42"
          demote: InvalidStateTransition: Cannot transition from Completed to Completed
        Resolving
          expire pending: InvalidStateTransition: Cannot transition from Resolving to Completed
          expire completed: InvalidStateTransition: Cannot transition from Resolving to Completed
          demote: task changed task Resolving failed=false "" "42" -> task Completed failed=false "" "42""#]].assert_eq(&table(scenes, &by_time));
}

#[test]
fn a_desired_lrp() {
    let scenes: &[(&str, Scene)] = &[("not desired", |_| {}), ("desired", unclaimed)];
    let steps: &[(&str, Step)] = &[
        ("desire", |_| desire(app(1))),
        ("scale up", |_| scale(2)),
        ("the same scale", |_| scale(1)),
        ("scale down", |_| scale(0)),
        ("remove", |_| Command::RemoveDesiredLrp { process_guid: "app".into() }),
    ];
    expect![[r#"
        not desired
          desire: desired app x1; created app/0 ORDINARY UNCLAIMED
          scale up: ResourceNotFound: desired LRP app could not be found
          the same scale: ResourceNotFound: desired LRP app could not be found
          scale down: ResourceNotFound: desired LRP app could not be found
          remove: ResourceNotFound: desired LRP app could not be found
        desired
          desire: ResourceExists: desired LRP app already exists
          scale up: created app/1 ORDINARY UNCLAIMED; desired app -> x2
          the same scale: desired app -> x1
          scale down: removed app/0 ORDINARY UNCLAIMED; desired app -> x0
          remove: desired app removed; removed app/0 ORDINARY UNCLAIMED"#]]
    .assert_eq(&table(scenes, steps));
}
