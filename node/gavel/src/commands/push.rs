//! `push`: an image becomes an app.
//!
//! The image is staged and the definition rehearsed before anything is changed, so that a bad image
//! does not cost the app that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::admin::{Consistency, ImageMetadata, ImageUser, StagedImage};
use api::limits::STAGING_MAX;
use clap::{Args, ValueEnum};
use model::{DesiredLrp, EnvironmentVariable, ProcessGuid};

use super::parse_guid;
use crate::app::App;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::{POLL_SLACK, START_TIMEOUT_DEFAULT};
use crate::manifest::{self, Application};
use crate::output::Progress;
use crate::recipe::{self, HealthCheck, Wish};
use crate::rollout;
use crate::routes::{RouteWish, default_route, parse_route};
use crate::units::{self, parse_duration, parse_mebibytes};

/// Memory and disk of an instance where nobody says how much, in mebibytes.
const MEMORY_MB_DEFAULT: i32 = 256;
const DISK_MB_DEFAULT: i32 = 1024;

/// Runs a Docker image as an app, and waits until it runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel push hello -o 127.0.0.1:7450/hello -i 3
  gavel push web -o nginx:1.27 -m 128M -e GREETING=hi -c 'exec nginx -g \"daemon off;\"'
  gavel push api -o me/api -u http --endpoint /ready -t 2m
  gavel push worker -o me/worker -u process --no-route
  gavel push web -o me/web --route www.example.com --route www.example.com/admin=9090
  CF_DOCKER_PASSWORD=… gavel push mine -o registry.lan/me/mine --docker-username me
  gavel push                       every app of the manifest.yml here
  gavel push web -f manifest.yml   one of them")]
pub(crate) struct Push {
    /// The app; of a manifest, all where absent
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: Option<ProcessGuid>,
    /// The image, as Docker names it: nginx, user/app:v2, HOST:PORT/app, app@sha256:…
    #[arg(short = 'o', long, value_name = "IMAGE")]
    docker_image: Option<String>,
    /// Takes what is not said here from this file, or from the manifest.yml of this directory;
    /// where there is no image, from the manifest.yml of the current one
    #[arg(short = 'f', long = "manifest", value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// The same as push -o, under an older name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel docker-push hello 127.0.0.1:7450/hello")]
pub(crate) struct DockerPush {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// The image, as Docker names it: nginx, user/app:v2, HOST:PORT/app, app@sha256:…
    image: String,
    #[command(flatten)]
    options: Options,
}

/// What is absent is the manifest's, or the default.
#[derive(Debug, Args)]
struct Options {
    /// How many instances; 1 where nobody says
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    instances: Option<i32>,
    /// Memory of each instance; 256M where nobody says
    #[arg(short, long, value_name = "SIZE", value_parser = parse_mebibytes)]
    memory: Option<i32>,
    /// Disk of each instance, the image's own files among it; 1G where nobody says
    #[arg(short = 'k', long, value_name = "SIZE", value_parser = parse_mebibytes)]
    disk: Option<i32>,
    /// Runs this by /bin/sh of the image, instead of the image's own command
    #[arg(short, long)]
    command: Option<String>,
    /// Sets an environment variable; may be given many times
    #[arg(short, long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<EnvironmentVariable>,
    /// What tells that an instance is healthy: its first port accepts a connection, a GET there is
    /// answered with 200, or its process runs; where nobody says, the image's HEALTHCHECK or its port
    #[arg(short = 'u', long, value_enum, value_name = "TYPE")]
    health_check_type: Option<HealthCheckType>,
    /// The path of the http health check; / where nobody says
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    endpoint: Option<String>,
    /// How long an instance may take until it is healthy, and how long to wait until all are
    #[arg(short = 't', long, value_name = "TIME", value_parser = parse_duration)]
    start_timeout: Option<Duration>,
    /// Answers there: HOST[/PATH], and =PORT for another port of the container than its first; may
    /// be given many times, and takes the place of APP.DOMAIN
    #[arg(long, value_name = "ROUTE", value_parser = parse_route, conflicts_with = "no_route")]
    route: Vec<RouteWish>,
    /// Answers at HOST.DOMAIN instead of APP.DOMAIN
    #[arg(short = 'n', long, value_name = "HOST", conflicts_with_all = ["route", "no_route"])]
    hostname: Option<String>,
    /// Answers nowhere by name
    #[arg(long)]
    no_route: bool,
    /// A user of the image's registry; the password is taken from CF_DOCKER_PASSWORD
    #[arg(long, value_name = "USER", requires = "docker_password")]
    docker_username: Option<String>,
    /// The password of --docker-username
    #[arg(long, hide = true, env = "CF_DOCKER_PASSWORD", hide_env_values = true)]
    docker_password: Option<DockerPassword>,
    /// Makes the app and starts none of it
    #[arg(long)]
    no_start: bool,
}

/// Shown to nobody.
#[derive(Clone)]
struct DockerPassword(String);

impl std::str::FromStr for DockerPassword {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for DockerPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DockerPassword")
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HealthCheckType {
    Port,
    Http,
    Process,
}

impl Options {
    /// Whether nothing but `--no-start` is said: the rest is one app's.
    fn suits_many(&self) -> bool {
        let Self {
            instances,
            memory,
            disk,
            command,
            env,
            health_check_type,
            endpoint,
            start_timeout,
            route,
            hostname,
            no_route,
            docker_username,
            // Of the environment: it may be there for nobody.
            docker_password: _,
            no_start: _,
        } = self;
        let numbers = instances.is_none() && memory.is_none() && disk.is_none();
        let texts = command.is_none() && env.is_empty() && endpoint.is_none();
        let checks = health_check_type.is_none() && start_timeout.is_none();
        let places = route.is_empty() && hostname.is_none() && !no_route;
        numbers && texts && checks && places && docker_username.is_none()
    }
}

impl Push {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let Self { app, docker_image, manifest, options } = self;
        let file = match (&manifest, &docker_image) {
            (Some(file), _) => file.as_path(),
            (None, None) => Path::new(manifest::FILE),
            (None, Some(image)) => {
                let app = app.ok_or_else(|| {
                    Failure::Usage(format!("{image} needs a name: gavel push APP -o {image}"))
                })?;
                let wanted = wanted(&Application::default(), Some(image), &options)?;
                return push(&mut caller, app, wanted).await;
            }
        };
        if manifest.is_none() && !file.exists() {
            return Err(Failure::Usage(format!(
                "there is no {} here, and no image: give one with -o IMAGE, or a manifest with -f",
                manifest::FILE
            )));
        }
        let mut apps = manifest::read(file).map_err(Failure::Usage)?;
        if let Some(name) = &app {
            apps.retain(|one| one.name == name.as_str());
            if apps.is_empty() {
                return Err(Failure::Usage(format!("{}: it has no app {name}", file.display())));
            }
        }
        if apps.len() > 1 && (docker_image.is_some() || !options.suits_many()) {
            return Err(Failure::Usage(format!(
                "{} has {} apps, and options other than -f and --no-start are one app's: name it",
                file.display(),
                apps.len()
            )));
        }
        // All of them, before any is changed.
        let mut wishes = Vec::new();
        for one in &apps {
            let wrong = |why: String| {
                Failure::Usage(format!("{}: app {}: {why}", file.display(), one.name))
            };
            let guid: ProcessGuid = parse_guid(&one.name).map_err(wrong)?;
            wishes.push((guid, wanted(one, docker_image.as_deref(), &options).map_err(wrong)?));
        }
        for (guid, wanted) in wishes {
            push(&mut caller, guid, wanted).await?;
        }
        Ok(())
    }
}

impl DockerPush {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let wanted = wanted(&Application::default(), Some(&self.image), &self.options)?;
        push(&mut caller, self.app, wanted).await
    }
}

