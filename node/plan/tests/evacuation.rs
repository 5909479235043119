//! Evacuation, told by scripts (lifecycle.md section 4).

mod world;

use expect_test::expect;
use world::check;

#[test]
fn what_rolls_is_placed_elsewhere_in_one_turn() {
    check(
        "cell cell-1
         cell cell-2
         app web instances=2
         turn
         run
         evacuate cell-1
         turn
         rows
         run
         rows
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-2
              due in 15001ms
            turn
              place web/0 on cell-2
              due in 15001ms
            rows
              web/0 ORDINARY CLAIMED on cell-2
              web/0 EVACUATING RUNNING on cell-1
              web/1 ORDINARY RUNNING on cell-2
            rows
              web/0 ORDINARY RUNNING on cell-2
              web/1 ORDINARY RUNNING on cell-2
            turn
              due in 15001ms
        "#]],
    );
}

#[test]
fn what_must_not_run_twice_goes_one_by_one() {
    check(
        "cell cell-1
         app web instances=2 update=recreate
         turn
         run
         cell cell-2
         evacuate cell-1
         turn
         turn
         run
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-1
              due in 15001ms
            turn
              RecreateLrp { process_guid: "web", index: 0 }
              place web/0 on cell-2
              due in 15001ms
            turn
              due in 15001ms
            turn
              RecreateLrp { process_guid: "web", index: 1 }
              place web/1 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn what_finds_no_room_stays_until_the_time_is_up() {
    check(
        "cell cell-1
         app web
         turn
         run
         evacuate cell-1
         turn
         wait 599999
         heard cell-1
         turn
         wait 1
         turn
         rows",
        expect![[r#"
            turn
              place web/0 on cell-1
              due in 15001ms
            turn
              fail web/0: unable to communicate to compatible cells
              web/0 waits: unable to communicate to compatible cells
                all present cells are evacuated, open one of: cell-1
              due in 15001ms
            turn
              web/0 waits: unable to communicate to compatible cells
                all present cells are evacuated, open one of: cell-1
              due in 1ms
            turn
              CloseCell { cell_id: "cell-1" }
              web/0 waits: unable to communicate to compatible cells
                all present cells are evacuated, open one of: cell-1
              due in 15000ms
            rows
              web/0 ORDINARY UNCLAIMED: unable to communicate to compatible cells
        "#]],
    );
}
