//! Ways into containers: any node is asked, the cell that holds the container answers.

use std::io;

use api::Error;
use api::admin::LogSource;
use api::attach::{self, Frames, FromNode, Open, Relayed, ToNode};
use api::limits::{ATTACH_CHUNK_BYTES_MAX, ATTACH_WHO_BYTES_MAX};
use api::wire::{Dialer, Stream};
use bytes::BytesMut;
use container::container::{ContainerId, ContainerState};
use futures_util::SinkExt;
use model::{ActualLrpId, Refusal, State};
use plan::cell::Handle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::faces::whereabouts;
use crate::limits::GREETING_TIMEOUT;
use crate::security::Caller;
use crate::sessions::{Visit, Visitor};
use crate::world::NodeAgent;

/// One node's ways into containers.
#[derive(Clone, Debug)]
pub(crate) struct AttachFace {
    agent: NodeAgent,
    /// What the operator says.
    is_allowed: bool,
}

/// Where what a client wants is done.
enum Place {
    Here(Box<Visit>),
    /// The node's address, and what it is to be asked.
    There(String, Box<Open>),
}

impl AttachFace {
    pub(crate) fn new(agent: NodeAgent, is_allowed: bool) -> Self {
        Self { agent, is_allowed }
    }

    /// Serves a client whose greeting has been read, to its end.
    pub(crate) async fn serve(&self, stream: Stream, from: Caller) -> io::Result<()> {
        let mut frames = attach::frames(stream);
        frames.send(attach::encode(&FromNode::Ready)).await?;
        let first = attach::receive(&mut frames);
        let open = match tokio::time::timeout(GREETING_TIMEOUT, first).await?? {
            Some(ToNode::Open(open)) => *open,
            Some(_) => {
                return refuse(frames, Error::Invalid("a stream begins with Open".into())).await;
            }
            None => return Ok(()),
        };
        match self.place(open, &from).await {
            Ok(Place::Here(visit)) => {
                Box::pin(self.agent.world().sessions.carry_out(*visit, frames)).await;
                Ok(())
            }
            Ok(Place::There(address, open)) => {
                relay(frames, &self.agent.world().security.dialer(), &address, *open).await
            }
            Err(error) => {
                tracing::info!(who = %from.visitor, %error, "nobody was let in");
                refuse(frames, error).await
            }
        }
    }

    async fn place(&self, open: Open, from: &Caller) -> Result<Place, Error> {
        if open.relayed.is_some() && !from.may_be_node {
            let reason = "only a node passes on what a client wants";
            return Err(Error::Forbidden(reason.to_owned()));
        }
        let from = &from.visitor;
        let own_cell = self.agent.cell().cell_id.clone();
        if !self.is_allowed {
            let reason = format!("{own_cell} lets nobody into containers: allow_ssh is false");
            return Err(Error::Forbidden(reason));
        }
        // What was pushed a moment ago is there; without a majority what is known here must do.
        let state = match self.agent.read().await {
            Ok(reading) => reading.state,
            Err(_) => self.agent.read_stale().state,
        };
        let (process_guid, index) = (open.process_guid.clone(), open.index);
        if state.desired_lrp(&process_guid).is_none() {
            return Err(Error::Refused(Refusal::DesiredLrpNotFound(process_guid)));
        }
        let source = LogSource::Lrp { process_guid, index };
        let Some((cell_id, handle)) = whereabouts::find(&state, &source)? else {
            return Err(not_running(&state, &open, "it has no container"));
        };
        match &open.relayed {
            Some(relayed) if relayed.on != own_cell || cell_id != own_cell => {
                let reason = format!("the instance has moved: this is {own_cell}, not {cell_id}");
                Err(Error::Unavailable(reason))
            }
            None if cell_id != own_cell => {
                let address = whereabouts::address(&self.agent, &state, &cell_id)?;
                let relayed = Some(Relayed { on: cell_id, who: from.to_string() });
                Ok(Place::There(address, Box::new(Open { relayed, ..open })))
            }
            Some(_) | None => self.visit(&state, open, &handle, from),
        }
    }

