//! Accepts connections, and bounds them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{Config, run_stream};
use russh::{Disconnect, MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::{Activity, Watched};
use crate::host_key::HostKey;
use crate::limits::{
    CONNECTIONS_MAX, FAREWELL_MAX, IDLE_MAX, LAST_WORDS_MAX, LOGIN_MAX, MESSAGES_MAX, REFUSAL,
    STARTUPS_MAX, TRIES_MAX,
};
use crate::relay::Ending;
use crate::target::Directory;
use crate::visitor::{Doorman, Visitor};

/// After a failure that is not a client's.
const PAUSE: Duration = Duration::from_millis(50);

/// What the operator says, and what tests say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub idle_max: Duration,
    pub login_max: Duration,
    pub refusal: Duration,
    pub connections_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_max: IDLE_MAX,
            login_max: LOGIN_MAX,
            refusal: REFUSAL,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// The proxy. Clones are of the same one.
#[derive(Clone)]
pub struct Proxy {
    config: Arc<Config>,
    doorman: Arc<Doorman>,
    settings: Settings,
    connections: Arc<Semaphore>,
    startups: Arc<Semaphore>,
    end: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Lets in who has the password.
    #[must_use]
    pub fn new(
        key: &HostKey,
        password: &str,
        settings: Settings,
        directory: impl Directory,
    ) -> Self {
        let doorman = Doorman { password: password.to_owned(), directory: Box::new(directory) };
        Self {
            config: Arc::new(config(key.key.clone(), settings)),
            doorman: Arc::new(doorman),
            settings,
            connections: Arc::new(Semaphore::new(settings.connections_max)),
            startups: Arc::new(Semaphore::new(STARTUPS_MAX)),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves until [`Self::end`].
    pub async fn serve(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.end.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let proxy = self.clone();
                    self.tasks.spawn(async move { proxy.receive(stream, from).await });
                }
                Err(error) => {
                    tracing::debug!(%error, "an SSH connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Ends every connection, and says so.
    pub async fn end(&self) {
        self.end.cancel();
        self.tasks.close();
        let _ = timeout(FAREWELL_MAX * 2, self.tasks.wait()).await;
    }

    async fn receive(self, stream: TcpStream, from: SocketAddr) {
        let Ok(_place) = self.connections.try_acquire() else {
            tracing::warn!(%from, "an SSH connection is closed: there are too many");
            return;
        };
        let Ok(startup) = Arc::clone(&self.startups).try_acquire_owned() else {
            tracing::warn!(%from, "an SSH connection is closed: too many have not logged in");
            return;
        };
        let _ = stream.set_nodelay(true);
        let (tell, logged_in) = oneshot::channel();
        let ending = Ending::default();
        let activity = Activity::new();
        let watched = Watched::new(stream, Arc::clone(&activity), ending.now.clone());
        let doorman = Arc::clone(&self.doorman);
        let visitor = Visitor::new(doorman, from, ending.clone(), (startup, tell));
        // Ends the connection, its daemon's, and what is between.
        let _ending = ending.now.clone().drop_guard();
        let greeting = run_stream(Arc::clone(&self.config), watched, visitor);
        let session = tokio::select! {
            greeted = timeout(self.settings.login_max, greeting) => match greeted {
                Ok(Ok(session)) => session,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "no SSH client"),
                Err(_) => return tracing::debug!(%from, "an SSH client says nothing"),
            },
            () = self.end.cancelled() => return,
        };
        let handle = session.handle();
        tokio::pin!(session);
        let late = async {
            match timeout(self.settings.login_max, logged_in).await {
                // It goes on, for as long as it likes.
                Ok(_) => std::future::pending().await,
                Err(_) => "nobody has logged in",
            }
        };
        let reason = tokio::select! {
            ended = &mut session => {
                return tracing::debug!(%from, ?ended, "an SSH connection has ended");
            }
            reason = late => reason,
            () = activity.idle(self.settings.idle_max) => "it was idle",
            () = ending.daemon.cancelled() => {
                // What it has said last is still on its way.
                ending.tellers.close();
                let _ = timeout(LAST_WORDS_MAX, ending.tellers.wait()).await;
                // OpenSSH's client forgets what it has not shown yet when it is hung up on, and
                // leaves by itself when it has shown all.
                if timeout(FAREWELL_MAX, &mut session).await.is_ok() {
                    return;
                }
                "the instance's daemon has hung up"
            }
            () = self.end.cancelled() => "the proxy ends",
        };
        tracing::debug!(%from, reason, "an SSH connection is ended");
        let farewell =
            handle.disconnect(Disconnect::ByApplication, reason.to_owned(), String::new());
        // A client that takes nothing does not hear it.
        let _ = timeout(FAREWELL_MAX, farewell).await;
        let _ = timeout(FAREWELL_MAX, session).await;
    }
}

fn config(key: PrivateKey, settings: Settings) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-diego-ssh-proxy".into()),
        methods: MethodSet::from(&[MethodKind::Password][..]),
        auth_rejection_time: settings.refusal,
        // The question which methods there are is nobody's try.
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: TRIES_MAX,
        keys: vec![key],
        channel_buffer_size: MESSAGES_MAX,
        // Of its own, which counts both directions.
        inactivity_timeout: None,
        ..Config::default()
    }
}
