//! The nodes' processes: started, watched, started again, and ended.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::home::tail;
use crate::limits::{
    DEV_NODES_MAX, DEV_RESTART_RESET, DEV_RESTART_WAIT_MAX, DEV_RESTART_WAIT_MIN, DEV_STOP_MAX,
};

/// A program that is to run.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

/// What happened to a node that nobody asked for.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) how: String,
    /// The last lines of its log.
    pub(super) said: String,
    /// How long it will be before it is started again.
    pub(super) pause: Duration,
}

/// What the processes are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Run,
    /// Stop the containers, then themselves.
    Stop,
    /// End now.
    Die,
}

/// The running nodes. Dropped, it kills them.
#[derive(Debug)]
pub(super) struct Nodes {
    wish: watch::Sender<Wish>,
    ended: mpsc::Receiver<Ended>,
    keepers: JoinSet<()>,
}

impl Nodes {
    /// Starts one process for each node. Each is kept: one that ends is reported, and started
    /// again after a pause.
    pub(super) fn start(nodes: Vec<Node>) -> Self {
        let (wish, _) = watch::channel(Wish::Run);
        let (sender, ended) = mpsc::channel(usize::from(DEV_NODES_MAX));
        let mut keepers = JoinSet::new();
        for node in nodes {
            keepers.spawn(keep(node, wish.subscribe(), sender.clone()));
        }
        Self { wish, ended, keepers }
    }

    /// The next node that ends without having been asked to.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.ended.recv().await {
            Some(ended) => ended,
            // All keepers are done: nothing will happen any more.
            None => std::future::pending().await,
        }
    }

    /// Asks all nodes to stop; returns when they have, or have been killed for taking longer
    /// than [`DEV_STOP_MAX`].
    pub(super) async fn stop(&mut self) {
        self.wish.send_replace(Wish::Stop);
        while self.keepers.join_next().await.is_some() {}
    }

    /// Ends all nodes at once. Their containers are found by the next start.
    pub(super) async fn kill(&mut self) {
        self.wish.send_replace(Wish::Die);
        while self.keepers.join_next().await.is_some() {}
    }
}

async fn keep(node: Node, mut wish: watch::Receiver<Wish>, ended: mpsc::Sender<Ended>) {
    let mut pause = DEV_RESTART_WAIT_MIN;
    loop {
        let started = Instant::now();
        let how = match start(&node) {
            Ok(mut child) => {
                let ended = tokio::select! {
                    status = child.wait() => Some(describe(status)),
                    _ = wish.wait_for(|wish| *wish > Wish::Run) => None,
                };
                match ended {
                    Some(how) => how,
                    None => return end(child, &node.name, wish).await,
                }
            }
            Err(error) => format!("did not start: {error}"),
        };
        if started.elapsed() >= DEV_RESTART_RESET {
            pause = DEV_RESTART_WAIT_MIN;
        }
        let said = tail(&node.log);
        let report = Ended { name: node.name.clone(), how, said, pause };
        if ended.send(report).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = wish.wait_for(|wish| *wish > Wish::Run) => return,
        }
        pause = (pause * 2).min(DEV_RESTART_WAIT_MAX);
    }
}

/// In a process group of its own, so that a terminal's Ctrl-C reaches only this process, which
/// then ends the nodes in order.
fn start(node: &Node) -> io::Result<Child> {
    let log = File::options().append(true).open(&node.log)?;
    Command::new(&node.program)
        .args(&node.args)
        .arg0("gavel")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn end(mut child: Child, name: &str, mut wish: watch::Receiver<Wish>) {
    if *wish.borrow() == Wish::Stop {
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended this moment, which is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        tokio::select! {
            _ = child.wait() => return,
            _ = wish.wait_for(|wish| *wish == Wish::Die) => {}
            () = tokio::time::sleep(DEV_STOP_MAX) => {
                eprintln!("{name} did not stop within {DEV_STOP_MAX:?} and is killed");
            }
        }
    }
    if let Err(error) = child.kill().await {
        eprintln!("{name} cannot be killed: {error}");
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("cannot be waited for: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn node(&self, script: &str) -> Node {
            let log = self.dir.path().join("node-1.log");
            File::create(&log).unwrap();
            let args = vec!["-c".to_owned(), script.to_owned()];
            Node { name: "node-1".to_owned(), program: "/bin/sh".into(), args, log }
        }

        /// Waits for what the script says; a script's first word may take a moment.
        async fn said(&self, text: &str) {
            while !tail(&self.dir.path().join("node-1.log")).contains(text) {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn one_that_ends_is_reported_with_its_last_words_and_started_again() {
        let world = World::new();
        let script = "echo trouble; exit 3";
        let mut nodes = Nodes::start(vec![world.node(script)]);
        let ended = nodes.ended().await;
        assert_eq!((ended.name.as_str(), ended.said.as_str()), ("node-1", "trouble"));
        assert_eq!(ended.how, "ended with exit status: 3");
        let again = nodes.ended().await;
        assert_eq!(again.said, "trouble\ntrouble");
        assert_eq!(again.pause, ended.pause * 2);
        nodes.stop().await;
    }

    #[tokio::test]
    async fn one_that_cannot_start_is_reported() {
        let world = World::new();
        let node = Node { program: "/no/such/program".into(), ..world.node("") };
        let ended = Nodes::start(vec![node]).ended().await;
        assert!(ended.how.starts_with("did not start: No such file"), "{}", ended.how);
    }

    #[tokio::test]
    async fn stopping_lets_them_finish() {
        let world = World::new();
        let script = "trap 'echo finished; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let mut nodes = Nodes::start(vec![world.node(script)]);
        world.said("ready").await;
        nodes.stop().await;
        world.said("finished").await;
    }

    #[tokio::test]
    async fn killing_ends_even_the_stubborn() {
        let world = World::new();
        let script = "trap '' TERM INT; echo ready; while :; do sleep 0.01; done";
        let mut nodes = Nodes::start(vec![world.node(script)]);
        world.said("ready").await;
        // As a second Ctrl-C does: the stop is under way and is given up.
        let given_up = tokio::time::timeout(Duration::from_millis(50), nodes.stop()).await;
        assert!(given_up.is_err());
        nodes.kill().await;
    }
}
