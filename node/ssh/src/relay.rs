//! One channel of the client's, joined to one of the daemon's.

#![expect(clippy::wildcard_enum_match_arm, reason = "russh's messages may become more")]

use std::sync::Arc;

use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client, server};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{ANSWERS_MAX, EXIT_MAX};
use crate::load::{Burden, Load};

type TowardsDaemon = ChannelWriteHalf<client::Msg>;
/// What the client is to be told.
type Queued = (ChannelMsg, Option<Burden>);
type TowardsClient = ChannelWriteHalf<server::Msg>;

/// How two connections end.
#[derive(Clone, Default)]
pub(crate) struct Ending {
    /// Nothing is passed on any more.
    pub(crate) now: CancellationToken,
    /// The daemon has hung up. What it has said before is passed on.
    pub(crate) daemon: CancellationToken,
    /// Those who do so.
    pub(crate) tellers: TaskTracker,
}

/// What a visitor's connection shares with one of those to his daemon.
#[derive(Clone)]
pub(crate) struct Ties {
    pub(crate) load: Arc<Load>,
    /// Held by who uses the daemon's connection.
    pub(crate) place: Arc<()>,
    pub(crate) ending: Ending,
    pub(crate) client: server::Handle,
}

/// A channel that is joined, for the requests on it.
pub(crate) struct Joined {
    pub(crate) daemon: Arc<TowardsDaemon>,
    /// Whether the daemon did what it was asked for, in order.
    pub(crate) answers: mpsc::Receiver<bool>,
}

/// Passes on what is said on either, which may be a command's or a forwarded connection's, until it is closed or the connections end.
pub(crate) fn join(
    mine: russh::Channel<server::Msg>,
    theirs: russh::Channel<client::Msg>,
    ties: &Ties,
    is_command: bool,
) -> Joined {
    let (from_client, to_client) = mine.split();
    let (from_daemon, to_daemon) = theirs.split();
    let daemon = Arc::new(to_daemon);
    let (answer, answers) = mpsc::channel(ANSWERS_MAX);
    // Bounded by the load.
    let (queue, queued) = mpsc::unbounded_channel();
    let (up, down, pump) = (ties.clone(), ties.clone(), ties.clone());
    // Who has closed his channel is told no more, and nothing waits for him: russh would, for ever.
    let client_left = ties.ending.now.child_token();
    let daemon_left = ties.ending.now.child_token();
    let (unheard, untold) = (client_left.clone(), client_left.clone());
    let (leaving, left, there) =
        (daemon_left.clone().drop_guard(), daemon_left, Arc::clone(&daemon));
    tokio::spawn(async move {
        let telling = up.tell_daemon(from_client, &there, client_left, &left);
        up.ending.now.run_until_cancelled(telling).await;
    });
    tokio::spawn(async move {
        unheard.run_until_cancelled(pump.hear_daemon(from_daemon, &answer, queue)).await;
        drop((leaving, pump));
    });
    ties.ending.tellers.spawn(async move {
        untold.run_until_cancelled(down.tell_client(queued, &to_client, is_command)).await;
    });
    Joined { daemon, answers }
}

impl Ties {
    /// Of a new connection to the daemon.
    pub(crate) fn new(ending: Ending, client: server::Handle) -> Self {
        Self { load: Arc::default(), place: Arc::default(), ending, client }
    }

    /// What has an answer of the daemon's is asked by the visitor, and not here.
    async fn tell_daemon(
        &self,
        mut client: ChannelReadHalf,
        daemon: &TowardsDaemon,
        client_left: CancellationToken,
        daemon_left: &CancellationToken,
    ) {
        let leaving = client_left.drop_guard();
        while let Some(message) = client.wait().await {
            if matches!(message, ChannelMsg::Close) {
                break;
            }
            let _waiting = self.load.wait();
            // What nobody hears any more is taken all the same, so that others are heard.
            daemon_left.run_until_cancelled(tell_daemon_of(message, daemon)).await;
        }
        drop(leaving);
        let _waiting = self.load.wait();
        // To close what is closed already changes nothing.
        let _ = daemon.close().await;
    }

