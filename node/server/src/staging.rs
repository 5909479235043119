//! Staging: the Task that asks a registry what an image says of itself, in the words that the node
//! that desires it and the cell that does it share.
//!
//! It has the form of Diego's (docker.md section 6): a builder is run with `-dockerRef`, and its
//! result is Diego's `result.json`. But nothing is run: the cell knows the task by its root file
//! system, and asks the registry itself, as it does for layers, without a container
//! ([ADR 13](../../../docs/adr/0013-staging-without-a-container.md)).

use std::time::Duration;

use api::admin::{ImageHealthcheck, ImageMetadata};
use container::image::{Healthcheck, HealthcheckTest, ImageConfig, Reference, Resolved};
use model::{Action, ProcessGuid, RootfsProvider, RunAction, TaskDefinition};
use serde::{Deserialize, Serialize};

use crate::limits::{RESULT_BYTES_MAX, STAGING_DISK_MB, STAGING_MEMORY_MB};

/// The domain of staging tasks. Cloud Controller's is `cf-app-staging` as well.
pub(crate) const DOMAIN: &str = "cf-app-staging";
/// The root file system of a staging task. Operators name theirs under `preloaded:`, so it is
/// nobody else's; and a cell that does not offer it, as one of an older version, is given none.
const SCHEME: &str = "staging";
const KIND: &str = "docker";
const BUILDER: &str = "builder";
const DOCKER_REF: &str = "-dockerRef";
const LIFECYCLE: &str = "docker";
/// The result of a staging that failed for the image's or its registry's sake, and would again: by
/// this it is told from one that its cell could not finish.
pub(crate) const NO_ANSWER: &str = r#"{"lifecycle_type":"docker"}"#;

/// What a cell that can stage offers.
pub(crate) fn provider() -> RootfsProvider {
    RootfsProvider::FixedSet { scheme: SCHEME.to_owned(), stacks: vec![KIND.to_owned()] }
}

/// Whether a root file system is a staging task's. One of the scheme that no cell offers is not
/// placed; it is treated as one of a Docker image all the same.
pub(crate) fn is_rootfs(rootfs: &str) -> bool {
    rootfs.split_once(':').is_some_and(|(scheme, _)| scheme == SCHEME)
}

/// The task that stages an image for an app, without the user of its registry.
pub(crate) fn definition(app: &ProcessGuid, reference: &Reference) -> TaskDefinition {
    let image = reference.to_rootfs();
    let annotation = Annotation { staging: Staging { app: app.as_str(), image: &image } };
    let run = RunAction {
        path: BUILDER.to_owned(),
        args: vec![DOCKER_REF.to_owned(), image.clone()],
        // Of nobody: Diego wants one.
        user: "root".to_owned(),
        log_source: "STG".to_owned(),
        ..RunAction::default()
    };
    TaskDefinition {
        rootfs: format!("{SCHEME}:{KIND}"),
        annotation: serde_json::to_string(&annotation).expect("an annotation is plain data"),
        action: Some(Action::Run(run)),
        memory_mb: STAGING_MEMORY_MB,
        disk_mb: STAGING_DISK_MB,
        log_guid: app.to_string(),
        log_source: "STG".to_owned(),
        ..TaskDefinition::default()
    }
}

/// The image that a staging task asks for. Anybody may desire one, so anything may be in it; but
/// for the user of the registry, the rest of the definition means nothing.
///
/// # Errors
///
/// Says what a staging task is.
pub(crate) fn reference(definition: &TaskDefinition) -> Result<Reference, String> {
    if definition.rootfs != format!("{SCHEME}:{KIND}") {
        return Err(format!("{:?} stages nothing; {SCHEME}:{KIND} does", definition.rootfs));
    }
    let args = match &definition.action {
        Some(Action::Run(run)) if run.path == BUILDER => run.args.as_slice(),
        Some(_) | None => &[],
    };
    let [flag, image] = args else { return Err(expected()) };
    if flag != DOCKER_REF {
        return Err(expected());
    }
    read_reference(image).map_err(|error| error.to_string())
}

