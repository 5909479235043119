//! A process of a session: it ends with its client, at the latest.

use std::io;

use api::Error;
use api::attach::{End, Exec, Frames};
use api::wire::Stream;
use container::container::{
    ContainerId, Ends, ExitStatus, Launch, Process, ProcessState, Program, Runtime, Stdio,
};
use nix::libc;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::Sessions;
use super::talk::{Control, Input, Output, Over, Talk, refuse};
use super::terminal::Terminal;
use crate::limits::{SESSION_FRAMES_MAX, SESSION_GRACE, SESSION_KILL_MAX};

/// What the names of sessions' processes begin with.
const NAME: &str = "session/";
/// What is tried where a client asks for a shell.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// A process that runs.
struct Running<'a> {
    runtime: &'a Runtime,
    id: &'a ContainerId,
    name: String,
}

/// Its standard files on our side, and its terminal if it has one.
struct Standard {
    input: Input,
    output: Output,
    errors: Option<Output>,
    terminal: Option<Terminal>,
}

impl Sessions {
    /// Returns how it ended.
    pub(super) async fn exec(
        &self,
        id: &ContainerId,
        exec: &Exec,
        of_app: &Process,
        frames: Frames<Stream>,
    ) -> String {
        let (running, ends) = match start(&self.runtime, id, exec, of_app).await {
            Ok(started) => started,
            Err(error) => {
                let how = format!("not started: {error}");
                refuse(frames, error).await;
                return how;
            }
        };
        let how = match standard(ends) {
            Ok(standard) => self.talk(&running, standard, frames).await,
            Err(error) => {
                let how = format!("its standard files cannot be used: {error}");
                refuse(frames, Error::Unknown(how.clone())).await;
                how
            }
        };
        running.end(exec.terminal.is_some()).await;
        how
    }

    async fn talk(
        &self,
        running: &Running<'_>,
        standard: Standard,
        frames: Frames<Stream>,
    ) -> String {
        let Standard { input, output, errors, terminal } = standard;
        let talk = match Talk::begin(frames, terminal.is_some()).await {
            Ok(talk) => talk,
            Err(error) => return format!("the client has gone: {error}"),
        };
        let (controls, mut wishes) = mpsc::channel(SESSION_FRAMES_MAX);
        let obeying = async {
            while let Some(wish) = wishes.recv().await {
                running.obey(wish, terminal.as_ref()).await;
            }
        };
        let talking = talk.with_process((input, output, errors), &controls, running.ended());
        tokio::select! {
            over = talking => match over {
                Over::Ended(end) => end.to_string(),
                Over::Gone(None) => "the client has gone".to_owned(),
                Over::Gone(Some(error)) => format!("the client has gone: {error}"),
                Over::Violated(reason) => format!("the client was cut off: {reason}"),
            },
            () = self.closing.cancelled() => "the node is ending".to_owned(),
            () = obeying => unreachable!("the wishes' sender is here"),
        }
    }
}

/// Starts it with the app's environment, and the user's own wishes.
async fn start<'a>(
    runtime: &'a Runtime,
    id: &'a ContainerId,
    exec: &Exec,
    of_app: &Process,
) -> Result<(Running<'a>, Ends), Error> {
    let mut process = of_app.clone();
    if let Some(user) = &exec.user {
        process.user.clone_from(user);
    }
    let stdio = match &exec.terminal {
        Some(terminal) => {
            process.env.push(("TERM".to_owned(), terminal.kind.clone()));
            Stdio::Terminal { rows: terminal.size.rows, columns: terminal.size.columns }
        }
        None => Stdio::Pipes,
    };
    let commands = if exec.command.is_empty() {
        SHELLS.map(|shell| vec![shell.to_owned()]).to_vec()
    } else {
        vec![exec.command.clone()]
    };
    let mut refused = Error::Invalid(String::new());
    for args in commands {
        // Names are never used again: a former life's process may have any.
        let name = format!("{NAME}{:016x}", rand::random::<u64>());
        let program = Program::Image(Process { args, ..process.clone() });
        let launch = Launch { name: name.clone(), program, stdio: stdio.clone(), essential: false };
        match runtime.launch(id, launch).await {
            Ok(ends) => return Ok((Running { runtime, id, name }, ends)),
            Err(error) => {
                refused = not_started(&error);
                // The next is tried where this one is known not to run.
                if !matches!(refused, Error::Invalid(_)) {
                    break;
                }
            }
        }
    }
    Err(refused)
}

