//! Starts a node, and ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use api::tls::TlsError;
use container::container::Shim;
use model::{Cell, CellHealth, Command};
use replica::newcomer::Entrance;
use replica::{Newcomer, Node, NodeId, Replica};
use rocks::RocksDisk;
use router::Router;
use ssh::HostKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::callbacks::Callbacks;
use crate::capacity;
use crate::config::{Config, ConfigError, SshProxyConfig};
use crate::containers::{LinuxContainers, mounts};
use crate::door::Door;
use crate::egress;
use crate::faces::bbs::{self, BbsFace};
use crate::faces::locket::{self, LocketFace};
use crate::faces::nats::{Emitter, Last, SharedFeed};
use crate::faces::{self, dns, rep, routing};
use crate::listener;
use crate::neighbours::{self, Neighbourhood};
use crate::peers::TcpPeers;
use crate::security::{Security, is_private};
use crate::sessions::{Sessions, end_leftovers};
use crate::staging;
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
    #[error(
        "[diego] listen = {address:?} would be open to the network without TLS: insecure = true is \
         for loopback only; name ca, cert and key"
    )]
    PlainDiego { address: String },
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error("the SSH proxy's host key: {0}")]
    HostKey(#[from] ssh::host_key::HostKeyError),
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
    let router = open_router(&config).await?;
    let diego = open_diego(&config).await?;
    let ssh_proxy = open_ssh_proxy(&config, &data_dir).await?;
    let container_networks = egress::policy(&config.cell.network)
        .map_err(|reason| ConfigError::Network { reason })?
        .container_networks;
    // The disk's lock comes first: it keeps a second process away from this node's containers.
    let disk = Arc::new(RocksDisk::open(&data_dir.join("raft"))?);
    let mut signals = Signals::catch()?;
    let peers = Arc::new(TcpPeers::new(Arc::clone(&security)));
    let given =
        replica::Config { name: config.name.clone(), ..replica::Config::new(config.node_id) };
    let newcomer =
        Newcomer::open(&given, members(&config), Arc::clone(&disk), Arc::clone(&peers)).await?;
    let door = Door::to(newcomer.clone());
    let accepting = tokio::spawn(listener::accept(listener, Arc::clone(&security), door.clone()));
    let entrance = tokio::select! {
        entrance = newcomer.introduce() => entrance?,
        signal = signals.next() => {
            tracing::info!(signal, "the node ends, before it was a member");
            return Ok(());
        }
    };
    drop(newcomer);
    let containers = LinuxContainers::open(&config, &data_dir, Shim::default())
        .await
        .map_err(|error| Error::Containers(error.to_string()))?;
    let subnet = containers.subnet();
    let names = dns::Listener::bind(subnet.gateway()).await.map_err(|error| Error::Listen {
        address: format!("{}:53, where containers ask for names", subnet.gateway()),
        error,
    })?;
    let capacity = capacity::of_machine(&config.cell, &data_dir).map_err(Error::Capacity)?;
    let replica_config = replica::Config { id: entrance.id(), ..given };
    let replica = Replica::start(&replica_config, disk, peers).await?;
    if let Entrance::Founder(_, members) = entrance {
        replica.initialize(members).await?;
    }
    let callbacks = Callbacks::new().map_err(Error::HttpClient)?;
    let sessions = Sessions::new(containers.runtime().clone());
    let world = RealWorld { containers, planning: config.planning, callbacks, sessions, security };
    let agent = Agent::start(cell(&config, replica.id(), capacity), replica, world);
    let (tell, cells) = tokio::sync::watch::channel(neighbours::Cells::default());
    let following = tokio::spawn(neighbours::follow(agent.clone(), tell));
    agent.world().containers.images().meet(Arc::new(Neighbourhood::new(
        config.name.clone(),
        Arc::clone(&agent.world().security),
        cells,
    )));
    door.admit(agent.clone(), config.cell.allow_ssh, config.router.as_ref());
    tracing::info!(
        node_id = agent.replica().id(),
        name = config.name,
        listen = config.listen,
        data_dir = %data_dir.display(),
        "the node has started"
    );
    tokio::spawn(end_leftovers(agent.world().containers.runtime()));
    let naming = tokio::spawn(dns::serve(
        names,
        subnet.into(),
        dns::Upstream::new(&config.cell.network.nameservers),
        dns::Records::new(agent.clone(), container_networks),
    ));
    let ssh_proxy = ssh_proxy
        .map(|(listener, key, told)| faces::ssh::serve(told, &key, listener, agent.clone()));
    let (feed, emitter) = start_emitter(&config, &agent).unzip();
    let (router, table) = match router {
        Some((listener, router, table)) => {
            let address = "the router's threads".to_owned();
            router.serve(listener).map_err(|error| Error::Listen { address, error })?;
            (Some(router), Some(table))
        }
        None => (None, None),
    };
    if table.is_some() || feed.is_some() {
        tokio::spawn(routing::follow(agent.clone(), table, feed));
    }
    let diego = diego.map(|(listener, security)| {
        let routes = BbsFace::new(agent.clone())
            .routes()
            .merge(rep::routes(agent.clone()))
            .route_service(locket::PATH, LocketFace::service(agent.clone()));
        tokio::spawn(bbs::listener::serve(listener, security, routes))
    });
    let initialising = tokio::spawn(initialise(agent.clone()));
    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "the node ends");
            Ok(())
        }
        // A node without its disk promises nothing.
        reason = agent.replica().stopped() => Err(Error::ReplicaStopped(reason)),
    };
    initialising.abort();
    accepting.abort();
    naming.abort();
    if let Some(diego) = diego {
        diego.abort();
    }
    if let Some(ssh_proxy) = ssh_proxy {
        ssh_proxy.end().await;
    }
    if let Some(router) = router {
        router.end().await;
    }
    if let Some(emitter) = emitter {
        // Instances that outlive the node are still where routers know them to be.
        let ends = config.stop_containers_on_exit;
        emitter.end(if ends { Last::Withdrawals } else { Last::Nothing }).await;
    }
    following.abort();
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

