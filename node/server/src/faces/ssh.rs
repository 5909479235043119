//! Diego's SSH proxy, on this node's own copy of the records: any node leads to instances on every
//! cell.

use ssh::{Directory, HostKey, Login, NotFound, Proxy, Settings, Target};
use tokio::net::TcpListener;

use crate::config::SshProxyConfig;
use crate::world::NodeAgent;

/// Who is where.
struct Records(NodeAgent);

impl Directory for Records {
    fn find(&self, login: &Login) -> Result<Target, NotFound> {
        let state = self.0.read_stale().state;
        let desired = state.desired_lrp(&login.process_guid).map(|lrp| &**lrp);
        let rows = state.actual_lrps_of(&login.process_guid).map(|row| &**row);
        Target::of(desired, rows.filter(|row| row.key.index == login.index))
    }
}

/// Serves until it is told to end.
pub(crate) fn serve(
    config: &SshProxyConfig,
    key: &HostKey,
    listener: TcpListener,
    agent: NodeAgent,
) -> Proxy {
    let settings = Settings {
        connections_max: usize::try_from(config.connections_max).unwrap_or(usize::MAX),
        ..Settings::default()
    };
    let proxy = Proxy::new(key, config.password.reveal(), settings, Records(agent));
    tracing::info!(
        listen = config.listen,
        host_key = key.fingerprint(),
        "SSH visitors are led to instances"
    );
    tokio::spawn(proxy.clone().serve(listener));
    proxy
}