/// What is wanted of one app, but for what only the cluster knows.
struct Wanted {
    /// Without routes.
    wish: Wish,
    routes: Routes,
    /// Of the image's registry.
    user: Option<ImageUser>,
    start_timeout: Duration,
}

/// Which routes an app is to have.
enum Routes {
    None,
    /// Its name under the cluster's domain, or this one, and others.
    Default {
        host: Option<String>,
        others: Vec<RouteWish>,
    },
    These(Vec<RouteWish>),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Usage(why)
    }
}

/// A manifest's app under the options of the command line.
fn wanted(app: &Application, image: Option<&str>, options: &Options) -> Result<Wanted, String> {
    let size = |key: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_mebibytes(text).map(Some).map_err(|why| format!("{key}: {why}")),
    };
    let memory = size("memory", &app.memory)?;
    let disk = size("disk_quota", &app.disk_quota)?;
    let of_file = app.docker.as_ref().map(|docker| docker.image.as_str());
    let image = image.or(of_file).ok_or(
        "it names no image: write docker: {image: IMAGE}; what is not a Docker image is not run here",
    )?;
    let instances = match app.instances.map(i32::try_from) {
        Some(Err(_)) => return Err("instances: that is too many".to_owned()),
        Some(Ok(instances)) => Some(instances),
        None => None,
    };
    let health_check = match (options.health_check_type, app.health_check_type.as_deref()) {
        (Some(kind), _) => Some(kind),
        (None, None) => None,
        (None, Some("port")) => Some(HealthCheckType::Port),
        (None, Some("http")) => Some(HealthCheckType::Http),
        // Cloud Foundry has had two words for it.
        (None, Some("process" | "none")) => Some(HealthCheckType::Process),
        (None, Some(other)) => {
            return Err(format!("health-check-type: {other} is not port, http or process"));
        }
    };
    let path = options.endpoint.clone().or_else(|| app.health_check_http_endpoint.clone());
    let path = parse_path(path.as_deref().unwrap_or("/"))
        .map_err(|why| format!("health-check-http-endpoint: {why}"))?;
    let default_timeout = parse_duration(START_TIMEOUT_DEFAULT).expect("a default is a time");
    let start_timeout = options
        .start_timeout
        .or_else(|| app.timeout.map(|seconds| Duration::from_secs(seconds.into())))
        .unwrap_or(default_timeout);
    let mut env: Vec<EnvironmentVariable> = Vec::new();
    for (name, value) in &app.env.0 {
        if options.env.iter().all(|one| one.name != *name) {
            env.push(EnvironmentVariable { name: name.clone(), value: value.clone() });
        }
    }
    env.extend(options.env.iter().cloned());
    let seconds = |seconds: Option<u32>| u64::from(seconds.unwrap_or(0)) * 1000;
    let wish = Wish {
        app: ProcessGuid::from(String::new()),
        image: image.to_owned(),
        instances: options.instances.or(instances).unwrap_or(1),
        memory_mb: options.memory.or(memory).unwrap_or(MEMORY_MB_DEFAULT),
        disk_mb: options.disk.or(disk).unwrap_or(DISK_MB_DEFAULT),
        command: options.command.clone().or_else(|| app.command.clone()),
        env,
        health_check: match health_check {
            None => HealthCheck::Unsaid,
            Some(HealthCheckType::Port) => HealthCheck::Port,
            Some(HealthCheckType::Http) => HealthCheck::Http { path },
            Some(HealthCheckType::Process) => HealthCheck::Process,
        },
        check_timeout_ms: seconds(app.health_check_invocation_timeout),
        check_interval_ms: seconds(app.health_check_interval),
        routes: Vec::new(),
        start_timeout_ms: i64::try_from(start_timeout.as_millis()).unwrap_or(i64::MAX),
        is_started: !options.no_start,
    };
    let routes = wanted_routes(app, options)?;
    Ok(Wanted { wish, routes, user: wanted_user(app, options)?, start_timeout })
}