    /// What is to be done in a container of this cell.
    fn visit(
        &self,
        state: &State,
        open: Open,
        handle: &Handle,
        from: &Visitor,
    ) -> Result<Place, Error> {
        let containers = &self.agent.world().containers;
        let id = crate::containers::id_text(handle);
        let container = ContainerId::new(id).map_err(|error| Error::Invalid(error.to_string()))?;
        match containers.runtime().get(&container).map(|info| info.state) {
            Ok(ContainerState::Running { .. }) => {}
            Ok(ContainerState::Created) | Err(_) => {
                return Err(not_running(state, &open, "its container is being made"));
            }
            Ok(ContainerState::Exited(_)) => {
                return Err(not_running(state, &open, "its container has exited"));
            }
        }
        let process = containers.process_beside(&container).map_err(Error::Unavailable)?;
        let who = match &open.relayed {
            Some(relayed) => {
                let bound = relayed.who.floor_char_boundary(ATTACH_WHO_BYTES_MAX);
                relayed.who[..bound].escape_debug().to_string()
            }
            None => from.to_string(),
        };
        let instance = format!("{}/{}", open.process_guid, open.index);
        Ok(Place::Here(Box::new(Visit { container, instance, who, what: open.what, process })))
    }
}

/// Passes bytes between a client and the node that has the container.
async fn relay(
    frames: Frames<Stream>,
    dialer: &Dialer,
    address: &str,
    open: Open,
) -> io::Result<()> {
    let mut there = match attach::ready(dialer, address).await {
        Ok(there) => there,
        Err(error) => {
            let reason = format!("the instance's node at {address}: {error}");
            return refuse(frames, Error::Unavailable(reason)).await;
        }
    };
    let mut parts = frames.into_parts();
    let asked = async {
        there.send(attach::encode(&ToNode::Open(Box::new(open)))).await?;
        let mut there = there.into_inner();
        // What an impatient client has sent with its first message.
        there.write_all(&parts.read_buf).await?;
        parts.read_buf.clear();
        let answer = first_bytes(&mut there, &mut parts.io).await?;
        Ok((there, answer))
    };
    match asked.await {
        Ok((mut there, Some(answer))) => {
            parts.io.write_all(&answer).await?;
            tokio::io::copy_bidirectional(&mut parts.io, &mut there).await.map(drop)
        }
        // The client has gone, and with the connection there all that was begun.
        Ok((_, None)) => Ok(()),
        Err(error) => {
            let error: io::Error = error;
            let reason =
                format!("the instance's node at {address} was lost after it was asked: {error}");
            refuse(attach::frames(parts.io), Error::Unknown(reason)).await
        }
    }
}

/// The beginning of the answer from `there`; what the client says meanwhile is passed on. Nothing
/// when the client has gone first.
async fn first_bytes(there: &mut Stream, client: &mut Stream) -> io::Result<Option<BytesMut>> {
    let mut answer = BytesMut::with_capacity(ATTACH_CHUNK_BYTES_MAX);
    let mut said = BytesMut::with_capacity(ATTACH_CHUNK_BYTES_MAX);
    loop {
        tokio::select! {
            length = there.read_buf(&mut answer) => match length? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Ok(Some(answer)),
            },
            length = client.read_buf(&mut said) => match length {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {
                    there.write_all(&said).await?;
                    said.clear();
                }
            },
        }
    }
}

fn not_running(state: &State, open: &Open, why: &str) -> Error {
    let Open { process_guid, index, .. } = open;
    let id = ActualLrpId::ordinary(process_guid.clone(), *index);
    let name = state.actual_lrp(&id).map_or("gone", |lrp| lrp.state.name());
    Error::NotFound(format!("{process_guid}/{index} does not run: it is {name}, and {why}"))
}

