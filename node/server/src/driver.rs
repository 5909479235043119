//! Starts a node, and ends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use api::tls::TlsError;
use container::container::Shim;
use model::{Cell, CellHealth, Command};
use replica::{Node, Replica};
use rocks::RocksDisk;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::callbacks::Callbacks;
use crate::capacity;
use crate::config::{Config, ConfigError};
use crate::containers::{LinuxContainers, mounts};
use crate::egress;
use crate::faces::admin::AdminFace;
use crate::faces::attach::AttachFace;
use crate::faces::dns;
use crate::listener::{self, Faces};
use crate::peers::TcpPeers;
use crate::security::{Security, is_private};
use crate::sessions::{Sessions, end_leftovers};
use crate::world::{NodeAgent, RealWorld};

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot make the data directory {path}: {error}")]
    DataDir { path: PathBuf, error: std::io::Error },
    #[error("cannot make an HTTP client: {0}")]
    HttpClient(reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "listen = {address:?} would be open to the network without TLS: name ca, cert and key in \
         [tls], or say insecure = true there"
    )]
    Plain { address: String },
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error(transparent)]
    Rocks(#[from] rocks::OpenError),
    #[error(transparent)]
    Replica(#[from] replica::replica::StartError),
    #[error(transparent)]
    Initialise(#[from] replica::replica::InitialiseFailed),
    #[error("cannot run containers: {0}")]
    Containers(String),
    #[error("cannot tell this machine's capacity: {0}")]
    Capacity(std::io::Error),
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    #[error("the replica stopped: {0}")]
    ReplicaStopped(String),
}

/// Runs a node until SIGTERM or SIGINT, or until its disk fails.
///
/// # Errors
///
/// [`Error`], naming the thing and the reason.
pub async fn run(config: Config) -> Result<(), Error> {
    config.check()?;
    let data_dir = config.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| Error::DataDir { path: data_dir.clone(), error })?;
    let data_dir = data_dir
        .canonicalize()
        .map_err(|error| Error::DataDir { path: data_dir.clone(), error })?;
    let security = Arc::new(Security::open(config.tls.files())?);
    let listener = listen(&config).await?;
    let container_networks = egress::policy(&config.cell.network)
        .map_err(|reason| ConfigError::Network { reason })?
        .container_networks;
    // The disk's lock comes first: it keeps a second process away from this node's containers.
    let disk = Arc::new(RocksDisk::open(&data_dir.join("raft"))?);
    let containers = LinuxContainers::open(&config, &data_dir, Shim::default())
        .await
        .map_err(|error| Error::Containers(error.to_string()))?;
    let subnet = containers.subnet();
    let names = dns::Listener::bind(subnet.gateway()).await.map_err(|error| Error::Listen {
        address: format!("{}:53, where containers ask for names", subnet.gateway()),
        error,
    })?;
    let capacity = capacity::of_machine(&config.cell, &data_dir).map_err(Error::Capacity)?;
    let replica_config = replica::Config::new(config.node_id);
    let replica =
        Replica::start(&replica_config, disk, Arc::new(TcpPeers::new(Arc::clone(&security))))
            .await?;
    replica.initialize(members(&config)).await?;
    let callbacks = Callbacks::new().map_err(Error::HttpClient)?;
    let sessions = Sessions::new(containers.runtime().clone());
    let accepting = Arc::clone(&security);
    let world = RealWorld { containers, planning: config.planning, callbacks, sessions, security };
    let agent = Agent::start(cell(&config, capacity), replica, world);
    tracing::info!(
        node_id = config.node_id,
        name = config.name,
        listen = config.listen,
        data_dir = %data_dir.display(),
        "the node has started"
    );
    tokio::spawn(end_leftovers(agent.world().containers.runtime()));
    let faces = Faces {
        admin: AdminFace::new(agent.clone()),
        attach: AttachFace::new(agent.clone(), config.cell.allow_ssh),
        agent: agent.clone(),
    };
    let accepting = tokio::spawn(listener::accept(listener, accepting, faces));
    let naming = tokio::spawn(dns::serve(
        names,
        subnet.into(),
        dns::Upstream::new(&config.cell.network.nameservers),
        dns::Records::new(agent.clone(), container_networks),
    ));
    let initialising = tokio::spawn(initialise(agent.clone()));
    let ended = until_the_end(&agent).await;
    initialising.abort();
    accepting.abort();
    naming.abort();
    agent.world().sessions.close().await;
    // First the replica, and with it the agent's loops: nobody may call the end of the containers
    // a crash, or make new ones.
    agent.replica().shutdown().await;
    if config.stop_containers_on_exit {
        agent.world().containers.stop_all().await;
    }
    ended
}

/// Where the operator says; in plain on loopback only, unless that is said too.
async fn listen(config: &Config) -> Result<TcpListener, Error> {
    let address = config.listen.clone();
    let failed = |error| Error::Listen { address: address.clone(), error };
    let addresses: Vec<_> = tokio::net::lookup_host(&address).await.map_err(failed)?.collect();
    let may_be_plain = config.tls.insecure || is_private(addresses.iter().copied());
    if config.tls.files().is_none() && !may_be_plain {
        return Err(Error::Plain { address });
    }
    TcpListener::bind(&addresses[..]).await.map_err(failed)
}

/// Gives a new cluster the salt of its ids; whoever is first wins.
async fn initialise(agent: NodeAgent) {
    const PAUSE: Duration = Duration::from_millis(200);
    loop {
        match agent.read().await {
            Ok(reading) if reading.state.is_initialised() => return,
            Ok(_) => {
                let salt = rand::random_range(1..=u32::MAX);
                if let Err(error) = agent.propose(Command::InitCluster { salt }).await {
                    tracing::debug!(%error, "the cluster is not initialised yet");
                }
            }
            Err(error) => tracing::debug!(%error, "nobody leads yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_the_end(agent: &NodeAgent) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: the node ends"),
        _ = interrupt.recv() => tracing::info!("SIGINT: the node ends"),
        // A node without its disk promises nothing.
        reason = agent.replica().stopped() => return Err(Error::ReplicaStopped(reason)),
    }
    Ok(())
}

fn members(config: &Config) -> BTreeMap<u64, Node> {
    let node = |member: &crate::config::MemberConfig| Node {
        name: member.name.clone(),
        address: member.address.clone(),
    };
    config.members.iter().map(|member| (member.node_id, node(member))).collect()
}

fn cell(config: &Config, capacity: model::Capacity) -> Cell {
    Cell {
        cell_id: config.name.as_str().into(),
        node_id: config.node_id,
        address: config.cell.external_address,
        zone: config.cell.zone.as_str().into(),
        capacity,
        rootfs_providers: vec![model::RootfsProvider::arbitrary("docker")],
        volume_drivers: mounts::DRIVERS.map(str::to_owned).to_vec(),
        intake: model::Intake::Open,
        placement_tags: config.cell.placement_tags.clone(),
        optional_placement_tags: config.cell.optional_placement_tags.clone(),
        health: CellHealth::Present,
    }
}
