//! The auction, rule by rule (auction.md): who goes where, in which order, and what losers hear.

mod world;

use expect_test::expect;
use world::check;

#[test]
fn the_emptier_cell_wins() {
    check(
        "cell cell-1
         cell cell-2
         app old memory=500
         place old/0 cell-1
         run
         app new
         turn",
        expect![[r#"
            turn
              place new/0 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn emptiness_is_a_share_of_the_cell_and_not_an_amount() {
    check(
        "cell large memory=10000
         cell small memory=1000
         app old memory=2000
         place old/0 large
         run
         app a
         app b
         app c
         app d
         turn",
        expect![[r#"
            turn
              place a/0 on small
              place b/0 on large
              place c/0 on small
              place d/0 on large
              due in 15001ms
        "#]],
    );
}

#[test]
fn disk_and_containers_count_as_much_as_memory() {
    check(
        "cell cell-1
         cell cell-2
         app disk disk=5000 memory=0
         app memory disk=0 memory=400
         place disk/0 cell-1
         place memory/0 cell-2
         run
         app new
         turn",
        expect![[r#"
            turn
              place new/0 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn what_is_starting_weighs_on_a_cell() {
    check(
        "cell cell-1
         cell cell-2
         app starting memory=0 disk=0
         app running memory=300 disk=0
         place running/0 cell-2
         run
         place starting/0 cell-1
         app new
         turn",
        expect![[r#"
            turn
              place new/0 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn equals_are_decided_by_name() {
    check(
        "cell c
         cell a
         cell b
         app one
         turn",
        expect![[r#"
            turn
              place one/0 on a
              due in 15001ms
        "#]],
    );
}

#[test]
fn an_app_goes_where_least_of_it_is_however_full_that_cell() {
    check(
        "cell cell-1 memory=1000
         cell cell-2 memory=1000
         app web instances=2
         app other memory=800
         place web/0 cell-1
         place other/0 cell-2
         run
         turn",
        expect![[r#"
            turn
              place web/1 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn instances_spread_over_zones_before_cells() {
    check(
        "cell a-1 zone=a
         cell a-2 zone=a
         cell a-3 zone=a
         cell b-1 zone=b
         app web instances=4
         turn
         run
         rows",
        expect![[r#"
            turn
              place web/0 on a-1
              place web/1 on b-1
              place web/2 on a-2
              place web/3 on b-1
              due in 15001ms
            rows
              web/0 ORDINARY RUNNING on a-1
              web/1 ORDINARY RUNNING on b-1
              web/2 ORDINARY RUNNING on a-2
              web/3 ORDINARY RUNNING on b-1
        "#]],
    );
}

#[test]
fn a_zone_without_room_leaves_the_rest_to_the_others() {
    check(
        "cell a-1 zone=a
         cell a-2 zone=a
         cell b-1 zone=b containers=1
         app web instances=5
         turn",
        expect![[r#"
            turn
              place web/0 on a-1
              place web/1 on b-1
              place web/2 on a-2
              place web/3 on a-1
              place web/4 on a-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn tasks_ignore_zones() {
    check(
        "cell a-1 zone=a
         cell a-2 zone=a
         cell b-1 zone=b
         task one
         task two
         turn",
        expect![[r#"
            turn
              place one on a-1
              place two on a-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn tasks_go_where_the_fewest_tasks_are() {
    check(
        "cell cell-1
         cell cell-2
         app full memory=800
         place full/0 cell-2
         run
         task one memory=50
         task two memory=50
         task three memory=50
         turn",
        expect![[r#"
            turn
              place one on cell-1
              place three on cell-2
              place two on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn first_instances_come_before_tasks_and_those_before_the_rest() {
    check(
        "cell cell-1 containers=4
         app web instances=3
         app api
         task job
         turn",
        expect![[r#"
            turn
              place api/0 on cell-1
              place web/0 on cell-1
              place job on cell-1
              place web/1 on cell-1
              fail web/2: insufficient resources: containers
              web/2 waits: insufficient resources: containers
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 600 MiB of memory and 9600 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn tasks_come_first_where_there_are_only_first_instances() {
    // Diego's cut falls at the start then (auction.md section 3).
    check(
        "cell cell-1 containers=1
         app web
         task job
         turn",
        expect![[r#"
            turn
              place job on cell-1
              fail web/0: insufficient resources: containers
              web/0 waits: insufficient resources: containers
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 900 MiB of memory and 9900 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn among_equal_indices_the_larger_comes_first() {
    check(
        "cell cell-1 memory=1000
         app small memory=200
         app large memory=900
         app other memory=100
         turn",
        expect![[r#"
            turn
              place large/0 on cell-1
              place other/0 on cell-1
              fail small/0: insufficient resources: memory
              small/0 waits: insufficient resources: memory
                it asks for 200 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9800 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
    check(
        "cell cell-1 memory=1000
         task small memory=200
         wait 1
         task large memory=900
         wait 1
         task other memory=100
         turn",
        expect![[r#"
            turn
              place large on cell-1
              place other on cell-1
              reject small: insufficient resources: memory
              small waits: insufficient resources: memory
                it asks for 200 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9800 MiB of disk: add a cell, or ask for less
              due in 14999ms
        "#]],
    );
}

#[test]
fn what_does_not_fit_holds_up_nothing_smaller() {
    check(
        "cell cell-1 memory=1000
         app huge memory=5000 instances=2
         app web memory=500 instances=2
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place web/1 on cell-1
              fail huge/0: insufficient resources: memory
              fail huge/1: insufficient resources: memory
              huge/0 waits: insufficient resources: memory
                it asks for 5000 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9800 MiB of disk: add a cell, or ask for less
              huge/1 waits: insufficient resources: memory
                it asks for 5000 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9800 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_cell_is_filled_to_the_last() {
    check(
        "cell memory memory=200 disk=9000 containers=9
         cell disk memory=9000 disk=200 containers=9
         cell containers memory=9000 disk=9000 containers=2
         app web instances=7
         turn",
        expect![[r#"
            turn
              place web/0 on containers
              place web/1 on disk
              place web/2 on memory
              place web/3 on containers
              place web/4 on disk
              place web/5 on memory
              fail web/6: insufficient resources
              web/6 waits: insufficient resources
                it asks for 100 MiB of memory and 100 MiB of disk; of 3 suitable cells none has both and a container free, the most on one being 8800 MiB of memory and 8800 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn nothing_goes_to_a_missing_cell() {
    check(
        "cell cell-1
         cell cell-2
         wait 15001
         heard cell-2
         app web instances=2
         turn",
        expect![[r#"
            turn
              cell-1 is missing
              place web/0 on cell-2
              place web/1 on cell-2
              due in 15001ms
        "#]],
    );
}

#[test]
fn without_a_cell_nobody_can_be_asked() {
    check(
        "app web
         task job
         turn",
        expect![[r#"
            turn
              fail web/0: unable to communicate to compatible cells
              reject job: unable to communicate to compatible cells
              web/0 waits: unable to communicate to compatible cells
                no cell has registered yet: start one
              job waits: unable to communicate to compatible cells
                no cell has registered yet: start one
              due in 30000ms
        "#]],
    );
    check(
        "cell cell-1
         wait 15001
         app web
         turn",
        expect![[r#"
            turn
              cell-1 is missing
              fail web/0: unable to communicate to compatible cells
              web/0 waits: unable to communicate to compatible cells
                all cells are missing, start one of: cell-1
              nothing due
        "#]],
    );
}

#[test]
fn a_root_file_system_needs_its_provider() {
    check(
        "cell cell-1 roots=docker
         cell cell-2 roots=docker,preloaded
         app stack root=preloaded instances=2
         app image instances=2
         app strange root=warm
         task job root=warm
         turn",
        expect![[r#"
            turn
              place image/0 on cell-1
              place stack/0 on cell-2
              place image/1 on cell-2
              place stack/1 on cell-2
              fail strange/0: found no compatible cell for required rootfs
              reject job: found no compatible cell for required rootfs
              strange/0 waits: found no compatible cell for required rootfs
                the root file system is "warm:///library/app", and the present cells offer: docker:..., preloaded:...
              job waits: found no compatible cell for required rootfs
                the root file system is "warm:///library/app", and the present cells offer: docker:..., preloaded:...
              due in 15001ms
        "#]],
    );
}

#[test]
fn required_tags_keep_others_out() {
    check(
        "cell plain
         cell tagged tags=gpu
         app any instances=3
         app gpu tags=gpu instances=2
         turn",
        expect![[r#"
            turn
              place any/0 on plain
              place gpu/0 on tagged
              place any/1 on plain
              place gpu/1 on tagged
              place any/2 on plain
              due in 15001ms
        "#]],
    );
}

#[test]
fn optional_tags_let_both_in() {
    check(
        "cell plain
         cell tagged optional=gpu
         app any instances=2
         app gpu tags=gpu instances=2
         turn",
        expect![[r#"
            turn
              place any/0 on plain
              place gpu/0 on tagged
              place any/1 on tagged
              place gpu/1 on tagged
              due in 15001ms
        "#]],
    );
}

#[test]
fn all_required_tags_must_be_asked_for_and_none_unknown() {
    check(
        "cell cell-1 tags=gpu,ssd optional=arm
         app one tags=gpu
         app both tags=ssd,gpu
         app all tags=gpu,ssd,arm
         app more tags=gpu,ssd,fpga
         turn",
        expect![[r#"
            turn
              place all/0 on cell-1
              place both/0 on cell-1
              fail more/0: found no compatible cell with placement tags "gpu", "ssd" and "fpga"
              fail one/0: found no compatible cell with placement tag "gpu"
              more/0 waits: found no compatible cell with placement tags "gpu", "ssd" and "fpga"
                the present cells have: required tags ["gpu", "ssd"] and optional tags ["arm"]
              one/0 waits: found no compatible cell with placement tag "gpu"
                the present cells have: required tags ["gpu", "ssd"] and optional tags ["arm"]
              due in 15001ms
        "#]],
    );
}

#[test]
fn who_has_no_tags_and_finds_only_tagged_cells_hears_so() {
    check(
        "cell cell-1 tags=gpu
         app web
         turn",
        expect![[r#"
            turn
              fail web/0: found no compatible cell with no placement tags
              web/0 waits: found no compatible cell with no placement tags
                the present cells have: required tags ["gpu"]
              due in 15001ms
        "#]],
    );
}

#[test]
fn the_reason_is_that_of_the_cell_that_came_furthest() {
    check(
        "cell cell-1 roots=preloaded tags=gpu
         cell cell-2 roots=docker tags=ssd
         app web tags=gpu
         turn",
        expect![[r#"
            turn
              fail web/0: found no compatible cell with placement tag "gpu"
              web/0 waits: found no compatible cell with placement tag "gpu"
                the present cells have: required tags ["gpu"], required tags ["ssd"]
              due in 15001ms
        "#]],
    );
    check(
        "cell cell-1 roots=preloaded
         cell cell-2 tags=ssd
         cell cell-3 memory=50
         app web
         turn",
        expect![[r#"
            turn
              fail web/0: insufficient resources: memory
              web/0 waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn what_is_short_on_every_cell_is_named() {
    check(
        "cell cell-1 memory=50 disk=50
         cell cell-2 memory=50 disk=50
         app web
         turn",
        expect![[r#"
            turn
              fail web/0: insufficient resources: disk, memory
              web/0 waits: insufficient resources: disk, memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 2 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 50 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
    check(
        "cell cell-1 containers=1
         app old
         place old/0 cell-1
         app new
         turn",
        expect![[r#"
            turn
              fail new/0: insufficient resources: containers
              new/0 waits: insufficient resources: containers
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 900 MiB of memory and 9900 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn what_is_short_on_some_cells_only_is_not_named() {
    check(
        "cell cell-1 memory=50
         cell cell-2 disk=50
         app web
         turn",
        expect![[r#"
            turn
              fail web/0: insufficient resources
              web/0 waits: insufficient resources
                it asks for 100 MiB of memory and 100 MiB of disk; of 2 suitable cells none has both and a container free, the most on one being 1000 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_placement_error_is_written_once_and_goes_with_the_wait() {
    check(
        "cell cell-1 memory=100
         app web instances=2
         turn
         rows
         turn
         cell cell-2
         turn
         rows",
        expect![[r#"
            turn
              place web/0 on cell-1
              fail web/1: insufficient resources: memory
              web/1 waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9900 MiB of disk: add a cell, or ask for less
              due in 15001ms
            rows
              web/0 ORDINARY CLAIMED on cell-1
              web/1 ORDINARY UNCLAIMED: insufficient resources: memory
            turn
              web/1 waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9900 MiB of disk: add a cell, or ask for less
              due in 15001ms
            turn
              place web/1 on cell-2
              due in 15001ms
            rows
              web/0 ORDINARY CLAIMED on cell-1
              web/1 ORDINARY CLAIMED on cell-2
        "#]],
    );
}

#[test]
fn a_changed_reason_is_written_again() {
    check(
        "app web
         turn
         cell cell-1 memory=50
         turn
         rows",
        expect![[r#"
            turn
              fail web/0: unable to communicate to compatible cells
              web/0 waits: unable to communicate to compatible cells
                no cell has registered yet: start one
              nothing due
            turn
              fail web/0: insufficient resources: memory
              web/0 waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 50 MiB of memory and 10000 MiB of disk: add a cell, or ask for less
              due in 15001ms
            rows
              web/0 ORDINARY UNCLAIMED: insufficient resources: memory
        "#]],
    );
}

#[test]
fn room_that_is_freed_is_taken() {
    check(
        "cell cell-1 memory=100
         app old
         turn
         run
         app new
         turn
         delete old
         turn",
        expect![[r#"
            turn
              place old/0 on cell-1
              due in 15001ms
            turn
              fail new/0: insufficient resources: memory
              new/0 waits: insufficient resources: memory
                it asks for 100 MiB of memory and 100 MiB of disk; of 1 suitable cells none has both and a container free, the most on one being 0 MiB of memory and 9900 MiB of disk: add a cell, or ask for less
              due in 15001ms
            turn
              place new/0 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn suspects_still_take_their_cells_room() {
    // The cell comes back with them: what was on it is not free.
    check(
        "cell cell-1 memory=100
         cell cell-2 memory=100
         app web
         place web/0 cell-1
         run
         wait 15001
         heard cell-2
         turn
         heard cell-1
         app new
         turn
         rows",
        expect![[r#"
            turn
              cell-1 is missing
              place web/0 on cell-2
              due in 15001ms
            turn
              cell-1 has returned
              place new/0 on cell-2
              due in 15001ms
            rows
              new/0 ORDINARY CLAIMED on cell-2
              web/0 ORDINARY RUNNING on cell-1
        "#]],
    );
}

#[test]
fn a_stack_needs_a_cell_that_has_it() {
    check(
        "cell cell-1 roots=docker,preloaded:cflinuxfs3
         cell cell-2 roots=preloaded:cflinuxfs3|cflinuxfs4
         app new root=preloaded:cflinuxfs4
         app layered root=preloaded:cflinuxfs3?layer=x
         app old root=preloaded:lucid64
         turn",
        expect![[r#"
            turn
              place layered/0 on cell-1
              place new/0 on cell-2
              fail old/0: found no compatible cell for required rootfs
              old/0 waits: found no compatible cell for required rootfs
                the root file system is "preloaded:lucid64", and the present cells offer: docker:..., preloaded:cflinuxfs3, preloaded:cflinuxfs3|cflinuxfs4
              due in 15001ms
        "#]],
    );
}

#[test]
fn a_starting_container_counts_as_configured() {
    let script = "
         cell cell-1
         cell cell-2
         app runs memory=500 disk=0
         place runs/0 cell-2
         run
         app starts memory=0 disk=0
         place starts/0 cell-1
         app new
         turn";
    check(
        &format!("settings starting=0\n{script}"),
        expect![[r#"
        turn
          place new/0 on cell-1
          due in 15001ms
    "#]],
    );
    check(
        &format!("settings starting=500\n{script}"),
        expect![[r#"
        turn
          place new/0 on cell-2
          due in 15001ms
    "#]],
    );
}

#[test]
fn only_so_many_start_at_once() {
    check(
        "settings maximum=2
         cell cell-1
         cell cell-2
         app web instances=3
         task job
         turn
         turn
         run
         turn",
        expect![[r#"
            turn
              place web/0 on cell-1
              place job on cell-2
              fail web/1: waiting to start instance: reached in-flight start limit
              fail web/2: waiting to start instance: reached in-flight start limit
              web/1 waits: waiting to start instance: reached in-flight start limit
                at most 2 containers start at once; it is placed when others run
              web/2 waits: waiting to start instance: reached in-flight start limit
                at most 2 containers start at once; it is placed when others run
              due in 15001ms
            turn
              web/1 waits: waiting to start instance: reached in-flight start limit
                at most 2 containers start at once; it is placed when others run
              web/2 waits: waiting to start instance: reached in-flight start limit
                at most 2 containers start at once; it is placed when others run
              due in 15001ms
            turn
              place web/1 on cell-2
              place web/2 on cell-1
              due in 15001ms
        "#]],
    );
}

#[test]
fn bin_packing_fills_the_first_cells_of_each_zone() {
    check(
        "settings pack=1000
         cell a-1 zone=a
         cell a-2 zone=a
         cell b-1 zone=b
         cell b-2 zone=b
         app one
         app two
         app three
         app four
         app many instances=4
         task job
         turn",
        expect![[r#"
            turn
              place four/0 on a-1
              place many/0 on b-1
              place one/0 on a-1
              place three/0 on b-1
              place two/0 on a-1
              place job on a-2
              place many/1 on a-1
              place many/2 on b-2
              place many/3 on a-2
              due in 15001ms
        "#]],
    );
}