fn expected() -> String {
    format!("a staging task runs {BUILDER} {DOCKER_REF} IMAGE, and nothing else")
}

/// An image as Docker names it, or as a root file system's URL.
pub(crate) fn read_reference(image: &str) -> Result<Reference, container::image::Error> {
    if image.starts_with("docker:") {
        Reference::from_rootfs(image)
    } else {
        Reference::from_docker_name(image)
    }
}

#[derive(Serialize)]
struct Annotation<'a> {
    staging: Staging<'a>,
}

#[derive(Serialize)]
struct Staging<'a> {
    app: &'a str,
    image: &'a str,
}

/// Diego's `result.json` (docker.md section 6.3). What Diego has not is among its own parts.
#[derive(Debug, Serialize, Deserialize)]
struct StagingResult {
    lifecycle_type: String,
    lifecycle_metadata: LifecycleMetadata,
    process_types: ProcessTypes,
    /// [`ExecutionMetadata`] as text.
    execution_metadata: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct LifecycleMetadata {
    /// `[HOST/]REPOSITORY:TAG`, without a host on Docker Hub.
    docker_image: String,
    /// Ours: the same as a root file system's URL.
    rootfs: String,
    /// Ours: what the tag means, so that what runs is what was staged.
    digest: model::Digest,
    /// Ours: of all layers, compressed, in bytes.
    size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProcessTypes {
    /// For people: its words are not quoted.
    web: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ExecutionMetadata {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    workdir: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<ExposedPort>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    /// Ours: Diego ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<ImageHealthcheck>,
}

/// Capitalised, in Diego as well.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExposedPort {
    port: u16,
    protocol: Protocol,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

/// What a staging task results in.
///
/// # Errors
///
/// It is more than a task's result may be.
pub(crate) fn result(reference: &Reference, resolved: &Resolved) -> Result<String, String> {
    let config = &resolved.config;
    let execution = ExecutionMetadata {
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        workdir: config.working_dir.clone(),
        ports: ports(config),
        user: config.user.clone(),
        healthcheck: config.healthcheck.as_ref().and_then(healthcheck),
    };
    let words: Vec<&str> =
        config.entrypoint.iter().chain(&config.cmd).map(String::as_str).collect();
    let docker_image = reference.to_string();
    let docker_image = docker_image.strip_prefix("docker.io/").unwrap_or(&docker_image);
    let digest = model::Digest::try_from(resolved.digest.to_string())
        .map_err(|error| format!("{reference}: {error}"))?;
    let result = StagingResult {
        lifecycle_type: LIFECYCLE.to_owned(),
        lifecycle_metadata: LifecycleMetadata {
            docker_image: docker_image.to_owned(),
            rootfs: reference.to_rootfs(),
            digest,
            size: resolved.total_bytes(),
        },
        process_types: ProcessTypes { web: words.join(" ") },
        execution_metadata: serde_json::to_string(&execution).expect("it is plain data"),
    };
    let text = serde_json::to_string(&result).expect("it is plain data");
    if text.len() > RESULT_BYTES_MAX {
        return Err(format!(
            "{reference}: its entrypoint, command and ports take {} bytes, and a task's result \
             {RESULT_BYTES_MAX} at most",
            text.len()
        ));
    }
    Ok(text)
}

/// What a staging task's result says of the image.
///
/// # Errors
///
/// It is none: the cell is of another version.
pub(crate) fn metadata(result: &str) -> Result<ImageMetadata, String> {
    let unread = |error: serde_json::Error| format!("the result of staging: {error}");
    let result: StagingResult = serde_json::from_str(result).map_err(unread)?;
    let execution: ExecutionMetadata =
        serde_json::from_str(&result.execution_metadata).map_err(unread)?;
    let is_tcp = |port: &&ExposedPort| port.protocol == Protocol::Tcp;
    let exposed_ports: Vec<u16> =
        execution.ports.iter().filter(is_tcp).map(|port| port.port).collect();
    Ok(ImageMetadata {
        rootfs: result.lifecycle_metadata.rootfs,
        digest: result.lifecycle_metadata.digest,
        entrypoint: execution.entrypoint,
        cmd: execution.cmd,
        user: execution.user,
        working_dir: execution.workdir,
        is_udp_only: exposed_ports.is_empty() && !execution.ports.is_empty(),
        exposed_ports,
        healthcheck: execution.healthcheck,
        size: result.lifecycle_metadata.size,
    })
}

/// By number, and TCP before UDP.
fn ports(config: &ImageConfig) -> Vec<ExposedPort> {
    let port = |port: &u16, protocol| ExposedPort { port: *port, protocol };
    let tcp = config.exposed_ports.iter().map(|number| port(number, Protocol::Tcp));
    let udp = config.exposed_udp_ports.iter().map(|number| port(number, Protocol::Udp));
    let mut ports: Vec<ExposedPort> = tcp.chain(udp).collect();
    // Stable: of one number the first stays the first.
    ports.sort_by_key(|port| port.port);
    ports
}

/// Docker's own default for a check that does not say how long it may take.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// What an image's HEALTHCHECK runs; nothing where it is turned off.
fn healthcheck(check: &Healthcheck) -> Option<ImageHealthcheck> {
    let command = match &check.test {
        HealthcheckTest::Off => return None,
        HealthcheckTest::Exec(words) => words.clone(),
        HealthcheckTest::Shell(line) => {
            ["/bin/sh", "-c", line].into_iter().map(str::to_owned).collect()
        }
    };
    let timeout = check.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(HEALTHCHECK_TIMEOUT);
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    (!command.is_empty()).then_some(ImageHealthcheck { command, timeout_ms })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn resolved(config: ImageConfig) -> Resolved {
        let digest = container::image::Digest::of(b"a manifest");
        let reference = Reference::from_docker_name("me/hello").unwrap().with_digest(digest);
        Resolved { reference, digest, config, layers_bytes: vec![1000, 24] }
    }

    fn config() -> ImageConfig {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ImageConfig {
            entrypoint: words(&["/bin/hello there"]),
            cmd: words(&["-v", "a \"b\""]),
            env: words(&["SECRET=of the image"]),
            user: "me:mine".to_owned(),
            working_dir: "/app".to_owned(),
            exposed_ports: vec![53, 8080],
            exposed_udp_ports: vec![53, 99],
            healthcheck: Some(Healthcheck {
                test: HealthcheckTest::Shell("exit 0".to_owned()),
                interval: None,
                timeout: Some(Duration::from_secs(3)),
                start_period: None,
                retries: None,
            }),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn the_result_is_diegos_and_says_what_was_staged() {
        let reference = Reference::from_docker_name("me/hello:v2").unwrap();
        let text = result(&reference, &resolved(config())).unwrap();
        expect![[r#"{"lifecycle_type":"docker","lifecycle_metadata":{"docker_image":"me/hello:v2","rootfs":"docker:///me/hello#v2","digest":"sha256:e59625a822497c164d60705eb3fd6975c375ca213b8140137a826a77790986a9","size":1024},"process_types":{"web":"/bin/hello there -v a \"b\""},"execution_metadata":"{\"cmd\":[\"-v\",\"a \\\"b\\\"\"],\"entrypoint\":[\"/bin/hello there\"],\"workdir\":\"/app\",\"ports\":[{\"Port\":53,\"Protocol\":\"tcp\"},{\"Port\":53,\"Protocol\":\"udp\"},{\"Port\":99,\"Protocol\":\"udp\"},{\"Port\":8080,\"Protocol\":\"tcp\"}],\"user\":\"me:mine\",\"healthcheck\":{\"command\":[\"/bin/sh\",\"-c\",\"exit 0\"],\"timeout_ms\":3000}}"}"#]]
            .assert_eq(&text);
        let read = metadata(&text).unwrap();
        assert_eq!(read.exposed_ports, [53, 8080]);
        assert_eq!((read.rootfs.as_str(), read.size), ("docker:///me/hello#v2", 1024));
        assert_eq!((read.user.as_str(), read.working_dir.as_str()), ("me:mine", "/app"));
        assert_eq!((read.entrypoint, read.cmd), (config().entrypoint, config().cmd));
        assert_eq!(read.healthcheck.unwrap().timeout_ms, 3000);
        assert!(!read.is_udp_only);
    }

    #[test]
    fn the_barest_image_leaves_out_what_it_does_not_say() {
        let reference = Reference::from_docker_name("h.example:5000/a").unwrap();
        let text = result(&reference, &resolved(ImageConfig::default())).unwrap();
        expect![[r#"{"lifecycle_type":"docker","lifecycle_metadata":{"docker_image":"h.example:5000/a:latest","rootfs":"docker://h.example:5000/a#latest","digest":"sha256:e59625a822497c164d60705eb3fd6975c375ca213b8140137a826a77790986a9","size":1024},"process_types":{"web":""},"execution_metadata":"{}"}"#]]
            .assert_eq(&text);
        let read = metadata(&text).unwrap();
        assert!(read.entrypoint.is_empty() && read.exposed_ports.is_empty() && !read.is_udp_only);
        let udp = ImageConfig { exposed_udp_ports: vec![53], ..ImageConfig::default() };
        assert!(metadata(&result(&reference, &resolved(udp)).unwrap()).unwrap().is_udp_only);
        let pinned = reference.with_digest(container::image::Digest::of(b"a manifest"));
        let pinned = result(&pinned, &resolved(ImageConfig::default())).unwrap();
        assert!(pinned.contains(r#""docker_image":"h.example:5000/a@sha256:"#), "{pinned}");
    }

    #[test]
    fn what_is_more_than_a_result_is_said_before_it_is_cut() {
        let reference = Reference::from_docker_name("me/hello").unwrap();
        let long = ImageConfig { cmd: vec!["x".repeat(30_000)], ..ImageConfig::default() };
        let error = result(&reference, &resolved(long)).unwrap_err();
        assert!(error.ends_with("and a task's result 51200 at most"), "{error}");
    }

    #[test]
    fn what_is_desired_is_what_the_cell_reads() {
        for image in ["nginx", "me/a:v2", "docker://host/a#b", "h:5000/a/b"] {
            let wanted = read_reference(image).unwrap();
            let definition = definition(&"app".into(), &wanted);
            assert_eq!(reference(&definition).unwrap(), wanted, "{image}");
            assert!(provider().provides(&definition.rootfs) && is_rootfs(&definition.rootfs));
        }
        let definition = definition(&"app".into(), &read_reference("me/a").unwrap());
        expect![[r#"{"staging":{"app":"app","image":"docker:///me/a#latest"}}"#]]
            .assert_eq(&definition.annotation);
    }

    #[test]
    fn what_somebody_else_desires_stages_an_image_or_nothing() {
        let good = definition(&"app".into(), &read_reference("me/a").unwrap());
        let with = |edit: &dyn Fn(&mut TaskDefinition, &mut RunAction)| {
            let mut changed = good.clone();
            let Some(Action::Run(mut run)) = changed.action.take() else { panic!("it runs") };
            edit(&mut changed, &mut run);
            changed.action = Some(Action::Run(run));
            reference(&changed).unwrap_err()
        };
        let expected = expected();
        assert_eq!(with(&|_, run| run.path = "/bin/sh".to_owned()), expected);
        assert_eq!(with(&|_, run| run.args.clear()), expected);
        assert_eq!(with(&|_, run| run.args.push("-insecureDockerRegistries".into())), expected);
        assert_eq!(with(&|_, run| run.args[0] = "-dockerref".to_owned()), expected);
        let bad = with(&|_, run| run.args[1] = "http://169.254.169.254/".to_owned());
        assert!(bad.contains("should not contain a scheme"), "{bad}");
        let other = with(&|task, _| task.rootfs = "staging:else".to_owned());
        assert_eq!(other, "\"staging:else\" stages nothing; staging:docker does");
        assert!(reference(&TaskDefinition { action: None, ..good }).is_err());
        assert!(!is_rootfs("preloaded:staging") && !is_rootfs("docker:///staging"));
        assert!(metadata("{}").is_err() && metadata("").is_err());
    }
}
