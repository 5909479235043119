//! The real world, as the agent asks for it.

use std::time::{SystemTime, UNIX_EPOCH};

use agent::{Agent, World};
use model::Millis;
use openraft_rt_tokio::TokioRuntime;
use rocks::RocksDisk;

use crate::containers::LinuxContainers;
use crate::peers::TcpPeers;

/// A node of the real world.
pub(crate) type NodeAgent = Agent<RealWorld>;

#[derive(Debug)]
pub(crate) struct RealWorld {
    pub(crate) containers: LinuxContainers,
}

impl World for RealWorld {
    type Runtime = TokioRuntime;
    type Disk = RocksDisk;
    type Peers = TcpPeers;
    type Containers = LinuxContainers;

    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn containers(&self) -> &LinuxContainers {
        &self.containers
    }
}
