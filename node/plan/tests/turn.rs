//! The leader's turn, told as scripts: what is there, and what the turn decides and says.

mod world;

use expect_test::expect;
use world::check;

#[test]
fn nothing_to_do_is_nothing_planned() {
    check(
        "turn",
        expect![[r#"
        turn
          nothing due
    "#]],
    );
    check(
        "cell cell-1
         turn",
        expect![[r#"
            turn
              due in 15001ms
        "#]],
    );
}

#[test]
fn instances_of_one_app_spread_over_cells() {
    check(
        "cell cell-1
         cell cell-2
         cell cell-3
         app web instances=5
         turn
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-2
              place web/2 on cell-3
              place web/3 on cell-1
              place web/4 on cell-2
              due in 15001ms
            turn
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_lost_cells_work_goes_elsewhere_in_one_round() {
    check(
        "cell cell-1
         cell cell-2
         app web instances=2
         task job
         turn
         run
         wait 15000
         heard cell-2
         turn
         wait 1
         turn
         rows
         heard cell-1
         turn
         rows",
        expect![[r#"
            turn
              place web/0 on cell-1
              place job on cell-2
              place web/1 on cell-2
              due in 15001ms
            turn
              due in 1ms
            turn
              cell-1 is missing
              place web/0 on cell-2
              due in 15000ms
            rows
              web/0 ORDINARY CLAIMED on cell-2
              web/0 SUSPECT RUNNING on cell-1
              web/1 ORDINARY RUNNING on cell-2
              job Running on cell-2
            turn
              cell-1 has returned
              due in 15000ms
            rows
              web/0 ORDINARY RUNNING on cell-1
              web/1 ORDINARY RUNNING on cell-2
              job Running on cell-2
        "#]],
    );
}
