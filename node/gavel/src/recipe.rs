//! Makes the desired LRP of a pushed app: what the image says, under what its owner says.
//!
//! Source: docker.md sections 6.4 (ports) and 7 (which command runs), the parts that Cloud
//! Controller and the launcher play there.

use std::collections::BTreeMap;

use api::admin::{ImageHealthcheck, ImageMetadata};
use model::action::TimeoutAction;
use model::check::{Check, CheckDefinition, HttpCheck, TcpCheck};
use model::{
    Action, Command, DesiredLrp, EnvironmentVariable, FeatureFlag, Millis, ProcessGuid, Refusal,
    RunAction, Stamp, State,
};
use router::route::CF_ROUTER;
use serde_json::json;

use crate::app::{DOMAIN, Note};
use crate::routes::{RouteWish, to_cf_router};

/// The port of an image that exposes none (Cloud Foundry).
const PORT_DEFAULT: u16 = 8080;
/// Open files of one process; a number for programs that read `VCAP_APPLICATION`.
const OPEN_FILES: u32 = 16_384;

/// What the owner of an app says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) app: ProcessGuid,
    /// As it was typed.
    pub(crate) image: String,
    pub(crate) instances: i32,
    pub(crate) memory_mb: i32,
    pub(crate) disk_mb: i32,
    /// Runs instead of the image's own command, by a shell of the image.
    pub(crate) command: Option<String>,
    pub(crate) env: Vec<EnvironmentVariable>,
    pub(crate) health_check: HealthCheck,
    /// Milliseconds that one check may take, and between two; Diego's own where 0.
    pub(crate) check_timeout_ms: u64,
    pub(crate) check_interval_ms: u64,
    pub(crate) routes: Vec<RouteWish>,
    /// Milliseconds until an instance that is not healthy yet has crashed.
    pub(crate) start_timeout_ms: i64,
    pub(crate) is_started: bool,
}

/// What tells that an instance is healthy. Names are `cf`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HealthCheck {
    /// The image's own HEALTHCHECK, and `Port` where it has none.
    Unsaid,
    /// Its first port accepts a connection.
    Port,
    /// A GET of this path at its first port is answered with 200.
    Http { path: String },
    /// Its process runs.
    Process,
}

/// An image that does not say enough of itself to be run as an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(
        "the image {0} has neither an entrypoint nor a command; say what to run with -c COMMAND"
    )]
    NoCommand(String),
    /// Cloud Controller's words, and a way out.
    #[error(
        "No tcp ports found in image metadata: {0} exposes UDP ports only, which nothing routes to or checks; run it with -u process"
    )]
    NoTcpPorts(String),
}

/// The desired LRP of an app.
///
/// # Errors
///
/// [`Unfit`]: nothing says what to run, or there is no port to reach it by.
pub(crate) fn desired_lrp(wish: &Wish, image: &ImageMetadata) -> Result<DesiredLrp, Unfit> {
    let (path, args) = command(wish, image)?;
    if image.is_udp_only && wish.health_check != HealthCheck::Process {
        return Err(Unfit::NoTcpPorts(wish.image.clone()));
    }
    let ports = if image.exposed_ports.is_empty() {
        vec![PORT_DEFAULT]
    } else {
        image.exposed_ports.clone()
    };
    let port = ports[0];
    // A port that a route names is the container's as well.
    let mut ports = ports;
    for named in wish.routes.iter().filter_map(|route| route.port) {
        if !ports.contains(&named) {
            ports.push(named);
        }
    }
    let log_source = "APP/PROC/WEB".to_owned();
    let run = RunAction {
        path,
        args,
        dir: if_empty(&image.working_dir, "/"),
        user: if_empty(&image.user, "root"),
        env: environment(wish, port),
        log_source: log_source.clone(),
        ..RunAction::default()
    };
    let monitor = own_check(wish, image).map(|check| monitor(check, &run));
    let note = Note { image: wish.image.clone(), instances: wish.instances };
    Ok(DesiredLrp {
        process_guid: wish.app.clone(),
        domain: DOMAIN.into(),
        log_guid: wish.app.to_string(),
        log_source,
        rootfs: image.rootfs.clone(),
        rootfs_digest: Some(image.digest.clone()),
        instances: if wish.is_started { wish.instances } else { 0 },
        memory_mb: wish.memory_mb,
        disk_mb: wish.disk_mb,
        max_pids: 0,
        cpu_weight: 0,
        env: Vec::new(),
        action: Some(Action::Run(run)),
        ports,
        annotation: note.to_annotation(),
        routes: if wish.routes.is_empty() {
            BTreeMap::new()
        } else {
            [(CF_ROUTER.to_owned(), to_cf_router(&wish.routes, port))].into()
        },
        monitor,
        check_definition: check_definition(wish, image, port),
        start_timeout_ms: wish.start_timeout_ms,
        ..DesiredLrp::default()
    })
}

