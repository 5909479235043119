//! Evacuation, row by row of lifecycle.md section 4.2.

use super::*;
use crate::desired_lrp::UpdateStrategy;

fn evacuate(cell: &str) -> Command {
    Command::EvacuateCell { cell_id: cell.into(), timeout: Millis::from_secs(600) }
}

fn open(cell: &str) -> Command {
    Command::OpenCell { cell_id: cell.into() }
}

fn close(cell: &str) -> Command {
    Command::CloseCell { cell_id: cell.into() }
}

fn recreate(index: u32) -> Command {
    Command::RecreateLrp { process_guid: "app".into(), index }
}

/// One instance that runs on cell-1.
fn running() -> (Cluster, InstanceKey) {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let instance = cluster.run(0, "cell-1");
    (cluster, instance)
}

#[test]
fn what_runs_becomes_a_copy_until_its_replacement_runs() {
    let (mut cluster, old) = running();
    cluster.check(
        evacuate("cell-1"),
        expect![[r#"
        cell cell-1 Present Evacuating { until: Millis(601000) }
        changed app/0 ORDINARY RUNNING on cell-1 -> app/0 EVACUATING RUNNING on cell-1
        created app/0 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(place(0, "cell-1"), expect!["ResourceConflict: cell cell-1 is not taking work"]);
    let new = cluster.place(0, "cell-2");
    cluster.check(start(0, &old), expect!["ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is CLAIMED as 0000feed-0000-0000-000a-0000 on cell-2"]);
    cluster.check(
        start(0, &new),
        expect![[r#"
        changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY RUNNING on cell-2
        removed app/0 EVACUATING RUNNING on cell-1"#]],
    );
}

#[test]
fn what_does_not_run_yet_goes_at_once() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let instance = cluster.place(0, "cell-1");
    cluster.check(
        evacuate("cell-1"),
        expect![[r#"
        cell cell-1 Present Evacuating { until: Millis(601000) }
        changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(
        start(0, &instance),
        expect!["ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is UNCLAIMED"],
    );
}

#[test]
fn tasks_run_on_and_what_had_not_started_goes_elsewhere() {
    let mut cluster = Cluster::new();
    cluster.accept(desire_task());
    cluster.accept(place_task("cell-1"));
    cluster.check(
        evacuate("cell-1"),
        expect![[r#"
        cell cell-1 Present Evacuating { until: Millis(601000) }
        task changed task Pending on cell-1 -> task Pending"#]],
    );
    cluster.accept(open("cell-1"));
    cluster.accept(place_task("cell-1"));
    cluster.accept(Command::StartTask { task_guid: "task".into(), cell_id: "cell-1".into() });
    cluster.check(
        evacuate("cell-1"),
        expect!["cell cell-1 Present Evacuating { until: Millis(601000) }"],
    );
    cluster.wait(600);
    cluster.check(close("cell-1"), expect![[r#"
        cell cell-1 Present Closed
        task changed task Running on cell-1 -> task Completed failed=true "cell disappeared before completion" """#]]);
}

#[test]
fn a_copy_that_ends_is_gone() {
    let (mut cluster, old) = running();
    cluster.accept(evacuate("cell-1"));
    let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "cf-apps".into() };
    cluster.check(
        Command::RemoveLrp { key, instance: old },
        expect!["removed app/0 EVACUATING RUNNING on cell-1"],
    );
}

#[test]
fn a_replacement_that_rests_after_its_crashes_lets_the_copy_go() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    for crash in 1..=3 {
        let new = cluster.place(0, "cell-2");
        let expected = match crash {
            1 => expect![[r#"
                crashed app/0 #1 "Exited with status 1"
                changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED"#]],
            2 => expect![[r#"
                crashed app/0 #2 "Exited with status 1"
                changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY UNCLAIMED"#]],
            _ => expect![[r#"
                crashed app/0 #3 "Exited with status 1"
                changed app/0 ORDINARY CLAIMED on cell-2 -> app/0 ORDINARY CRASHED
                removed app/0 EVACUATING RUNNING on cell-1"#]],
        };
        let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "cf-apps".into() };
        let reason = "Exited with status 1".to_owned();
        cluster.check(Command::CrashLrp { key, instance: new, reason }, expected);
    }
}

#[test]
fn nobody_keeps_copies_of_what_is_not_desired_any_more() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    cluster.check(
        scale(0),
        expect![[r#"
        removed app/0 ORDINARY UNCLAIMED
        removed app/0 EVACUATING RUNNING on cell-1
        desired app -> x0"#]],
    );
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    let process_guid = "app".into();
    cluster.check(
        Command::RemoveDesiredLrp { process_guid },
        expect![[r#"
        desired app removed
        removed app/0 ORDINARY UNCLAIMED
        removed app/0 EVACUATING RUNNING on cell-1"#]],
    );
}

#[test]
fn the_deadline_ends_what_is_left() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    cluster.wait(599);
    cluster.check(close("cell-1"), expect!["ResourceConflict: it is not time yet"]);
    cluster.wait(1);
    cluster.check(
        close("cell-1"),
        expect![[r#"
        cell cell-1 Present Closed
        removed app/0 EVACUATING RUNNING on cell-1"#]],
    );
    cluster.check(close("cell-1"), expect![[r#""#]]);
    cluster.check(place(0, "cell-1"), expect!["ResourceConflict: cell cell-1 is not taking work"]);
    cluster.accept(open("cell-1"));
    cluster.check(
        place(0, "cell-1"),
        expect!["changed app/0 ORDINARY UNCLAIMED -> app/0 ORDINARY CLAIMED on cell-1"],
    );
}

#[test]
fn asked_again_it_moves_the_end_and_nothing_else() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    cluster.wait(10);
    cluster.check(
        evacuate("cell-1"),
        expect!["cell cell-1 Present Evacuating { until: Millis(611000) }"],
    );
    cluster
        .check(evacuate("nowhere"), expect!["ResourceNotFound: cell nowhere could not be found"]);
    cluster.accept(missing("cell-2"));
    cluster.check(evacuate("cell-2"), expect!["ResourceConflict: cell cell-2 is not taking work"]);
}

#[test]
fn an_opened_cell_keeps_what_nothing_has_replaced() {
    let (mut cluster, old) = running();
    cluster.accept(evacuate("cell-1"));
    let new = cluster.place(0, "cell-2");
    cluster.check(
        open("cell-1"),
        expect![[r#"
        cell cell-1 Present
        removed app/0 ORDINARY CLAIMED on cell-2
        changed app/0 EVACUATING RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1"#]],
    );
    cluster.check(start(0, &new), expect!["ActualLRPCannotBeStarted: cannot start actual LRP app/0: it is RUNNING as 0000feed-0000-0000-0006-0000 on cell-1"]);
    cluster.check(start(0, &old), expect![[r#""#]]);
    cluster.check(open("cell-1"), expect![[r#""#]]);
}

#[test]
fn a_lost_cell_takes_its_copies_along() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    cluster.check(
        missing("cell-1"),
        expect![[r#"
        cell cell-1 Missing { since: Millis(1000) } Evacuating { until: Millis(601000) }
        removed app/0 EVACUATING RUNNING on cell-1"#]],
    );
    cluster.check(
        returned("cell-1"),
        expect!["cell cell-1 Present Evacuating { until: Millis(601000) }"],
    );
}

#[test]
fn suspects_that_return_to_an_evacuated_cell_are_copies() {
    let mut cluster = Cluster::new();
    let strategy = UpdateStrategy::Recreate;
    cluster.accept(desire(DesiredLrp { update_strategy: strategy, ..app(1) }));
    let _ = cluster.run(0, "cell-1");
    cluster.accept(evacuate("cell-1"));
    cluster.accept(missing("cell-1"));
    cluster.check(
        returned("cell-1"),
        expect![[r#"
            cell cell-1 Present Evacuating { until: Millis(601000) }
            removed app/0 ORDINARY UNCLAIMED
            changed app/0 SUSPECT RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1"#]],
    );
}

#[test]
fn what_must_not_run_twice_waits_until_all_others_run() {
    let mut cluster = Cluster::new();
    let strategy = UpdateStrategy::Recreate;
    cluster.accept(desire(DesiredLrp { update_strategy: strategy, ..app(2) }));
    let _ = cluster.run(0, "cell-1");
    cluster.check(
        evacuate("cell-1"),
        expect!["cell cell-1 Present Evacuating { until: Millis(601000) }"],
    );
    cluster.check(recreate(0), expect!["ResourceConflict: it is not time yet"]);
    let _ = cluster.run(1, "cell-2");
    cluster.check(recreate(1), expect!["ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/1: it is RUNNING as 0000feed-0000-0000-000a-0000 on cell-2"]);
    cluster.check(
        recreate(0),
        expect!["changed app/0 ORDINARY RUNNING on cell-1 -> app/0 ORDINARY UNCLAIMED"],
    );
    cluster.check(
        recreate(0),
        expect!["ActualLRPCannotBeUnclaimed: cannot unclaim actual LRP app/0: it is UNCLAIMED"],
    );
}

fn evacuate_one(instance: &InstanceKey, runs: bool) -> Command {
    let key = ActualLrpKey { process_guid: "app".into(), index: 0, domain: "cf-apps".into() };
    Command::EvacuateLrp { key, instance: instance.clone(), runs }
}

#[test]
fn one_that_runs_is_copied_and_its_cell_goes_on() {
    let (mut cluster, old) = running();
    cluster.check(
        evacuate_one(&old, true),
        expect![[r#"
        changed app/0 ORDINARY RUNNING on cell-1 -> app/0 EVACUATING RUNNING on cell-1
        created app/0 ORDINARY UNCLAIMED"#]],
    );
    cluster.check(evacuate_one(&old, true), expect![[""]]);
    let new = cluster.place(0, "cell-1");
    cluster.check(
        start(0, &new),
        expect![[r#"
        changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY RUNNING on cell-1
        removed app/0 EVACUATING RUNNING on cell-1"#]],
    );
    cluster.check(
        evacuate_one(&old, true),
        expect!["ResourceNotFound: actual LRP app/0 could not be found"],
    );
}

#[test]
fn one_that_does_not_run_waits_again_with_its_crashes() {
    let mut cluster = Cluster::new();
    cluster.accept(desire(app(1)));
    let first = cluster.place(0, "cell-1");
    cluster.accept(crash(0, &first));
    let second = cluster.place(0, "cell-1");
    cluster.check(
        evacuate_one(&first, false),
        expect!["ResourceNotFound: actual LRP app/0 could not be found"],
    );
    cluster.check(
        evacuate_one(&second, true),
        expect!["changed app/0 ORDINARY CLAIMED on cell-1 -> app/0 ORDINARY UNCLAIMED"],
    );
    let third = cluster.run(0, "cell-2");
    cluster.check(
        evacuate_one(&third, false),
        expect!["changed app/0 ORDINARY RUNNING on cell-2 -> app/0 ORDINARY UNCLAIMED"],
    );
    let row = cluster.state.actual_lrps().next().expect("one row");
    assert_eq!(row.crash_count, 1);
}

#[test]
fn one_that_must_not_run_twice_ends_once_all_others_run() {
    let mut cluster = Cluster::new();
    let strategy = UpdateStrategy::Recreate;
    cluster.accept(desire(DesiredLrp { update_strategy: strategy, ..app(2) }));
    let old = cluster.run(0, "cell-1");
    cluster.check(evacuate_one(&old, true), expect!["ResourceConflict: it is not time yet"]);
    let _ = cluster.run(1, "cell-2");
    cluster.check(
        evacuate_one(&old, true),
        expect!["changed app/0 ORDINARY RUNNING on cell-1 -> app/0 ORDINARY UNCLAIMED"],
    );
}

#[test]
fn what_is_not_heard_is_not_moved() {
    let (mut cluster, old) = running();
    cluster.accept(missing("cell-1"));
    cluster.check(evacuate_one(&old, true), expect![[""]]);
    cluster.check(evacuate_one(&old, false), expect![[""]]);
}

/// Found by the simulator: the suspect's return would have taken the place of what runs.
#[test]
fn a_copy_that_stays_after_all_has_no_suspect() {
    let (mut cluster, _) = running();
    cluster.accept(evacuate("cell-1"));
    cluster.place(0, "cell-2");
    cluster.accept(missing("cell-2"));
    cluster.check(
        open("cell-1"),
        expect![[r#"
        cell cell-1 Present
        removed app/0 ORDINARY UNCLAIMED
        changed app/0 EVACUATING RUNNING on cell-1 -> app/0 ORDINARY RUNNING on cell-1
        removed app/0 SUSPECT CLAIMED on cell-2"#]],
    );
    cluster.check(returned("cell-2"), expect!["cell cell-2 Present"]);
}