/// Passwords are neither in files nor among a process's arguments.
fn wanted_user(app: &Application, options: &Options) -> Result<Option<ImageUser>, String> {
    let of_file = app.docker.as_ref().and_then(|docker| docker.username.as_ref());
    let Some(username) = options.docker_username.as_ref().or(of_file) else { return Ok(None) };
    let DockerPassword(password) = options.docker_password.as_ref().ok_or_else(|| {
        format!("docker: username: {username} has a password: put it into CF_DOCKER_PASSWORD")
    })?;
    Ok(Some(ImageUser { username: username.clone(), password: password.clone() }))
}

fn wanted_routes(app: &Application, options: &Options) -> Result<Routes, String> {
    if options.no_route {
        return Ok(Routes::None);
    }
    if !options.route.is_empty() {
        return Ok(Routes::These(options.route.clone()));
    }
    if let Some(host) = &options.hostname {
        return Ok(Routes::Default { host: Some(host.clone()), others: Vec::new() });
    }
    if app.no_route {
        return match app.routes.is_empty() && !app.default_route {
            true => Ok(Routes::None),
            false => Err("no-route: it names routes all the same".to_owned()),
        };
    }
    let mut routes = Vec::new();
    for entry in &app.routes {
        let wrong = |why: String| format!("route {}: {why}", entry.route);
        let mut route = parse_route(&entry.route).map_err(wrong)?;
        route.is_http2 = match entry.protocol.as_deref() {
            None | Some("http1") => false,
            Some("http2") => true,
            Some(other) => return Err(wrong(format!("protocol {other} is not http1 or http2"))),
        };
        routes.push(route);
    }
    if app.default_route || routes.is_empty() {
        return Ok(Routes::Default { host: None, others: routes });
    }
    Ok(Routes::These(routes))
}

/// The routes, now that there is a cluster to ask for its domain.
async fn settle_routes(
    caller: &mut Caller,
    app: &ProcessGuid,
    routes: Routes,
) -> Result<Vec<RouteWish>, Failure> {
    let (host, others) = match routes {
        Routes::None => return Ok(Vec::new()),
        Routes::These(routes) => return Ok(routes),
        Routes::Default { host, others } => (host, others),
    };
    let Some(routing) = caller.client.routing().await? else {
        return match host {
            None => Ok(others),
            Some(host) => Err(Failure::Usage(format!(
                "the cluster has no domain for {host} to be under: its nodes' files name one in \
                 [router]; or say it whole with --route"
            ))),
        };
    };
    let name = host.as_deref().unwrap_or(app.as_str());
    let route = default_route(name, &routing.domain).ok_or_else(|| {
        format!("{name} makes no host: choose another with -n HOST, or --no-route")
    })?;
    let route = parse_route(&route.name)?;
    Ok([vec![route], others].concat())
}