/// The image's HEALTHCHECK, where its owner sets none.
fn own_check<'a>(wish: &Wish, image: &'a ImageMetadata) -> Option<&'a ImageHealthcheck> {
    image.healthcheck.as_ref().filter(|_| wish.health_check == HealthCheck::Unsaid)
}

/// Runs the check as the app itself is run.
fn monitor(check: &ImageHealthcheck, app: &RunAction) -> Action {
    let (path, args) = check.command.split_first().expect("a check has a command");
    let run = RunAction {
        path: path.clone(),
        args: args.to_vec(),
        suppress_log_output: true,
        ..app.clone()
    };
    Action::Timeout(TimeoutAction {
        action: Some(Action::Run(run).into()),
        timeout_ms: i64::try_from(check.timeout_ms).unwrap_or(i64::MAX),
        log_source: app.log_source.clone(),
    })
}

fn check_definition(wish: &Wish, image: &ImageMetadata, port: u16) -> Option<CheckDefinition> {
    let port = port.into();
    let (request_timeout_ms, interval_ms) = (wish.check_timeout_ms, wish.check_interval_ms);
    let check = match &wish.health_check {
        HealthCheck::Process => return None,
        HealthCheck::Unsaid if image.healthcheck.is_some() => return None,
        HealthCheck::Unsaid | HealthCheck::Port => {
            let connect_timeout_ms = request_timeout_ms;
            Check {
                tcp_check: Some(TcpCheck { port, connect_timeout_ms, interval_ms }),
                http_check: None,
            }
        }
        HealthCheck::Http { path } => {
            let http_check =
                HttpCheck { port, path: path.clone(), request_timeout_ms, interval_ms };
            Check { tcp_check: None, http_check: Some(http_check) }
        }
    };
    Some(CheckDefinition { checks: vec![check], ..CheckDefinition::default() })
}

/// A start command replaces both parts of the image's; it needs `/bin/sh` in the image.
fn command(wish: &Wish, image: &ImageMetadata) -> Result<(String, Vec<String>), Unfit> {
    if let Some(command) = wish.command.as_ref().filter(|command| !command.is_empty()) {
        return Ok(("/bin/sh".to_owned(), vec!["-c".to_owned(), command.clone()]));
    }
    let mut words = image.entrypoint.iter().chain(&image.cmd).cloned();
    let path = words.next().ok_or_else(|| Unfit::NoCommand(wish.image.clone()))?;
    Ok((path, words.collect()))
}

/// What the app is told besides the image's own environment, which the cell applies below this.
fn environment(wish: &Wish, port: u16) -> Vec<EnvironmentVariable> {
    let name = wish.app.as_str();
    let uris: Vec<&str> = wish.routes.iter().map(|route| route.name.as_str()).collect();
    let application = json!({
        "application_id": name,
        "application_name": name,
        "name": name,
        "process_type": "web",
        "limits": { "mem": wish.memory_mb, "disk": wish.disk_mb, "fds": OPEN_FILES },
        "application_uris": uris,
        "uris": uris,
    });
    let given = [
        ("PORT", port.to_string()),
        ("VCAP_APPLICATION", application.to_string()),
        ("MEMORY_LIMIT", format!("{}m", wish.memory_mb)),
    ];
    let mut env: Vec<EnvironmentVariable> = given
        .into_iter()
        .filter(|(name, _)| wish.env.iter().all(|wished| wished.name != *name))
        .map(|(name, value)| EnvironmentVariable { name: name.to_owned(), value })
        .collect();
    env.extend(wish.env.iter().cloned());
    env
}