    /// Takes what the daemon says as soon as it may.
    async fn hear_daemon(
        &self,
        mut daemon: ChannelReadHalf,
        answer: &mpsc::Sender<bool>,
        queue: mpsc::UnboundedSender<Queued>,
    ) {
        while let Some(message) = daemon.wait().await {
            match message {
                // Of what nobody asked for nobody hears.
                ChannelMsg::Success => drop(answer.try_send(true)),
                ChannelMsg::Failure => drop(answer.try_send(false)),
                message => {
                    let Ok(burden) = self.load.put(bytes_of(&message)) else {
                        tracing::warn!(
                            "an SSH connection is given up: its client takes nothing while its \
                             daemon does not either"
                        );
                        self.ending.now.cancel();
                        return;
                    };
                    if queue.send((message, Some(burden))).is_err() {
                        return;
                    }
                    self.load.room().await;
                }
            }
        }
        // Gone without a word of it.
        let _ = queue.send((ChannelMsg::Close, None));
    }

    async fn tell_client(
        &self,
        mut queued: mpsc::UnboundedReceiver<Queued>,
        client: &TowardsClient,
        is_command: bool,
    ) {
        // The burden goes when it is told.
        while let Some((message, _burden)) = queued.recv().await {
            if is_command && matches!(message, ChannelMsg::Eof) {
                if !self.tell_client_of_end(&mut queued, client).await {
                    return;
                }
            } else if !self.tell_client_of(message, client).await {
                return;
            }
        }
    }

    /// A command's output has ended: first, how the command itself did, if that is said soon. To a
    /// client that hears of the output's end and closes, russh closes at once, and could not say it
    /// any more.
    async fn tell_client_of_end(
        &self,
        queued: &mut mpsc::UnboundedReceiver<Queued>,
        client: &TowardsClient,
    ) -> bool {
        let mut after = None;
        while let Ok(Some((message, burden))) = timeout(EXIT_MAX, queued.recv()).await {
            let is_exit =
                matches!(message, ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. });
            if !is_exit {
                after = Some((message, burden));
                break;
            }
            if !self.tell_client_of(message, client).await {
                return false;
            }
        }
        if !self.tell_client_of(ChannelMsg::Eof, client).await {
            return false;
        }
        match after {
            Some((message, _burden)) => self.tell_client_of(message, client).await,
            None => true,
        }
    }

    /// Whether there is more to tell.
    async fn tell_client_of(&self, message: ChannelMsg, client: &TowardsClient) -> bool {
        let id = client.id();
        match message {
            ChannelMsg::Data { data } => client.data_bytes(data).await.is_ok(),
            ChannelMsg::ExtendedData { data, ext } => {
                client.extended_data_bytes(ext, data).await.is_ok()
            }
            ChannelMsg::Eof => client.eof().await.is_ok(),
            ChannelMsg::ExitStatus { exit_status } => client.exit_status(exit_status).await.is_ok(),
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => self
                .client
                .exit_signal_request(id, signal_name, core_dumped, error_message, lang_tag)
                .await
                .is_ok(),
            ChannelMsg::XonXoff { client_can_do } => {
                self.client.xon_xoff_request(id, client_can_do).await.is_ok()
            }
            ChannelMsg::Close => {
                // Closed already: as good.
                let _ = client.close().await;
                false
            }
            _ => true,
        }
    }
}

async fn tell_daemon_of(message: ChannelMsg, daemon: &TowardsDaemon) {
    let told = match message {
        ChannelMsg::Data { data } => daemon.data_bytes(data).await,
        ChannelMsg::ExtendedData { data, ext } => daemon.extended_data_bytes(ext, data).await,
        ChannelMsg::Eof => daemon.eof().await,
        ChannelMsg::Signal { signal } => daemon.signal(signal).await,
        ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
            daemon.window_change(col_width, row_height, pix_width, pix_height).await
        }
        _ => Ok(()),
    };
    // The daemon's connection is over then, and with it the client's, soon.
    drop(told);
}

fn bytes_of(message: &ChannelMsg) -> usize {
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => data.len(),
        _ => 0,
    }
}