async fn push(caller: &mut Caller, app: ProcessGuid, wanted: Wanted) -> Result<(), Failure> {
    let Wanted { wish, routes, user, start_timeout } = wanted;
    let routes = settle_routes(caller, &app, routes).await?;
    let wish = Wish { app, routes, ..wish };
    let mut progress = caller.screen.progress();
    let metadata = stage(caller, &wish.app, &wish.image, user.as_ref(), &mut progress).await?;
    let mut lrp = recipe::desired_lrp(&wish, &metadata)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    if let Some(user) = user {
        (lrp.image_username, lrp.image_password) = (user.username, user.password);
    }
    let flags = caller.client.feature_flags(Consistency::Linearizable).await?;
    recipe::rehearse(&lrp, &flags).map_err(|refusal| Failure::Refused(refusal.into()))?;
    desire(caller, &lrp, &progress).await?;
    drop(progress);
    if lrp.instances == 0 {
        let app = App::look(&mut caller.client, &wish.app, Consistency::Linearizable).await?;
        return app.show(caller.screen);
    }
    rollout::until_running(caller, &wish.app, start_timeout).await?.show(caller.screen)
}

/// What the image says of itself, as a task on some cell has read it.
async fn stage(
    caller: &mut Caller,
    app: &ProcessGuid,
    image: &str,
    user: Option<&ImageUser>,
    progress: &mut Progress,
) -> Result<ImageMetadata, Failure> {
    progress.say(&format!("staging {image}"));
    let timeout = caller.timeout.unwrap_or(STAGING_MAX + POLL_SLACK);
    let staged = caller
        .client
        .run_errand(timeout, async |admin, context| {
            admin.stage_image(context, app.clone(), image.to_owned(), user.cloned()).await
        })
        .await?;
    let StagedImage { metadata, task_guid, cell_id } = staged;
    let on = cell_id.map_or(String::new(), |cell| format!(" on {cell}"));
    progress.keep(&format!("staged{on} by task {task_guid}"));
    let size = units::bytes(metadata.size);
    progress.keep(&format!("{image} is {}, {size}", metadata.digest));
    Ok(metadata)
}

/// Desires the LRP, in place of the one of its name if there is one.
async fn desire(caller: &mut Caller, lrp: &DesiredLrp, progress: &Progress) -> Result<(), Failure> {
    let guid = &lrp.process_guid;
    let look = format!("gavel app {guid}");
    let is_replaced = caller.client.desired_lrp_if_any(guid).await?.is_some();
    if is_replaced {
        progress.keep(&format!("replacing {guid}"));
        let removed = caller
            .client
            .change(&look, async |admin, context| {
                admin.remove_desired_lrp(context, guid.clone()).await
            })
            .await;
        match removed {
            Ok(()) => {}
            // Somebody else was faster; the aim is reached.
            Err(Failure::Refused(error)) if error.diego_type() == "ResourceNotFound" => {}
            Err(failure) => return Err(failure),
        }
    }
    let desired = caller
        .client
        .change(&look, async |admin, context| {
            admin.desire_lrp(context, Box::new(lrp.clone())).await
        })
        .await;
    match desired {
        Ok(()) => Ok(()),
        Err(Failure::Unknown { reason, look }) => {
            confirm(caller, lrp, Failure::Unknown { reason, look }, progress).await
        }
        Err(failure) => {
            if is_replaced {
                progress.keep(&format!(
                    "the {guid} that ran has been removed, and the new one is not desired: \
                     push again"
                ));
            }
            Err(failure)
        }
    }
}

/// An answer was lost: if the cluster has the LRP as it was sent, the change has happened. If it
/// has not, it may still come, so the outcome stays unknown.
async fn confirm(
    caller: &mut Caller,
    lrp: &DesiredLrp,
    lost: Failure,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.keep("the answer was lost on the way; looking whether the change has happened");
    match caller.client.desired_lrp_if_any(&lrp.process_guid).await {
        Ok(Some(found)) => {
            let sent = DesiredLrp {
                modification_tag: found.modification_tag.clone(),
                created_at: found.created_at,
                // Shown to nobody.
                image_password: found.image_password.clone(),
                ..lrp.clone()
            };
            if sent == *found { Ok(()) } else { Err(lost) }
        }
        Ok(None) | Err(_) => Err(lost),
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".to_owned()) }
}

fn parse_variable(text: &str) -> Result<EnvironmentVariable, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(EnvironmentVariable { name: name.to_owned(), value: value.to_owned() })
        }
        Some(_) | None => Err("a variable is NAME=VALUE".to_owned()),
    }
}
