//! Ways into containers: any node is asked, the cell that holds the container answers.

use std::io;

use api::Error;
use api::admin::LogSource;
use api::attach::{self, Frames, FromNode, Open, Relayed, ToNode};
use api::limits::ATTACH_WHO_BYTES_MAX;
use api::wire::{ATTACH_GREETING, Stream};
use container::container::{ContainerId, ContainerState};
use futures_util::SinkExt;
use model::{ActualLrpId, Refusal, State};
use plan::cell::Handle;
use tokio::io::AsyncWriteExt;

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
            Ok(Place::There(address, open)) => self.relay(frames, &address, *open).await,
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

    /// Passes bytes between a client and the node that has the container.
    async fn relay(&self, frames: Frames<Stream>, address: &str, open: Open) -> io::Result<()> {
        let asked = async {
            let stream =
                self.agent.world().security.dialer().dial(address, ATTACH_GREETING).await?;
            let mut frames = attach::frames(stream);
            frames.send(attach::encode(&ToNode::Open(Box::new(open)))).await?;
            Ok(frames.into_inner())
        };
        let mut there = match asked.await {
            Ok(there) => there,
            Err(error) => {
                let error: io::Error = error;
                let reason = format!("the instance's node at {address}: {error}");
                return refuse(frames, Error::Unavailable(reason)).await;
            }
        };
        let parts = frames.into_parts();
        let mut here = parts.io;
        // What an impatient client has sent with its first message.
        there.write_all(&parts.read_buf).await?;
        tokio::io::copy_bidirectional(&mut here, &mut there).await.map(drop)
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