fn if_empty(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise } else { text }.to_owned()
}

/// Whether the cluster would take the LRP if there were none of its name: asked of the machine
/// that decides, on an empty state, so that an app is not taken down for a version that is
/// refused.
///
/// # Errors
///
/// The refusal that the cluster would give.
pub(crate) fn rehearse(lrp: &DesiredLrp, flags: &[(FeatureFlag, bool)]) -> Result<(), Refusal> {
    let mut state = State::new();
    let stamp = Stamp { log_index: 1, position: 0, at: Millis(0) };
    for (flag, enabled) in flags {
        let command = Command::SetFeatureFlag { flag: *flag, enabled: *enabled };
        model::apply(&mut state, stamp, command)?;
    }
    let command = Command::DesireLrp { desired_lrp: Box::new(lrp.clone()) };
    model::apply(&mut state, stamp, command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn wish() -> Wish {
        Wish {
            app: "hello".into(),
            image: "me/hello".to_owned(),
            instances: 2,
            memory_mb: 256,
            disk_mb: 1024,
            command: None,
            env: Vec::new(),
            health_check: HealthCheck::Port,
            check_timeout_ms: 0,
            check_interval_ms: 0,
            routes: Vec::new(),
            start_timeout_ms: 60_000,
            is_started: true,
        }
    }

    fn image() -> ImageMetadata {
        ImageMetadata {
            rootfs: "docker:///me/hello#latest".to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)).try_into().unwrap(),
            entrypoint: vec!["/hello".to_owned(), "serve".to_owned()],
            cmd: vec!["--fast".to_owned()],
            user: "1000:1000".to_owned(),
            working_dir: "/srv".to_owned(),
            exposed_ports: vec![80, 9090],
            is_udp_only: false,
            healthcheck: None,
            size: 1,
        }
    }

    fn run(wish: &Wish, image: &ImageMetadata) -> RunAction {
        let Some(Action::Run(run)) = desired_lrp(wish, image).unwrap().action else {
            panic!("there is one kind of action")
        };
        run
    }

    fn check_command(wish: &Wish, image: &ImageMetadata, expected: Expect) {
        let run = run(wish, image);
        let line = [vec![run.path], run.args].concat().join(" | ");
        expected.assert_eq(&format!("{line} as {} in {}", run.user, run.dir));
    }

    #[test]
    fn the_command_is_the_images_unless_one_is_given() {
        check_command(&wish(), &image(), expect!["/hello | serve | --fast as 1000:1000 in /srv"]);
        let own = Wish { command: Some("exec app $PORT".to_owned()), ..wish() };
        check_command(
            &own,
            &image(),
            expect!["/bin/sh | -c | exec app $PORT as 1000:1000 in /srv"],
        );
        let bare = ImageMetadata {
            entrypoint: Vec::new(),
            user: String::new(),
            working_dir: String::new(),
            ..image()
        };
        check_command(&wish(), &bare, expect!["--fast as root in /"]);
        check_command(
            &Wish { command: Some(String::new()), ..wish() },
            &bare,
            expect!["--fast as root in /"],
        );
    }

    #[test]
    fn an_images_own_check_is_taken_where_its_owner_sets_none() {
        let command = ["/bin/sh", "-c", "probe"].map(str::to_owned).to_vec();
        let healthcheck = Some(ImageHealthcheck { command, timeout_ms: 3000 });
        let image = ImageMetadata { healthcheck, ..image() };
        let unsaid = Wish { health_check: HealthCheck::Unsaid, ..wish() };
        let lrp = desired_lrp(&unsaid, &image).unwrap();
        let Some(Action::Timeout(timeout)) = lrp.monitor else { panic!("it has a time") };
        let Some(Action::Run(run)) = timeout.action.map(|it| *it.0) else { panic!("it runs") };
        let words = [vec![run.path], run.args].concat();
        assert_eq!((timeout.timeout_ms, words.join(" ")), (3000, "/bin/sh -c probe".to_owned()));
        assert_eq!((run.user.as_str(), run.dir.as_str()), ("1000:1000", "/srv"));
        assert_eq!(lrp.check_definition, None);
        let said = desired_lrp(&wish(), &image).unwrap();
        assert!(said.monitor.is_none() && said.check_definition.is_some());
    }

    #[test]
    fn an_image_of_udp_ports_alone_is_no_app_that_is_reached() {
        let image = ImageMetadata { is_udp_only: true, exposed_ports: Vec::new(), ..image() };
        let unfit = Unfit::NoTcpPorts("me/hello".to_owned());
        assert_eq!(desired_lrp(&wish(), &image), Err(unfit));
        let worker = Wish { health_check: HealthCheck::Process, ..wish() };
        assert!(desired_lrp(&worker, &image).is_ok());
    }

    #[test]
    fn an_image_without_a_command_is_refused() {
        let mute = ImageMetadata { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
        expect![[r#"
            the image me/hello has neither an entrypoint nor a command; say what to run with -c COMMAND"#]]
        .assert_eq(&desired_lrp(&wish(), &mute).unwrap_err().to_string());
    }

    #[test]
    fn ports_are_the_images_or_8080_and_the_first_is_told() {
        let port = |run: &RunAction| {
            run.env.iter().find(|one| one.name == "PORT").map(|one| one.value.clone())
        };
        assert_eq!(desired_lrp(&wish(), &image()).unwrap().ports, [80, 9090]);
        assert_eq!(port(&run(&wish(), &image())).as_deref(), Some("80"));
        let silent = ImageMetadata { exposed_ports: Vec::new(), ..image() };
        assert_eq!(desired_lrp(&wish(), &silent).unwrap().ports, [8080]);
        assert_eq!(port(&run(&wish(), &silent)).as_deref(), Some("8080"));
    }

    #[test]
    fn health_is_the_first_ports_unless_said_otherwise() {
        let checks = |health_check: HealthCheck| {
            let lrp = desired_lrp(&Wish { health_check, ..wish() }, &image()).unwrap();
            assert_eq!(lrp.start_timeout_ms, 60_000);
            lrp.check_definition.map(|definition| definition.checks)
        };
        let [tcp] = &checks(HealthCheck::Port).unwrap()[..] else { panic!("there is one") };
        assert_eq!((tcp.tcp_check.unwrap().port, &tcp.http_check), (80, &None));
        let path = "/ready".to_owned();
        let [http] = &checks(HealthCheck::Http { path }).unwrap()[..] else { panic!("one") };
        let check = http.http_check.as_ref().unwrap();
        assert_eq!((check.port, check.path.as_str(), &http.tcp_check), (80, "/ready", &None));
        assert_eq!(checks(HealthCheck::Process), None);
    }

    #[test]
    fn the_owners_environment_wins_and_the_images_is_left_to_the_cell() {
        let env = vec![EnvironmentVariable { name: "PORT".to_owned(), value: "1".to_owned() }];
        let run = run(&Wish { env, ..wish() }, &image());
        let names: Vec<_> = run.env.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["VCAP_APPLICATION", "MEMORY_LIMIT", "PORT"]);
        expect![[r#"{"application_id":"hello","application_name":"hello","application_uris":[],"limits":{"disk":1024,"fds":16384,"mem":256},"name":"hello","process_type":"web","uris":[]}"#]]
            .assert_eq(&run.env[0].value);
    }

    #[test]
    fn a_stopped_app_remembers_its_instances() {
        let lrp = desired_lrp(&Wish { is_started: false, ..wish() }, &image()).unwrap();
        assert_eq!(lrp.instances, 0);
        assert_eq!(Note::of(&lrp), Some(Note { image: "me/hello".to_owned(), instances: 2 }));
    }

    #[test]
    fn a_rehearsal_refuses_what_the_cluster_would() {
        let lrp = desired_lrp(&wish(), &image()).unwrap();
        let on = [(FeatureFlag::DiegoDocker, true)];
        assert_eq!(rehearse(&lrp, &on), Ok(()));
        let refusal = rehearse(&lrp, &[]).unwrap_err();
        assert_eq!(refusal, Refusal::FeatureDisabled(FeatureFlag::DiegoDocker));
        let bad = DesiredLrp { ports: vec![0], ..lrp };
        let refusal = rehearse(&bad, &on).unwrap_err();
        assert_eq!(refusal, Refusal::InvalidRequest("Invalid field: ports".to_owned()));
    }
}