fn not_started(error: &container::container::Error) -> Error {
    use container::container::Error as Failed;
    if let Failed::Start { reason, .. } | Failed::Invalid { reason, .. } = error {
        return Error::Invalid(reason.clone());
    }
    if let Failed::NotFound(_) | Failed::WrongState { .. } = error {
        return Error::NotFound(error.to_string());
    }
    // The container's shim was asked, and has not answered.
    Error::Unknown(error.to_string())
}

fn standard(ends: Ends) -> io::Result<Standard> {
    match ends {
        Ends::Pipes { stdin, stdout, stderr } => Ok(Standard {
            input: Box::new(pipe::Sender::from_file(stdin)?),
            output: Box::new(pipe::Receiver::from_file(stdout)?),
            errors: Some(Box::new(pipe::Receiver::from_file(stderr)?)),
            terminal: None,
        }),
        Ends::Terminal(master) => {
            let terminal = Terminal::new(master)?;
            Ok(Standard {
                input: Box::new(terminal.clone()),
                output: Box::new(terminal.clone()),
                errors: None,
                terminal: Some(terminal),
            })
        }
        Ends::None => Err(io::Error::other("there are none")),
    }
}

impl Running<'_> {
    /// How it has ended, when it has.
    async fn ended(&self) -> End {
        match self.runtime.process_ended(self.id, &self.name).await {
            Ok(exit) => match exit.status {
                ExitStatus::Code(code) => End::Code(code),
                ExitStatus::Signal(number) => End::Signal { number, oom_killed: exit.oom_killed },
            },
            // The container was destroyed, and the process with it.
            Err(_) => End::Signal { number: libc::SIGKILL, oom_killed: false },
        }
    }

    async fn obey(&self, wish: Control, terminal: Option<&Terminal>) {
        match (wish, terminal) {
            (Control::Resize(size), Some(terminal)) => {
                if let Err(error) = terminal.resize(size) {
                    tracing::debug!(container = %self.id, %error, "a terminal is not resized");
                }
            }
            (Control::Resize(_), None) => {}
            (Control::Signal(number), _) => self.signal(number).await,
        }
    }

    async fn signal(&self, number: i32) {
        if let Err(error) = self.runtime.signal_process(self.id, &self.name, number).await {
            tracing::debug!(container = %self.id, %error, "a container is gone");
        }
    }

    /// Ends it, where it has not ended, and forgets it. The close of its terminal has hung it up;
    /// without one it is asked to terminate, and its standard files are closed.
    async fn end(self, had_terminal: bool) {
        // Nothing is waited for where it has ended already.
        if tokio::time::timeout(std::time::Duration::ZERO, self.ended()).await.is_err() {
            if !had_terminal {
                self.signal(libc::SIGTERM).await;
            }
            if tokio::time::timeout(SESSION_GRACE, self.ended()).await.is_err() {
                self.signal(libc::SIGKILL).await;
                if tokio::time::timeout(SESSION_KILL_MAX, self.ended()).await.is_err() {
                    tracing::warn!(container = %self.id, name = self.name, "it is not killed");
                }
            }
        }
        if let Err(error) = self.runtime.forget_process(self.id, &self.name).await {
            tracing::debug!(container = %self.id, %error, "a container is gone");
        }
    }
}

/// Ends what sessions of a former life of this node have left in its containers, that is what there
/// is at the time of the call: their clients are gone.
pub(crate) fn end_leftovers(runtime: &Runtime) -> impl Future<Output = ()> + use<> {
    let mut ends = Vec::new();
    for info in runtime.list() {
        let processes = runtime.processes(&info.id).unwrap_or_default();
        for (name, state) in processes.into_iter().filter(|(name, _)| name.starts_with(NAME)) {
            let (runtime, id) = (runtime.clone(), info.id.clone());
            ends.push(async move {
                if let ProcessState::Running { .. } = state {
                    tracing::info!(container = %id, name, "a former life's session is ended");
                }
                Running { runtime: &runtime, id: &id, name }.end(false).await;
            });
        }
    }
    async move {
        futures_util::future::join_all(ends).await;
    }
}