/// Where Diego's clients are answered, if anywhere; in plain on loopback only.
async fn open_diego(config: &Config) -> Result<Option<(TcpListener, Security)>, Error> {
    let Some(diego) = &config.diego else { return Ok(None) };
    let address = &diego.listen;
    let failed =
        |error| Error::Listen { address: format!("{address}, for Diego's clients"), error };
    let addresses: Vec<_> = tokio::net::lookup_host(address).await.map_err(failed)?.collect();
    let files = config.diego_files();
    if files.is_none() && !is_private(addresses.iter().copied()) {
        return Err(Error::PlainDiego { address: address.clone() });
    }
    let security = Security::open_http(files)?;
    let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
    Ok(Some((listener, security)))
}

/// The router that this node is told to be, and the socket that it waits at.
async fn open_router(
    config: &Config,
) -> Result<Option<(TcpListener, Router, router::proxy::SharedTable)>, Error> {
    let Some(told) = &config.router else { return Ok(None) };
    let Some(listen) = &told.listen else { return Ok(None) };
    let failed = |error| Error::Listen { address: format!("{listen}, for the router"), error };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let connections_max = usize::try_from(told.connections_max).unwrap_or(usize::MAX);
    let table = routing::table();
    let settings = router::Settings { connections_max, ..router::Settings::default() };
    let router = Router::new(Arc::clone(&table), settings);
    Ok(Some((listener, router, table)))
}

/// The SSH proxy that this node is told to be: where it waits, and its key.
async fn open_ssh_proxy<'a>(
    config: &'a Config,
    data_dir: &Path,
) -> Result<Option<(TcpListener, HostKey, &'a SshProxyConfig)>, Error> {
    let Some(told) = &config.ssh_proxy else { return Ok(None) };
    let key = match &told.host_key {
        Some(path) => HostKey::read(path)?,
        None => HostKey::read_or_make(&data_dir.join("ssh_host_key"))?,
    };
    let listen = &told.listen;
    let failed = |error| Error::Listen { address: format!("{listen}, for SSH"), error };
    Ok(Some((TcpListener::bind(listen).await.map_err(failed)?, key, told)))
}

/// What other routers are told of this cell, and the task that tells them.
fn start_emitter(config: &Config, agent: &NodeAgent) -> Option<(Arc<SharedFeed>, Emitter)> {
    let told = config.route_emitter.as_ref()?;
    let settings = router::feed::Settings {
        has_direct_routes: told.direct_instance_routes,
        has_internal_routes: told.internal_routes,
    };
    let feed = SharedFeed::new(router::Feed::new(agent.cell().cell_id.clone(), settings));
    let emitter = Emitter::start(told, &config.name, Arc::clone(&feed));
    Some((feed, emitter))
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

/// What asks a node to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::Signals);
        let terminate = catch(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn members(config: &Config) -> BTreeMap<u64, Node> {
    let node = |member: &crate::config::MemberConfig| Node {
        name: member.name.clone(),
        address: member.address.clone(),
        ..Node::default()
    };
    config.members.iter().map(|member| (member.node_id, node(member))).collect()
}

fn cell(config: &Config, node_id: NodeId, capacity: model::Capacity) -> Cell {
    Cell {
        cell_id: config.name.as_str().into(),
        node_id,
        address: config.cell.external_address,
        zone: config.cell.zone.as_str().into(),
        capacity,
        rootfs_providers: rootfs_providers(config),
        volume_drivers: mounts::DRIVERS.map(str::to_owned).to_vec(),
        rep_url: config.diego_url(),
        intake: model::Intake::Open,
        placement_tags: config.cell.placement_tags.clone(),
        optional_placement_tags: config.cell.optional_placement_tags.clone(),
        health: CellHealth::Present,
    }
}

/// Diego offers no `preloaded` where there is none.
fn rootfs_providers(config: &Config) -> Vec<model::RootfsProvider> {
    let stacks: Vec<_> = config.preloaded.iter().map(|one| one.name.clone()).collect();
    let preloaded = model::RootfsProvider::FixedSet { scheme: "preloaded".to_owned(), stacks };
    let docker = model::RootfsProvider::arbitrary("docker");
    let mut providers = vec![docker, staging::provider()];
    if !config.preloaded.is_empty() {
        providers.push(preloaded);
    }
    providers
}
