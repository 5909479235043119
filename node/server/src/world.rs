//! The real world, as the agent asks for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::world::CallbackError;
use agent::{Agent, World};
use model::{Millis, Task};
use openraft_rt_tokio::TokioRuntime;
use plan::Settings;
use rocks::RocksDisk;

use crate::callbacks::Callbacks;
use crate::config::PlanningConfig;
use crate::containers::LinuxContainers;
use crate::peers::TcpPeers;
use crate::security::SharedSecurity;
use crate::sessions::Sessions;

/// A node of the real world.
pub(crate) type NodeAgent = Agent<RealWorld>;

#[derive(Debug)]
pub(crate) struct RealWorld {
    pub(crate) containers: LinuxContainers,
    pub(crate) planning: PlanningConfig,
    pub(crate) callbacks: Callbacks,
    pub(crate) sessions: Sessions,
    pub(crate) security: SharedSecurity,
}

impl World for RealWorld {
    type Runtime = TokioRuntime;
    type Disk = RocksDisk;
    type Peers = TcpPeers;
    type Containers = LinuxContainers;

    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Millis(sped_up(now, self.planning.clock_speed))
    }

    fn duration(&self, stretch: Millis) -> Duration {
        Duration::from_millis(stretch.0) / self.planning.clock_speed.max(1)
    }

    fn stretch(&self, duration: Duration) -> Millis {
        let duration = duration.saturating_mul(self.planning.clock_speed.max(1));
        Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    fn settings(&self) -> Settings {
        self.planning.settings()
    }

    fn containers(&self) -> &LinuxContainers {
        &self.containers
    }

    async fn call_back(&self, task: &Task) -> Result<u16, CallbackError> {
        self.callbacks.post(task).await
    }
}

/// A clock that goes `speed` times as fast, and shows the right time at the start of 2026: all
/// nodes agree, and a test stays within what nanoseconds in 63 bits can say.
fn sped_up(now_ms: u64, speed: u32) -> u64 {
    const START_OF_2026_MS: u64 = 1_767_225_600_000;
    let since = now_ms.saturating_sub(START_OF_2026_MS);
    now_ms.saturating_add(since.saturating_mul(u64::from(speed.saturating_sub(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_as_fast_as_configured() {
        let at = |since: u64| sped_up(1_767_225_600_000 + since, 20) - 1_767_225_600_000;
        assert_eq!((at(0), at(1), at(1000)), (0, 20, 20_000));
        assert_eq!(sped_up(7, 20), 7, "before 2026 it is an ordinary clock");
        assert_eq!(sped_up(1_800_000_000_000, 1), 1_800_000_000_000);
    }
}
