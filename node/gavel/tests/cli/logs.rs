//! `logs`: merged by time, each instance by itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use api::Error;
use api::admin::LogLine;
use expect_test::expect;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake::Fake;
use crate::gavel;

const SECOND: i64 = 1_000_000_000;

fn line(seconds: i64, text: &str) -> LogLine {
    LogLine {
        at_ns: seconds * SECOND,
        is_stderr: text.starts_with("oh"),
        source: String::new(),
        text: text.to_owned(),
    }
}

fn hello() -> Fake {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello -i 3").ok();
    fake.with(|cluster| {
        let first = vec![line(1, "one"), line(4, "four"), line(5, "five")];
        cluster.logs.insert(0, Ok(first));
        cluster.logs.insert(1, Ok(vec![line(2, "two"), line(3, "oh three")]));
    });
    fake
}

#[test]
fn what_is_kept_is_merged_by_time() {
    let fake = hello();
    expect![[r#"
        1970-01-01T00:00:01.00+0000 [APP/PROC/WEB/0] OUT one
        1970-01-01T00:00:02.00+0000 [APP/PROC/WEB/1] OUT two
        1970-01-01T00:00:03.00+0000 [APP/PROC/WEB/1] ERR oh three
        1970-01-01T00:00:04.00+0000 [APP/PROC/WEB/0] OUT four
        1970-01-01T00:00:05.00+0000 [APP/PROC/WEB/0] OUT five
    "#]]
    .assert_eq(&fake.type_in("logs hello --recent").ok());
    let json = fake.type_in("logs hello --recent --json").ok();
    assert_eq!(
        json.lines().next().unwrap(),
        r#"{"message":"one","source":"APP/PROC/WEB/0","timestamp":1000000000,"type":"OUT"}"#
    );
}

#[test]
fn an_instance_that_cannot_be_read_does_not_cost_the_others() {
    let fake = hello();
    let gone = || Err(Error::NotFound("cell node-1 is missing".to_owned()));
    fake.with(|cluster| cluster.logs.insert(0, gone()));
    let ran = fake.type_in("logs hello --recent");
    assert_eq!(ran.err, "APP/PROC/WEB/0: ResourceNotFound: cell node-1 is missing\n");
    assert_eq!(ran.ok().lines().count(), 2);
    fake.with(|cluster| {
        cluster.logs = (0..3).map(|index| (index, gone())).collect();
    });
    assert_eq!(fake.type_in("logs hello --recent").status, 1);
}

#[test]
fn an_app_that_is_not_there() {
    let failed = Fake::start().type_in("logs nothing").failed();
    assert_eq!(failed, "1: error: ResourceNotFound: desired LRP nothing could not be found\n");
}

struct Following {
    child: Child,
    out: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn start(fake: &Fake) -> Self {
        let mut child = gavel(fake.endpoint())
            .args(["logs", "hello"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, out }
    }

    /// The next line, from its source on.
    fn next(&mut self) -> String {
        let line = self.out.next().expect("the command goes on").unwrap();
        line.split_once('[').expect("a line has a source").1.to_owned()
    }

    fn interrupt(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Gone already where the test has ended it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn following_goes_on_over_a_lost_instance_and_a_scale_and_ends_quietly() {
    let fake = hello();
    fake.with(|cluster| {
        cluster.logs.insert(2, Err(Error::NotFound("cell node-3 is missing".to_owned())));
    });
    let mut following = Following::start(&fake);
    let mut kept: Vec<_> = (0..5).map(|_| following.next()).collect();
    kept.sort_unstable();
    assert_eq!(kept[0], "APP/PROC/WEB/0] OUT five");
    assert_eq!(kept[4], "APP/PROC/WEB/1] OUT two");
    fake.with(|cluster| {
        let lines = cluster.logs.get_mut(&1).unwrap().as_mut().unwrap();
        lines.push(line(6, "six"));
    });
    assert_eq!(following.next(), "APP/PROC/WEB/1] OUT six");
    // The lost one comes back, and a fourth one is added.
    fake.with(|cluster| {
        cluster.logs.insert(2, Ok(vec![line(7, "seven")]));
    });
    assert_eq!(following.next(), "APP/PROC/WEB/2] OUT seven");
    fake.with(|cluster| {
        cluster.logs.insert(3, Ok(vec![line(8, "eight")]));
    });
    fake.type_in("scale hello -i 4").ok();
    assert_eq!(following.next(), "APP/PROC/WEB/3] OUT eight");
    assert_eq!(following.interrupt(), Some(0));
}

#[test]
fn following_ends_with_the_app() {
    let fake = hello();
    let mut following = Following::start(&fake);
    following.next();
    fake.type_in("delete hello").ok();
    assert_eq!(following.child.wait().unwrap().code(), Some(1));
}