async fn refuse(mut frames: Frames<Stream>, error: Error) -> io::Result<()> {
    frames.send(attach::encode(&FromNode::Failed(error))).await
}

#[cfg(test)]
mod tests {
    use api::attach::{Exec, NotOpened, What};
    use api::wire::ATTACH_GREETING;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn wish() -> Open {
        let exec = Exec { command: vec!["date".to_owned()], user: None, terminal: None };
        let (process_guid, what) = ("app".into(), What::Exec(exec));
        Open { process_guid, index: 0, what, relayed: None }
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// As a node takes a client in, up to its wish.
    async fn greeted(listener: &TcpListener) -> Frames<Stream> {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, ATTACH_GREETING);
        attach::frames(Stream::Left(stream))
    }

    /// What a client is told whose wish is passed on to a node that hangs up after it has said
    /// this, or before it was asked.
    async fn told(answers: Option<&[FromNode]>) -> (Result<(), NotOpened>, String) {
        let ((here, here_address), (there, there_address)) = (listen().await, listen().await);
        let relaying = async {
            let mut frames = greeted(&here).await;
            frames.send(attach::encode(&FromNode::Ready)).await.unwrap();
            let asked = attach::receive(&mut frames).await.unwrap();
            assert_eq!(asked, Some(ToNode::Open(Box::new(wish()))));
            relay(frames, &Dialer::default(), &there_address, wish()).await.unwrap();
        };
        let answering = async {
            let mut frames = greeted(&there).await;
            let Some(answers) = answers else { return };
            frames.send(attach::encode(&FromNode::Ready)).await.unwrap();
            let asked = attach::receive(&mut frames).await.unwrap();
            assert_eq!(asked, Some(ToNode::Open(Box::new(wish()))));
            for answer in answers {
                frames.send(attach::encode(answer)).await.unwrap();
            }
        };
        let dialer = Dialer::default();
        let asking = async {
            let mut frames = attach::open(&dialer, &here_address, wish()).await?;
            let next: Option<FromNode> = attach::receive(&mut frames).await.unwrap();
            assert_eq!(next, Some(FromNode::Output("now".into())));
            Ok(())
        };
        let (told, (), ()) = tokio::join!(asking, relaying, answering);
        (told, there_address)
    }

    #[tokio::test]
    async fn a_cell_lost_after_it_was_asked_may_have_done_it() {
        let (opened, _) = told(Some(&[FromNode::Opened, FromNode::Output("now".into())])).await;
        opened.unwrap();
        let (lost, cell) = told(Some(&[])).await;
        let reason = format!("the instance's node at {cell} was lost after it was asked");
        let lost = lost.unwrap_err();
        assert!(
            matches!(&lost, NotOpened::Failed(Error::Unknown(said)) if said.starts_with(&reason)),
            "{lost:?}"
        );
        // Before that it was asked for nothing, and another node may ask it again.
        let unasked = told(None).await.0.unwrap_err();
        assert!(matches!(unasked, NotOpened::Failed(Error::Unavailable(_))), "{unasked:?}");
    }

    #[tokio::test]
    async fn a_client_that_goes_before_the_answer_is_gone_for_the_cell_too() {
        let ((here, here_address), (there, there_address)) = (listen().await, listen().await);
        let client = TcpStream::connect(&here_address).await.unwrap();
        let (stream, _) = here.accept().await.unwrap();
        let frames = attach::frames(Stream::Left(stream));
        let relaying =
            async { relay(frames, &Dialer::default(), &there_address, wish()).await.unwrap() };
        let answering = async {
            let mut frames = greeted(&there).await;
            frames.send(attach::encode(&FromNode::Ready)).await.unwrap();
            let asked: Option<ToNode> = attach::receive(&mut frames).await.unwrap();
            assert!(asked.is_some());
            drop(client);
            let next: Option<ToNode> = attach::receive(&mut frames).await.unwrap();
            assert_eq!(next, None);
        };
        tokio::join!(relaying, answering);
    }
}
