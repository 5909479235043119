//! `dev`: a whole cluster on this machine, in the foreground: a process a node, and a registry
//! with a sample to run.
//!
//! - [`layout`]: what each node is told, so that they share nothing;
//! - [`home`]: the data directory;
//! - [`nodes`]: the processes;
//! - [`ready`]: waits until the cluster takes work;
//! - [`sample`]: the image on offer.

mod home;
mod layout;
mod nodes;
mod ready;
mod sample;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use server::Config;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::limits::{DEV_NODES_MAX, DEV_READY_MAX};
use crate::output::{Screen, Style};
use crate::units;
use home::{Cfdot, Home};
use layout::{BBS_PORT_DEFAULT, PORT_DEFAULT, Shares};
use nodes::{Ended, Node, Nodes};

/// Nodes of a cluster on one machine, where nobody says how many.
const NODES_DEFAULT: u16 = 3;

/// Runs a whole cluster on this machine, in the foreground; the state stays for the next time
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel dev
  gavel dev --fresh --nodes 1
  gavel dev --data-dir /tmp/second --port 7540 --registry-port 7550 --router-port 8081 \
      --bbs-port 8989 --host-ports 50001-55000")]
pub(crate) struct Dev {
    /// How many nodes; 3, or as many as the data directory has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(DEV_NODES_MAX)))]
    nodes: Option<u16>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "gavel-data")]
    data_dir: PathBuf,
    /// Forgets what an earlier cluster left in the data directory
    #[arg(long)]
    fresh: bool,
    /// The first node's port; the others follow. 7440, or as the data directory has it
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The port of the registry with the sample app
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 7450,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    registry_port: u16,
    /// The port where apps answer as NAME.localhost
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8080,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    router_port: u16,
    /// The first node's port for Diego's clients, over mutual TLS; the others follow
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = BBS_PORT_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    bbs_port: u16,
    /// Host ports given to containers, shared out among the nodes
    #[arg(long, value_name = "FIRST-LAST", default_value = "61001-65534", value_parser = parse_ports)]
    host_ports: (u16, u16),
    /// How many times as fast as the wall clock the cluster's time goes, to see in seconds what
    /// takes minutes: a crashing app's waits, tasks that expire. The same at each start
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    clock_speed: u32,
}

