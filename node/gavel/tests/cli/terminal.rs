//! What changes when a person looks: colours and a moving line, unless `NO_COLOR` is set.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::pty::openpty;

use crate::fake::Fake;
use crate::gavel;

/// What the command shows on a terminal.
fn show(command: &mut Command) -> String {
    let terminal = openpty(None, None).unwrap();
    let clone = |fd: &OwnedFd| fd.try_clone().unwrap();
    let mut child =
        command.stdout(clone(&terminal.slave)).stderr(clone(&terminal.slave)).spawn().unwrap();
    // Both the command and this test hold the other end; it closes with the last of them.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    drop(terminal.slave);
    let mut shown = Vec::new();
    let mut master = File::from(terminal.master);
    let mut part = [0; 4096];
    // Reading a terminal that nobody holds any more fails with EIO.
    while let Ok(read @ 1..) = master.read(&mut part) {
        shown.extend_from_slice(&part[..read]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn a_terminal_gets_colours_and_progress_and_no_color_is_honoured() {
    let fake = Fake::start();
    let push = ["push", "hello", "-o", "me/hello"];
    let shown = show(gavel(fake.endpoint()).args(push).env("TERM", "xterm"));
    assert!(shown.contains("\x1b[32mrunning\x1b[0m"), "{shown:?}");
    let apps = |name: &str, value: &str| {
        show(gavel(fake.endpoint()).arg("apps").env("TERM", "xterm").env(name, value))
    };
    assert!(apps("NO_COLOR", "").contains("\x1b["));
    assert!(!apps("NO_COLOR", "1").contains("\x1b["));
    assert!(!apps("TERM", "dumb").contains("\x1b["));
}
