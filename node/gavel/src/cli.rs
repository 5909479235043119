//! What can be typed. Words are Cloud Foundry's and Diego's.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use api::tls::TlsFiles;
use api::wire::Dialer;
use clap::{Args, Parser, Subcommand};

use crate::client::Client;
use crate::commands::cluster::Cluster;
use crate::commands::{
    actual_lrps, app, apps, cells, delete, desired_lrps, domains, evacuate, exec, feature_flags,
    logs, push, scale, shell, ssh, tasks,
};
use crate::dev::Dev;
use crate::failure::Failure;
use crate::limits::TIMEOUT_DEFAULT;
use crate::node::Node;
use crate::output::Screen;
use crate::units::parse_duration;

/// Cloud Foundry's Diego as one binary: runs Docker images on a cluster of equal nodes.
#[derive(Debug, Parser)]
#[command(
    name = "gavel",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:
  gavel dev                               a cluster of three nodes on this machine
  gavel push hello -o docker.io/me/hello  runs an image
  gavel app hello                         how it is doing

Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 nobody could be reached."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// Nodes to speak to, tried in turn; any node answers, whoever leads
    #[arg(
        long,
        global = true,
        env = "GAVEL_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        value_parser = parse_endpoint,
        default_value = "127.0.0.1:7440",
        hide_env_values = true
    )]
    endpoints: Vec<String>,
    /// The authorities that vouch for nodes with TLS, in PEM; with --cert and --key
    #[arg(long, global = true, env = "GAVEL_CA", value_name = "FILE", hide_env_values = true)]
    ca: Option<PathBuf>,
    /// This client's certificate, in PEM
    #[arg(long, global = true, env = "GAVEL_CERT", value_name = "FILE", hide_env_values = true)]
    cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, global = true, env = "GAVEL_KEY", value_name = "FILE", hide_env_values = true)]
    key: Option<PathBuf>,
    /// Prints one JSON object a line, with the field names of Diego's cfdot
    #[arg(long, global = true)]
    json: bool,
    /// How long to keep trying [default: 30s; evacuate: 10m]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Here(Here),
    #[command(flatten)]
    There(Box<There>),
}

/// What is done on this machine.
#[derive(Debug, Subcommand)]
enum Here {
    Dev(Dev),
    Node(Node),
    #[command(display_order = 100)]
    Completion(shell::Completion),
    #[command(display_order = 100)]
    Version(shell::Version),
}

/// What a cluster is asked.
#[derive(Debug, Subcommand)]
enum There {
    Push(push::Push),
    DockerPush(push::DockerPush),
    Apps(apps::Apps),
    App(app::App),
    Scale(scale::Scale),
    Start(scale::Start),
    Stop(scale::Stop),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Ssh(ssh::Ssh),
    Delete(delete::Delete),

    EnableFeatureFlag(feature_flags::Enable),
    DisableFeatureFlag(feature_flags::Disable),
    FeatureFlags(feature_flags::List),

    DesiredLrps(desired_lrps::List),
    DesiredLrp(desired_lrps::Show),
    CreateDesiredLrp(desired_lrps::Create),
    UpdateDesiredLrp(desired_lrps::Update),
    DeleteDesiredLrp(desired_lrps::Delete),
    ActualLrps(actual_lrps::List),
    RetireActualLrp(actual_lrps::Retire),

    Tasks(tasks::List),
    Task(tasks::Show),
    CreateTask(tasks::Create),
    CancelTask(tasks::Cancel),
    DeleteTask(tasks::Delete),

    Domains(domains::List),
    SetDomain(domains::Set),
    Cells(cells::Cells),
    Evacuate(evacuate::Evacuate),
    #[command(subcommand)]
    Cluster(Cluster),
}

/// Who asks: a connection to the cluster, and where answers go.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) screen: Screen,
    /// As given; what it is otherwise depends on the command.
    pub(crate) timeout: Option<Duration>,
}