impl Dev {
    pub(crate) async fn run(self, screen: Screen) -> Result<(), Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::Failed(
                "gavel dev needs root: the kernel lets nobody else make the namespaces, mounts, \
                 bridges and cgroups that containers are made of; run it with sudo"
                    .to_owned(),
            ));
        }
        // Caught before there is anything to leave behind.
        let mut signals = Signals::catch()?;
        let home = Home::open(&self.data_dir)?;
        if self.fresh {
            home.forget()?;
        }
        let configs = self.configs(&home)?;
        for config in &configs {
            check_port(config)?;
        }
        check_free(self.router_port, "the router", "--router-port")?;
        for (port, config) in (self.bbs_port..).zip(&configs) {
            check_free(port, &format!("{}, for Diego's clients,", config.name), "--bbs-port")?;
        }
        let cfdot = home.certify_diego(self.bbs_port)?;
        let registry = self.registry().await?;
        let mut nodes = start(&home, &configs)?;
        let cluster = Cluster {
            home: &home,
            configs: &configs,
            registry_port: self.registry_port,
            router_port: self.router_port,
            cfdot,
        };
        let outcome = tokio::select! {
            outcome = cluster.run(&mut nodes, screen) => outcome,
            () = signals.next() => Ok(()),
        };
        registry.abort();
        eprintln!("stopping the containers and the nodes; Ctrl-C again kills them");
        let is_impatient = tokio::select! {
            () = nodes.stop() => false,
            () = signals.next() => true,
        };
        if is_impatient {
            nodes.kill().await;
        }
        outcome
    }

    /// As the data directory has it, or as asked for.
    fn configs(&self, home: &Home) -> Result<Vec<Config>, Failure> {
        let made = home.made()?;
        let settle =
            |option: &str, asked: Option<u16>, made: Option<u16>, default: u16| match (asked, made)
            {
                (Some(asked), Some(made)) if asked != made => {
                    let path = home.path().display();
                    Err(Failure::Usage(format!(
                        "the cluster in {path} was made with {option} {made}; leave the option \
                         away, give another --data-dir, or forget that cluster with --fresh"
                    )))
                }
                (asked, made) => Ok(asked.or(made).unwrap_or(default)),
            };
        let nodes = made.map(|made| made.nodes);
        let port = made.map(|made| made.port);
        let shares = Shares {
            nodes: settle("--nodes", self.nodes, nodes, NODES_DEFAULT)?,
            port: settle("--port", self.port, port, PORT_DEFAULT)?,
            router_port: self.router_port,
            bbs_port: self.bbs_port,
            host_ports: self.host_ports,
            memory_mb: memory_mb()?,
            disk_mb: disk_mb(home)?,
        };
        let mut configs = layout::configs(&shares, home.path()).map_err(Failure::Usage)?;
        for config in &mut configs {
            let planning = &mut config.planning;
            planning.clock_speed = self.clock_speed;
            // Heartbeats come by the wall clock.
            planning.presence_ttl_seconds *= self.clock_speed;
            config.registries.seal_key = Some(home.seal_key()?);
        }
        Ok(configs)
    }

    async fn registry(&self) -> Result<tokio::task::JoinHandle<()>, Failure> {
        let port = self.registry_port;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(|error| cannot_listen(port, "the registry", "--registry-port", &error))?;
        let registry = sample::registry()
            .map_err(|error| Failure::Failed(format!("the sample cannot be packed: {error}")))?;
        Ok(tokio::spawn(async move {
            let Err(error) = registry.serve(listener).await;
            eprintln!("the registry has ended: {error}");
        }))
    }
}

/// A cluster that has been started.
struct Cluster<'a> {
    home: &'a Home,
    configs: &'a [Config],
    registry_port: u16,
    router_port: u16,
    /// How Diego's own command line reaches it.
    cfdot: Cfdot,
}

impl Cluster<'_> {
    /// Waits until the cluster takes work, says so, and then tells of nodes that end. Returns
    /// only when it does not come about.
    async fn run(&self, nodes: &mut Nodes, screen: Screen) -> Result<(), Failure> {
        let mut progress = screen.progress();
        tokio::select! {
            ready = ready::until_ready(self.configs, &mut progress) => ready.map_err(|waiting| {
                let (wait, path) = (units::duration(DEV_READY_MAX), self.home.path().display());
                Failure::Failed(format!(
                    "the cluster is not ready after {wait}: {waiting}; the nodes' logs are in {path}"
                ))
            })?,
            ended = nodes.ended() => return Err(self.did_not_start(&ended)),
        }
        drop(progress);
        self.announce(screen)?;
        loop {
            let Ended { name, how, said, pause } = nodes.ended().await;
            let pause = units::duration(pause);
            eprintln!("{name} {how}; it starts again in {pause}. Its last words:\n{said}");
        }
    }

    fn did_not_start(&self, Ended { name, how, said, .. }: &Ended) -> Failure {
        let log = self.home.path().join(format!("{name}.log"));
        Failure::Failed(format!("{name} {how}; see {}:\n{said}", log.display()))
    }

    fn announce(&self, screen: Screen) -> Result<(), Failure> {
        let endpoints: Vec<&str> = self.configs.iter().map(Config::advertised).collect();
        let image = format!("127.0.0.1:{}/{}", self.registry_port, sample::NAME);
        let path = self.home.path().display();
        if screen.is_json() {
            return screen.line(json!({
                "endpoints": endpoints,
                "sample": image,
                "router": format!("http://localhost:{}", self.router_port),
                "cfdot": self.cfdot.variables().into_iter().collect::<BTreeMap<_, _>>(),
                "data_dir": path.to_string(),
                "pid": std::process::id(),
            }));
        }
        let nodes = match self.configs.len() {
            1 => "one node".to_owned(),
            count => format!("{count} nodes"),
        };
        let endpoints = endpoints.join(",");
        let gavel = as_typed();
        let option = if self.configs[0].advertised().ends_with(&format!(":{PORT_DEFAULT}")) {
            String::new()
        } else {
            format!(" --endpoints {endpoints}")
        };
        let push = format!("{gavel} push hello -o {image} -i 3{option}");
        screen.line(screen.styled(Style::Good, &format!("A cluster of {nodes} takes work.")))?;
        screen.line(format_args!("  endpoints  {endpoints}"))?;
        screen.line(format_args!("  sample     {image}"))?;
        screen.line(format_args!("  apps       http://APP.localhost:{}", self.router_port))?;
        screen.line(format_args!(
            "  diego      {}, for cfdot: . {}",
            self.cfdot.url(),
            self.cfdot.file.display()
        ))?;
        screen.line(format_args!("  logs       {path}/node-*.log"))?;
        screen.line("\nIn another terminal:\n")?;
        screen.line(format_args!("  {}\n", screen.styled(Style::Bold, &push)))?;
        screen.line("Ctrl-C stops the cluster; what it runs is there again the next time.")
    }
}

