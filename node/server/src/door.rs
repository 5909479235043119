//! Who answers on this node: a newcomer, until it is a member.

use std::sync::Arc;

use api::admin::Routing;
use container::image::Store;
use openraft_rt_tokio::TokioRuntime;
use replica::Newcomer;
use replica::peers::{Envelope, PeerRequest, PeerResponse};
use replica::wire::Blob;
use rocks::RocksDisk;
use tokio::sync::watch;

use crate::config::RouterConfig;
use crate::faces::admin::AdminFace;
use crate::faces::attach::AttachFace;
use crate::peers::TcpPeers;
use crate::world::NodeAgent;

pub(crate) type NodeNewcomer = Newcomer<TokioRuntime, RocksDisk, TcpPeers>;

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    Newcomer(NodeNewcomer),
    Member(Faces),
}

/// Who serves what comes in at a member.
#[derive(Clone, Debug)]
pub(crate) struct Faces {
    pub(crate) admin: AdminFace,
    pub(crate) attach: AttachFace,
    /// Raft's messages are its own.
    agent: NodeAgent,
}

/// Leads to whoever answers at the moment. Clones are the same door.
#[derive(Clone, Debug)]
pub(crate) struct Door(Arc<watch::Sender<Host>>);

impl Door {
    /// To a newcomer.
    pub(crate) fn to(newcomer: NodeNewcomer) -> Self {
        Self(Arc::new(watch::Sender::new(Host::Newcomer(newcomer))))
    }

    /// From now on, to the member that it has become.
    pub(crate) fn admit(&self, agent: NodeAgent, allow_ssh: bool, router: Option<&RouterConfig>) {
        let routing =
            router.map(|router| Routing { domain: router.domain.clone(), port: router.port() });
        let admin = AdminFace::new(agent.clone(), routing);
        let attach = AttachFace::new(agent.clone(), allow_ssh);
        self.0.send_replace(Host::Member(Faces { admin, attach, agent }));
    }

    pub(crate) fn host(&self) -> Host {
        self.0.borrow().clone()
    }
}

impl Faces {
    /// What other cells may be sent of.
    pub(crate) fn images(&self) -> &Store {
        self.agent.world().containers.images()
    }
}

impl Host {
    /// Answers another node.
    pub(crate) async fn answer(&self, envelope: Envelope) -> PeerResponse {
        let agent = match self {
            Self::Newcomer(newcomer) => return newcomer.handle(&envelope),
            Self::Member(faces) => &faces.agent,
        };
        match agent.replica().open(envelope) {
            Ok(PeerRequest::Soft(message)) => {
                PeerResponse::Soft(Blob(agent.answer(&message.0).await.into()))
            }
            Ok(request) => agent.replica().handle(request).await,
            Err(answer) => answer,
        }
    }
}
