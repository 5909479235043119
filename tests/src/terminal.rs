//! A person at a terminal: a command behind a pseudo-terminal (pty(7)), with keys and a window.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::eventually;

/// How long a command may take to show something, or to end.
const SHOW_MAX: Duration = Duration::from_secs(30);

/// A command at a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    /// Open, so that the terminal stays when the command has ended.
    inside: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command at a terminal of that size.
    ///
    /// # Panics
    ///
    /// The kernel or `setsid` does not do it.
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("Linux has them");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let name = name.into_string().expect("a plain name");
        let inside = File::options().read(true).write(true).open(name).expect("it is unlocked");
        let file = |file: &File| file.try_clone().expect("an open file");
        // It leads a session, whose terminal this is: so it is told of the window's changes.
        let mut at_terminal = Command::new("setsid");
        at_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            at_terminal.env(name, value.unwrap_or_default());
        }
        at_terminal.env("TERM", "xterm-256color");
        let [stdin, stdout, stderr] = [(); 3].map(|()| file(&inside));
        let keys = File::from(master);
        resize(&keys, rows, columns);
        let child = at_terminal.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, onto) = (file(&keys), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            // It fails when nobody has the terminal any more.
            while let Ok(length @ 1..) = screen.read(&mut part) {
                onto.lock().expect("no holder panics").extend_from_slice(&part[..length]);
            }
        });
        let child = child.expect("setsid (Debian: util-linux) starts");
        Self { keys, inside, child, shown }
    }

    /// # Panics
    ///
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is ours");
    }

    /// Changes the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.keys, rows, columns);
    }

    /// What was shown since the screen was wiped.
    ///
    /// # Panics
    ///
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().expect("no holder panics");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until this was shown, and wipes the screen.
    ///
    /// # Panics
    ///
    /// It is not for too long; with what was.
    pub fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), SHOW_MAX, || {
            let seen = self.shown();
            if !seen.contains(text) {
                return Err(seen);
            }
            self.shown.lock().expect("no holder panics").clear();
            Ok(())
        });
    }

    /// Whether the terminal shows what is typed, and makes signals of keys, as a shell has it.
    ///
    /// # Panics
    ///
    /// The terminal is gone.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.inside).expect("the terminal is ours").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits until the command has ended.
    ///
    /// # Panics
    ///
    /// It does not for too long.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the command ends", SHOW_MAX, || {
            self.child.try_wait().ok().flatten().ok_or_else(|| self.shown())
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, ws_row: u16, ws_col: u16) {
    let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal");
}