/// How the person has called this program, so that the next command works as it is printed.
fn as_typed() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "gavel".to_owned())
}

fn start(home: &Home, configs: &[Config]) -> Result<Nodes, Failure> {
    let mut nodes = Vec::new();
    for config in configs {
        let file = home.write(config)?;
        let args = ["node", "--config", &file.to_string_lossy(), "--parent"];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(std::process::id().to_string());
        let log = home.new_log(&config.name)?;
        // The running program, even when another has taken its place on disk.
        let program = PathBuf::from("/proc/self/exe");
        nodes.push(Node { name: config.name.clone(), program, args, log });
    }
    Ok(Nodes::start(nodes))
}

/// Asked before anything is started: a node would say it in its log only.
fn check_port(config: &Config) -> Result<(), Failure> {
    match TcpListener::bind(&config.listen) {
        Ok(_) => Ok(()),
        Err(error) => {
            let port = config.listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            Err(cannot_listen(port.unwrap_or_default(), &config.name, "--port", &error))
        }
    }
}

fn check_free(port: u16, who: &str, option: &str) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(cannot_listen(port, who, option, &error)),
    }
}

fn cannot_listen(port: u16, who: &str, option: &str, error: &std::io::Error) -> Failure {
    let why = if error.kind() == ErrorKind::AddrInUse {
        format!("port {port} is in use")
    } else {
        format!("port {port} cannot be used: {error}")
    };
    Failure::Failed(format!("{why}; {who} would listen there; choose another with {option}"))
}

/// What the nodes may give to containers: all of the machine's memory but a fifth.
fn memory_mb() -> Result<u64, Failure> {
    let info = nix::sys::sysinfo::sysinfo()
        .map_err(|error| Failure::Failed(format!("this machine's memory is unknown: {error}")))?;
    let total = info.ram_total() >> 20;
    Ok(total - total / 5)
}

/// All of the disk that is free but a tenth.
fn disk_mb(home: &Home) -> Result<u64, Failure> {
    let stat = nix::sys::statvfs::statvfs(home.path())
        .map_err(|error| Failure::Failed(format!("{}: {error}", home.path().display())))?;
    let free = (stat.blocks_available() * stat.fragment_size()) >> 20;
    Ok(free - free / 10)
}

/// What asks this process to end: Ctrl-C, a service manager, a terminal that closes.
struct Signals([Signal; 3]);

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))
        };
        Ok(Self([
            catch(SignalKind::interrupt())?,
            catch(SignalKind::terminate())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let parse = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-').map(|(first, last)| (parse(first), parse(last))) {
        Some((Some(first), Some(last))) if first <= last => Ok((first, last)),
        _ => Err("host ports are FIRST-LAST, for instance 61001-65534".to_owned()),
    }
}
