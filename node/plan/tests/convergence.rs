//! Convergence, rule by rule (lifecycle.md sections 1.8, 3.3 and 3.5): what time alone makes due,
//! and what is missing.

mod world;

use expect_test::expect;
use model::limits::PROPOSAL_COMMANDS_MAX;
use model::{Command, Millis, Proposal};
use plan::Sightings;
use world::{World, app, cell, check};

#[test]
fn the_first_two_crashes_restart_at_once() {
    check(
        "cell cell-1
         app web
         turn
         run
         crash web/0
         rows
         turn
         run
         crash web/0
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              due in 15001ms
            rows
              web/0 ORDINARY UNCLAIMED
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              place web/0 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn the_third_crash_waits_and_then_longer_and_longer() {
    check(
        "cell cell-1
         app web
         place web/0 cell-1
         crash web/0
         place web/0 cell-1
         crash web/0
         place web/0 cell-1
         crash web/0
         rows
         turn
         wait 29999
         heard cell-1
         turn
         wait 1
         turn
         crash web/0
         turn
         wait 60000
         heard cell-1
         turn",
        expect![[r#"
            rows
              web/0 ORDINARY CRASHED
            turn
              web/0 waits (in 30000ms): crashed 3 times: Exited with status 1
                it restarts by itself; its logs say why it crashes
              due in 15001ms
            turn
              web/0 waits (in 1ms): crashed 3 times: Exited with status 1
                it restarts by itself; its logs say why it crashes
              due in 1ms
            turn
              restart web/0
              place web/0 on cell-1
              due in 15000ms
            turn
              web/0 waits (in 60000ms): crashed 4 times: Exited with status 1
                it restarts by itself; its logs say why it crashes
              due in 15000ms
            turn
              restart web/0
              place web/0 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_healthy_while_starts_the_count_anew() {
    let run_and_crash = "turn\nrun\nwait 300001\nheard cell-1\ncrash web/0\n";
    let mut world = World::new();
    world.run("cell cell-1\napp web");
    for _ in 0..10 {
        world.run(run_and_crash);
    }
    expect![[r#"
        turn
          place web/0 on cell-1
          due in 15001ms
    "#]]
    .assert_eq(&world.run("turn"));
}

#[test]
fn after_two_hundred_crashes_nothing_restarts_by_itself() {
    let mut world = World::new();
    world.run("cell cell-1\napp web");
    for _ in 0..200 {
        world.run("turn\nrun\ncrash web/0\nwait 960000\nheard cell-1");
    }
    expect![[r#"
        turn
          web/0 waits: crashed 200 times: Exited with status 1
            after 200 crashes in a row nothing restarts by itself: restart the app, or push a version that does not crash
          due in 15001ms
        rows
          web/0 ORDINARY CRASHED
    "#]].assert_eq(&world.run("turn\nrows"));
}

#[test]
fn one_crashing_instance_holds_up_no_other() {
    check(
        "cell cell-1
         app web instances=2
         turn
         run
         crash web/0
         turn
         crash web/0
         turn
         crash web/0
         scale web 3
         turn
         rows",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-1
              due in 15001ms
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              place web/2 on cell-1
              web/0 waits (in 30000ms): crashed 3 times: Exited with status 1
                it restarts by itself; its logs say why it crashes
              due in 15001ms
            rows
              web/0 ORDINARY CRASHED
              web/1 ORDINARY RUNNING on cell-1
              web/2 ORDINARY CLAIMED on cell-1
        "#]],
    );
}

#[test]
fn a_retired_instance_is_made_anew_and_placed_in_one_turn() {
    check(
        "cell cell-1
         app web instances=3
         turn
         run
         retire web/1
         rows
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-1
              place web/2 on cell-1
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on cell-1
              web/2 ORDINARY RUNNING on cell-1
            turn
              create web/1
              place web/1 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn an_instance_that_is_gone_is_made_anew() {
    check(
        "cell cell-1
         app web
         turn
         run
         gone web/0
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              create web/0
              place web/0 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn extra_instances_need_no_turn() {
    check(
        "cell cell-1
         app web instances=3
         turn
         run
         scale web 1
         rows
         turn
         delete web
         rows
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-1
              place web/2 on cell-1
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on cell-1
            turn
              due in 15001ms
            rows

            turn
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_grown_app_gets_the_rest() {
    check(
        "cell cell-1
         cell cell-2
         app web
         turn
         run
         scale web 4
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              place web/1 on cell-2
              place web/2 on cell-1
              place web/3 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_cell_is_missing_after_the_presence_ttl_and_not_before() {
    check(
        "cell cell-1
         wait 15000
         turn
         wait 1
         turn
         turn
         heard cell-1
         turn",
        expect![[r#"
            turn
              due in 1ms
            turn
              cell-1 is missing
              nothing due
            turn
              nothing due
            turn
              cell-1 has returned
              due in 15001ms
        "#]],
    );
}

#[test]
fn the_replacements_start_ends_the_suspect() {
    check(
        "cell cell-1
         cell cell-2
         app web
         place web/0 cell-1
         run
         wait 15001
         heard cell-2
         turn
         run
         rows
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              cell-1 is missing
              place web/0 on cell-2
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on cell-2
            turn
              cell-1 has returned
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on cell-2
        "#]],
    );
}

#[test]
fn with_nowhere_to_go_the_suspect_stays_and_is_taken_back() {
    check(
        "cell cell-1
         app web
         turn
         run
         wait 15001
         turn
         rows
         wait 60000
         turn
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              cell-1 is missing
              fail web/0: unable to communicate to compatible cells
              web/0 waits: unable to communicate to compatible cells
                all cells are missing, start one of: cell-1
              nothing due
            rows
              web/0 ORDINARY UNCLAIMED: unable to communicate to compatible cells
              web/0 SUSPECT RUNNING on cell-1
            turn
              web/0 waits: unable to communicate to compatible cells
                all cells are missing, start one of: cell-1
              nothing due
            turn
              cell-1 has returned
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on cell-1
        "#]],
    );
}

#[test]
fn a_replacement_that_is_lost_too_is_replaced_again() {
    check(
        "cell cell-1
         cell cell-2
         cell cell-3
         app web
         place web/0 cell-1
         run
         wait 15001
         heard cell-2 cell-3
         turn
         wait 15001
         heard cell-3
         turn
         rows
         run
         rows",
        expect![[r#"
            turn
              cell-1 is missing
              place web/0 on cell-2
              due in 15001ms
            turn
              cell-2 is missing
              place web/0 on cell-3
              due in 15001ms
            rows
              web/0 ORDINARY CLAIMED on cell-3
              web/0 SUSPECT RUNNING on cell-1
            rows
              web/0 ORDINARY RUNNING on cell-3
        "#]],
    );
}

#[test]
fn a_new_leader_loses_no_cell() {
    let mut world = World::new();
    world.run("cell cell-1\ncell cell-2\napp web instances=2\nturn\nrun\nwait 600000");
    world.sightings = Sightings::new(world.now);
    expect![[r#"
        turn
          due in 15001ms
        turn
          due in 1ms
        turn
          cell-1 is missing
          place web/0 on cell-2
          due in 15000ms
    "#]]
    .assert_eq(&world.run("turn\nwait 15000\nheard cell-2\nturn\nwait 1\nturn"));
}

#[test]
fn a_task_is_placed_runs_and_is_forgotten() {
    check(
        "cell cell-1
         task job
         turn
         run
         turn
         wait 1000
         heard cell-1
         finish job
         turn
         wait 119999
         heard cell-1
         turn
         wait 2
         turn
         rows",
        expect![[r#"
            turn
              place job on cell-1
              due in 15001ms
            turn
              due in 15001ms
            turn
              due in 15001ms
            turn
              due in 2ms
            turn
              ExpireCompletedTask { task_guid: "job" }
              due in 14999ms
            rows

        "#]],
    );
}

#[test]
fn a_rejected_task_rests_and_fails_with_the_fourth_rejection() {
    check(
        "cell cell-1 memory=50
         task job
         turn
         turn
         wait 29999
         heard cell-1
         turn
         wait 1
         turn
         wait 30000
         heard cell-1
         turn
         rows
         wait 30000
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              reject job: insufficient resources: memory
              job waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
            turn
              job waits (in 30000ms): insufficient resources: memory
                rejected once; it is tried again by itself, and fails when rejected 4 times
              due in 15001ms
            turn
              job waits (in 1ms): insufficient resources: memory
                rejected once; it is tried again by itself, and fails when rejected 4 times
              due in 1ms
            turn
              reject job: insufficient resources: memory
              job waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15000ms
            turn
              reject job: insufficient resources: memory
              job waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
            rows
              job Pending
            turn
              reject job: insufficient resources: memory
              job waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
            rows
              job Completed: "insufficient resources: memory"
        "#]],
    );
}

#[test]
fn a_task_that_could_not_be_made_is_tried_again_after_a_rest() {
    check(
        "cell cell-1
         task job
         turn
         run
         fail-to-make job
         turn
         wait 30000
         heard cell-1
         turn",
        expect![[r#"
            turn
              place job on cell-1
              due in 15001ms
            turn
              job waits (in 30000ms): failed to create container: no image
                rejected once; it is tried again by itself, and fails when rejected 4 times
              due in 15001ms
            turn
              place job on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_task_nobody_starts_fails_after_half_an_hour() {
    check(
        "cell cell-1
         task job
         turn
         wait 1800000
         heard cell-1
         turn
         wait 1
         turn
         rows",
        expect![[r#"
            turn
              place job on cell-1
              due in 15001ms
            turn
              due in 1ms
            turn
              ExpirePendingTask { task_guid: "job" }
              due in 15000ms
            rows
              job Completed: "not started within time limit"
        "#]],
    );
}

#[test]
fn a_task_nobody_finishes_resolving_is_completed_again_and_forgotten_in_time() {
    check(
        "cell cell-1
         task job
         turn
         run
         finish job
         resolve job
         turn
         wait 30001
         heard cell-1
         turn
         rows
         resolve job
         wait 120000
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              place job on cell-1
              due in 15001ms
            turn
              due in 15001ms
            turn
              DemoteResolvingTask { task_guid: "job" }
              due in 15001ms
            rows
              job Completed: ""
            turn
              DemoteResolvingTask { task_guid: "job" }
              ExpireCompletedTask { task_guid: "job" }
              due in 15001ms
            rows

        "#]],
    );
}

#[test]
fn a_lost_cells_task_fails_if_it_had_started_and_moves_if_not() {
    check(
        "cell cell-1
         task started
         turn
         run
         task placed
         turn
         cell cell-2
         wait 15001
         heard cell-2
         turn
         rows",
        expect![[r#"
            turn
              place started on cell-1
              due in 15001ms
            turn
              place placed on cell-1
              due in 15001ms
            turn
              cell-1 is missing
              place placed on cell-2
              due in 15001ms
            rows
              placed Pending on cell-2
              started Completed: "cell disappeared before completion"
        "#]],
    );
}

#[test]
fn a_domain_expires_when_nobody_refreshes_it() {
    check(
        "domain d 60
         wait 59999
         turn
         wait 1
         turn
         turn",
        expect![[r#"
            turn
              due in 1ms
            turn
              ExpireDomain { domain: "d" }
              nothing due
            turn
              nothing due
        "#]],
    );
}

#[test]
fn a_turn_is_one_proposal_and_the_next_is_due_at_once() {
    let mut world = World::new();
    let capacity = model::Capacity { memory_mb: u32::MAX, disk_mb: u32::MAX, containers: 100_000 };
    world.accept(Command::RegisterCell {
        cell: Box::new(model::Cell { capacity, ..cell("cell-1") }),
    });
    let instances = i32::try_from(PROPOSAL_COMMANDS_MAX).expect("it is small") + 1;
    let desired_lrp = model::DesiredLrp { instances, ..app("web") };
    world.accept(Command::DesireLrp { desired_lrp: Box::new(desired_lrp) });

    let first = world.plan();
    assert_eq!(first.commands.len(), PROPOSAL_COMMANDS_MAX);
    assert_eq!(first.next_due, Some(world.now));
    world.propose(first.commands);
    let left: Vec<u32> =
        first.report.explain_lrps(&world.state, &"web".into()).iter().map(|(at, _)| *at).collect();
    assert_eq!(left.len(), 1, "what the turn did not come to says so: {left:?}");

    let second = world.plan();
    assert_eq!(second.commands.len(), 1);
    assert!(second.report.is_empty());
    assert_eq!(second.next_due, Some(world.now + Millis(15_001)));
    world.propose(second.commands);

    assert!(world.plan().commands.is_empty());
}

#[test]
fn losers_with_long_reasons_do_not_outgrow_a_proposal() {
    let mut world = World::new();
    world.accept(Command::RegisterCell { cell: Box::new(cell("cell-1")) });
    let placement_tags: Vec<String> = (0..10).map(|at| format!("{at}{}", "x".repeat(99))).collect();
    let desired_lrp = model::DesiredLrp { instances: 8000, placement_tags, ..app("web") };
    world.accept(Command::DesireLrp { desired_lrp: Box::new(desired_lrp) });
    let mut turns = 0;
    loop {
        let plan = world.plan();
        if plan.commands.is_empty() {
            break;
        }
        let proposal = Proposal { at: world.now, commands: plan.commands.clone() };
        assert!(model::codec::encode_proposal(&proposal).len() < 4 << 20);
        world.propose(plan.commands);
        turns += 1;
    }
    assert!(turns > 1, "there was too much for one turn");
}

#[test]
fn the_same_arguments_give_the_same_plan() {
    let mut world = World::new();
    world.run(
        "cell cell-1 zone=a
         cell cell-2 zone=b memory=300
         cell cell-3 zone=b tags=gpu
         app web instances=7
         app gpu tags=gpu instances=2
         app huge memory=9000
         task job",
    );
    assert_eq!(world.plan(), world.plan());
}

#[test]
fn a_client_that_wants_to_be_told_is_told_until_it_has_been_or_for_too_long() {
    check(
        "cell cell-1
         task job callback=http://client
         task quiet
         turn
         run
         finish job
         finish quiet
         turn
         rows
         turn
         wait 30001
         heard cell-1
         turn
         rows
         wait 90000
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              place job on cell-1
              place quiet on cell-1
              due in 15001ms
            turn
              ResolvingTask { task_guid: "job" }
              due in 15001ms
            rows
              job Resolving: ""
              quiet Completed: ""
            turn
              due in 15001ms
            turn
              DemoteResolvingTask { task_guid: "job" }
              ResolvingTask { task_guid: "job" }
              due in 15001ms
            rows
              job Resolving: ""
              quiet Completed: ""
            turn
              DemoteResolvingTask { task_guid: "job" }
              ExpireCompletedTask { task_guid: "job" }
              ExpireCompletedTask { task_guid: "quiet" }
              due in 15001ms
            rows

        "#]],
    );
}

#[test]
fn callbacks_begin_as_there_is_room_for_them_those_first_that_wait_longest() {
    check(
        "cell cell-1
         task a callback=http://client
         task b callback=http://client
         task c callback=http://client
         turn
         run
         finish c
         wait 1
         finish a
         finish b
         settings callbacks=2
         turn
         settings callbacks=0
         turn
         settings callbacks=1
         forget c
         turn",
        expect![[r#"
            turn
              place a on cell-1
              place b on cell-1
              place c on cell-1
              due in 15001ms
            turn
              ResolvingTask { task_guid: "c" }
              ResolvingTask { task_guid: "a" }
              due in 100ms
            turn
              due in 100ms
            turn
              ResolvingTask { task_guid: "b" }
              due in 15000ms
        "#]],
    );
}
