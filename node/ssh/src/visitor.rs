//! A client of the proxy: lets him in, and leads him on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use russh::server::{self, Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};

use crate::daemon::{self, Line};
use crate::fingerprint::is_same;
use crate::limits::{ANSWER_MAX, CHANNELS_MAX, LINES_SPARE_MAX, LOGIN_BYTES_MAX};
use crate::login::Login;
use crate::relay::{self, Ending, Joined, Ties};
use crate::target::{Directory, Target};

/// What decides on who is let in.
pub(crate) struct Doorman {
    pub(crate) password: String,
    pub(crate) directory: Box<dyn Directory>,
}

impl Doorman {
    /// Where the user is led, or why not: for the log, not for him.
    fn admit(&self, user: &str, password: &str) -> Result<(Login, Target), String> {
        let login = Login::parse(user).map_err(|error| error.to_string())?;
        if !is_same(&self.password, password) {
            return Err("the password is wrong".to_owned());
        }
        let target = self.directory.find(&login).map_err(|error| error.to_string())?;
        Ok((login, target))
    }
}

/// One connection.
pub(crate) struct Visitor {
    doorman: Arc<Doorman>,
    from: SocketAddr,
    ending: Ending,
    /// Until he has logged in: his place among those who have not, and whom to tell.
    startup: Option<(OwnedSemaphorePermit, oneshot::Sender<()>)>,
    admitted: Option<(Login, Target)>,
    led: Option<Led>,
}

/// Where he was led.
struct Led {
    login: Login,
    since: Instant,
    target: Target,
    client: server::Handle,
    /// To the daemon: the one that was first, which has the ports that it was asked to listen on.
    first: Arc<Line>,
    /// Others. Each has one channel at a time, so that none holds up another: see `load`.
    lines: Vec<Arc<Line>>,
    /// By the client's.
    channels: HashMap<ChannelId, (Joined, Arc<Line>)>,
}

impl Led {
    /// A connection to the daemon that no channel is on.
    async fn line(&mut self, ending: &Ending) -> Result<Arc<Line>, daemon::Unreachable> {
        let mut spare = 0;
        self.lines.retain(|line| {
            spare += usize::from(line.is_free());
            !line.daemon.is_closed() && (!line.is_free() || spare <= LINES_SPARE_MAX)
        });
        let lines = [&self.first].into_iter().chain(&self.lines);
        if let Some(line) = lines.into_iter().find(|line| line.is_free()) {
            return Ok(Arc::clone(line));
        }
        let ties = Ties::new(ending.clone(), self.client.clone());
        let line = Arc::new(daemon::connect(&self.target, ties, false).await?);
        self.lines.push(Arc::clone(&line));
        Ok(line)
    }
}

impl Visitor {
    pub(crate) fn new(
        doorman: Arc<Doorman>,
        from: SocketAddr,
        ending: Ending,
        startup: (OwnedSemaphorePermit, oneshot::Sender<()>),
    ) -> Self {
        Self { doorman, from, ending, startup: Some(startup), admitted: None, led: None }
    }

    fn led(&mut self) -> Result<&mut Led, russh::Error> {
        self.led.as_mut().ok_or(russh::Error::Disconnect)
    }

