//! `push`: an image becomes an app.
//!
//! The image is resolved and the definition rehearsed before anything is changed, so that a bad
//! image does not cost the app that runs.

use std::time::Duration;

use api::admin::{Consistency, ImageMetadata, ImageUser};
use clap::{Args, ValueEnum};
use model::{DesiredLrp, EnvironmentVariable, ProcessGuid};

use super::parse_guid;
use crate::app::App;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::limits::START_TIMEOUT_DEFAULT;
use crate::output::Progress;
use crate::recipe::{self, HealthCheck, Wish};
use crate::rollout;
use crate::units::{self, parse_duration, parse_mebibytes};

/// Runs a Docker image as an app, and waits until it runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel push hello -o 127.0.0.1:7450/hello -i 3
  gavel push web -o nginx:1.27 -m 128M -e GREETING=hi -c 'exec nginx -g \"daemon off;\"'
  gavel push api -o me/api -u http --endpoint /ready -t 2m
  gavel push worker -o me/worker -u process
  GAVEL_DOCKER_PASSWORD=… gavel push mine -o registry.lan/me/mine --docker-username me")]
pub(crate) struct Push {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// The image, as Docker names it: nginx, user/app:v2, HOST:PORT/app, app@sha256:…
    #[arg(short = 'o', long, value_name = "IMAGE")]
    docker_image: String,
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

#[derive(Debug, Args)]
struct Options {
    /// How many instances
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(i32).range(0..)
    )]
    instances: i32,
    /// Memory of each instance
    #[arg(
        short,
        long,
        value_name = "SIZE",
        default_value = "256M",
        value_parser = parse_mebibytes
    )]
    memory: i32,
    /// Disk of each instance, the image's own files among it
    #[arg(
        short = 'k',
        long,
        value_name = "SIZE",
        default_value = "1G",
        value_parser = parse_mebibytes
    )]
    disk: i32,
    /// Runs this by /bin/sh of the image, instead of the image's own command
    #[arg(short, long)]
    command: Option<String>,
    /// Sets an environment variable; may be given many times
    #[arg(short, long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<EnvironmentVariable>,
    /// What tells that an instance is healthy: its first port accepts a connection, a GET there is
    /// answered with 200, or its process runs
    #[arg(short = 'u', long, value_enum, value_name = "TYPE", default_value = "port")]
    health_check_type: HealthCheckType,
    /// The path of the http health check
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    endpoint: String,
    /// How long an instance may take until it is healthy, and how long to wait until all are
    #[arg(
        short = 't',
        long,
        value_name = "TIME",
        default_value = START_TIMEOUT_DEFAULT,
        value_parser = parse_duration
    )]
    start_timeout: Duration,
    /// A user of the image's registry; the password is taken from GAVEL_DOCKER_PASSWORD
    #[arg(long, value_name = "USER", requires = "docker_password")]
    docker_username: Option<String>,
    /// The password of --docker-username
    #[arg(long, hide = true, env = "GAVEL_DOCKER_PASSWORD", hide_env_values = true)]
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

impl Push {
    pub(crate) async fn run(self, caller: Caller) -> Result<(), Failure> {
        push(caller, self.app, self.docker_image, self.options).await
    }
}

impl DockerPush {
    pub(crate) async fn run(self, caller: Caller) -> Result<(), Failure> {
        push(caller, self.app, self.image, self.options).await
    }
}

async fn push(
    mut caller: Caller,
    app: ProcessGuid,
    image: String,
    options: Options,
) -> Result<(), Failure> {
    let wish = Wish {
        app,
        image,
        instances: options.instances,
        memory_mb: options.memory,
        disk_mb: options.disk,
        command: options.command,
        env: options.env,
        health_check: match options.health_check_type {
            HealthCheckType::Port => HealthCheck::Port,
            HealthCheckType::Http => HealthCheck::Http { path: options.endpoint },
            HealthCheckType::Process => HealthCheck::Process,
        },
        start_timeout_ms: i64::try_from(options.start_timeout.as_millis()).unwrap_or(i64::MAX),
        is_started: !options.no_start,
    };
    let mut progress = caller.screen.progress();
    let user = options
        .docker_username
        .zip(options.docker_password)
        .map(|(username, DockerPassword(password))| ImageUser { username, password });
    let metadata = resolve(&mut caller, &wish.image, user.as_ref(), &mut progress).await?;
    let mut lrp = recipe::desired_lrp(&wish, &metadata)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    if let Some(user) = user {
        (lrp.image_username, lrp.image_password) = (user.username, user.password);
    }
    let flags = caller.client.feature_flags(Consistency::Linearizable).await?;
    recipe::rehearse(&lrp, &flags).map_err(|refusal| Failure::Refused(refusal.into()))?;
    desire(&mut caller, &lrp, &progress).await?;
    drop(progress);
    if lrp.instances == 0 {
        let app = App::look(&mut caller.client, &wish.app, Consistency::Linearizable).await?;
        return app.show(caller.screen);
    }
    rollout::until_running(&mut caller, &wish.app, options.start_timeout).await?.show(caller.screen)
}

async fn resolve(
    caller: &mut Caller,
    image: &str,
    user: Option<&ImageUser>,
    progress: &mut Progress,
) -> Result<ImageMetadata, Failure> {
    progress.say(&format!("resolving {image}"));
    let metadata = caller
        .client
        .read(async |admin, context| {
            admin.resolve_image(context, image.to_owned(), user.cloned()).await
        })
        .await?;
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