/// Does what was typed; the exit status is a process's where one was attached to.
///
/// # Errors
///
/// A [`Failure`], which knows its exit status.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Globals { endpoints, ca, cert, key, json, timeout } = cli.globals;
    let screen = Screen::new(json);
    match cli.command {
        Command::Here(Here::Dev(dev)) => on_one_thread(dev.run(screen))?,
        Command::Here(Here::Node(node)) => node.run()?,
        Command::Here(Here::Completion(completion)) => completion.run(screen)?,
        Command::Here(Here::Version(version)) => version.run(screen)?,
        // It makes the certificates that others need.
        Command::There(ref there) if let There::Cluster(Cluster::Certs(certs)) = &**there => {
            certs.run(screen)?;
        }
        Command::There(command) => {
            let dialer = dialer(ca, cert, key)?;
            let client = Client::new(endpoints, dialer, timeout.unwrap_or(TIMEOUT_DEFAULT));
            let caller = Caller { client, screen, timeout };
            return on_one_thread(ask(*command, caller));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Connects with TLS where its files are named.
fn dialer(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Dialer, Failure> {
    match (ca, cert, key) {
        (None, None, None) => Ok(Dialer::default()),
        (Some(ca), Some(cert), Some(key)) => {
            let files = TlsFiles { ca, cert, key };
            files.dialer().map_err(|error| Failure::Usage(error.to_string()))
        }
        _ => Err(Failure::Usage(
            "TLS takes all of --ca, --cert and --key (GAVEL_CA, GAVEL_CERT, GAVEL_KEY)".to_owned(),
        )),
    }
}

/// A client waits most of the time, and so does `dev`, whose children must be those of a thread
/// that lives as long as it does.
fn on_one_thread<T>(what: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?;
    tokio::task::LocalSet::new().block_on(&runtime, what)
}

async fn ask(command: There, caller: Caller) -> Result<ExitCode, Failure> {
    match command {
        There::Push(push) => push.run(caller).await?,
        There::DockerPush(push) => push.run(caller).await?,
        There::Apps(apps) => apps.run(caller).await?,
        There::App(app) => app.run(caller).await?,
        There::Scale(scale) => scale.run(caller).await?,
        There::Start(start) => start.run(caller).await?,
        There::Stop(stop) => stop.run(caller).await?,
        There::Logs(logs) => logs.run(caller).await?,
        There::Exec(exec) => return exec.run(caller).await,
        There::Ssh(ssh) => return ssh.run(caller).await,
        There::Delete(delete) => delete.run(caller).await?,
        There::EnableFeatureFlag(enable) => enable.run(caller).await?,
        There::DisableFeatureFlag(disable) => disable.run(caller).await?,
        There::FeatureFlags(list) => list.run(caller).await?,
        There::DesiredLrps(list) => list.run(caller).await?,
        There::DesiredLrp(show) => show.run(caller).await?,
        There::CreateDesiredLrp(create) => create.run(caller).await?,
        There::UpdateDesiredLrp(update) => update.run(caller).await?,
        There::DeleteDesiredLrp(delete) => delete.run(caller).await?,
        There::ActualLrps(list) => list.run(caller).await?,
        There::RetireActualLrp(retire) => retire.run(caller).await?,
        There::Tasks(list) => list.run(caller).await?,
        There::Task(show) => show.run(caller).await?,
        There::CreateTask(create) => create.run(caller).await?,
        There::CancelTask(cancel) => cancel.run(caller).await?,
        There::DeleteTask(delete) => delete.run(caller).await?,
        There::Domains(list) => list.run(caller).await?,
        There::SetDomain(set) => set.run(caller).await?,
        There::Cells(cells) => cells.run(caller).await?,
        There::Evacuate(evacuate) => evacuate.run(caller).await?,
        There::Cluster(cluster) => cluster.run(caller).await?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn parse_endpoint(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.map(str::parse::<u16>) {
        Some(Ok(1..)) => Ok(text.to_owned()),
        Some(_) | None => Err("an endpoint is HOST:PORT, for instance 127.0.0.1:7440".to_owned()),
    }
}