    /// Joins a channel of the client's to the one that the daemon opens for it.
    async fn open<F>(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        is_command: bool,
        opening: impl FnOnce(Arc<Line>) -> F,
    ) -> Result<(), russh::Error>
    where
        F: Send + Future<Output = Result<Channel<russh::client::Msg>, russh::Error>>,
    {
        let ending = self.ending.clone();
        let led = self.led()?;
        led.channels.retain(|_, (joined, _)| !joined.answers.is_closed());
        if led.channels.len() >= CHANNELS_MAX {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let line = match led.line(&ending).await {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!(app = %led.login, %error, "a channel of an SSH visitor is refused");
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                return Ok(());
            }
        };
        let waiting = line.ties.load.wait();
        let opened = timeout(ANSWER_MAX, opening(Arc::clone(&line))).await;
        drop(waiting);
        match opened {
            Ok(Ok(theirs)) => {
                reply.accept().await;
                let id = channel.id();
                let joined = relay::join(channel, theirs, &line.ties, is_command);
                led.channels.insert(id, (joined, line));
            }
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => reply.reject(reason).await,
            Ok(Err(_)) | Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    /// Asks the daemon what the client asks for, and answers as it does. Others wait meanwhile:
    /// which request an answer is to, only their order says.
    async fn ask<F>(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
        asking: impl FnOnce(Arc<russh::ChannelWriteHalf<russh::client::Msg>>) -> F,
    ) -> Result<(), russh::Error>
    where
        F: Send + Future<Output = Result<(), russh::Error>>,
    {
        if self.grants(channel, asking).await? {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn grants<F>(
        &mut self,
        channel: ChannelId,
        asking: impl FnOnce(Arc<russh::ChannelWriteHalf<russh::client::Msg>>) -> F,
    ) -> Result<bool, russh::Error>
    where
        F: Send + Future<Output = Result<(), russh::Error>>,
    {
        let led = self.led()?;
        let Some((joined, line)) = led.channels.get_mut(&channel) else { return Ok(false) };
        let line = Arc::clone(line);
        let _waiting = line.ties.load.wait();
        let asked = async {
            asking(Arc::clone(&joined.daemon)).await.ok()?;
            joined.answers.recv().await
        };
        match timeout(ANSWER_MAX, asked).await {
            Ok(answer) => Ok(answer.unwrap_or(false)),
            Err(_) => {
                // A late answer would be taken for one to the next request.
                led.channels.remove(&channel);
                Ok(false)
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if let Some(led) = &self.led {
            let (from, seconds) = (self.from, led.since.elapsed().as_secs());
            tracing::info!(app = %led.login, %from, seconds, "an SSH visitor has left");
        }
        self.ending.now.cancel();
    }
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        match self.doorman.admit(user, password) {
            Ok(admitted) => {
                self.admitted = Some(admitted);
                Ok(Auth::Accept)
            }
            Err(reason) => {
                let from = self.from;
                let user: String = user.chars().take(LOGIN_BYTES_MAX).collect();
                tracing::warn!(user, %from, reason, "an SSH login is refused");
                // It may be tried again.
                let methods = MethodSet::from(&[MethodKind::Password][..]);
                Ok(Auth::Reject { proceed_with_methods: Some(methods), partial_success: false })
            }
        }
    }

    /// Only now: nobody else makes the proxy call anybody.
    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let Some((login, target)) = self.admitted.take() else {
            return Err(russh::Error::NotAuthenticated);
        };
        let client = session.handle();
        let ties = Ties::new(self.ending.clone(), client.clone());
        let (from, address) = (self.from, target.address);
        match daemon::connect(&target, ties, true).await {
            Ok(line) => {
                tracing::info!(app = %login, %from, %address, "an SSH visitor is let in");
                self.led = Some(Led {
                    login,
                    since: Instant::now(),
                    target,
                    client,
                    first: Arc::new(line),
                    lines: Vec::new(),
                    channels: HashMap::new(),
                });
                if let Some((_permit, tell)) = self.startup.take() {
                    // Who waits for it may have given up.
                    let _ = tell.send(());
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(app = %login, %from, %address, %error, "an SSH visitor cannot be led on");
                let reason = format!("{login} cannot be reached: {error}");
                session.disconnect(Disconnect::ByApplication, &reason, "")
            }
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(
            channel,
            reply,
            true,
            |line| async move { line.daemon.channel_open_session().await },
        )
        .await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let opening = |line: Arc<Line>| async move {
            line.daemon.channel_open_direct_tcpip(host, port, originator, originator_port).await
        };
        self.open(channel, reply, false, opening).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open(channel, reply, false, |line| async move {
            line.daemon.channel_open_direct_streamlocal(socket_path).await
        })
        .await
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(led) = &mut self.led {
            led.channels.remove(&channel);
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(channel, session, |daemon| async move {
            daemon.request_pty(true, term, columns, rows, width, height, modes).await
        })
        .await
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(channel, session, |daemon| async move { daemon.set_env(true, name, value).await })
            .await
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(channel, session, |daemon| async move { daemon.request_shell(true).await }).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(channel, session, |daemon| async move { daemon.exec(true, command).await }).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.ask(
            channel,
            session,
            |daemon| async move { daemon.request_subsystem(true, name).await },
        )
        .await
    }

    async fn agent_request(
        &mut self,
        _channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        // The client's keys are no business of the container's.
        Ok(false)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let first = Arc::clone(&self.led()?.first);
        let _waiting = first.ties.load.wait();
        match timeout(ANSWER_MAX, first.daemon.tcpip_forward(address, *port)).await {
            Ok(Ok(chosen)) => {
                if *port == 0 {
                    *port = chosen;
                }
                Ok(true)
            }
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let first = Arc::clone(&self.led()?.first);
        let _waiting = first.ties.load.wait();
        let cancelled = timeout(ANSWER_MAX, first.daemon.cancel_tcpip_forward(address, port)).await;
        Ok(matches!(cancelled, Ok(Ok(()))))
    }
}
