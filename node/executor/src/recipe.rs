//! A recipe: all that one container does from its beginning to its end, with what its processes
//! are told. It is plain data, kept with the container, so that a node that is started again goes
//! on with what was begun.

use std::net::Ipv4Addr;

use container::container::{PortMapping, Process};
use container::image::ImageConfig;
use model::action::Nested;
use model::check::CheckDefinition;
use model::{Action, CellId, DesiredLrp, InstanceGuid, RunAction, TaskDefinition, TaskGuid};
use serde::{Deserialize, Serialize};

use crate::environment::{self, Variables};
use crate::image_layers;

/// Diego: `log_streamer.DefaultLogSource`.
const LOG_SOURCE: &str = "LOG";

/// What a container is, on its cell, that its recipe was not told by its client.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub cell_id: &'a CellId,
    /// What the container's image says of itself.
    pub image: &'a ImageConfig,
    /// The cell's address.
    pub external_address: Ipv4Addr,
    /// The container's own.
    pub address: Ipv4Addr,
    pub ports: &'a [PortMapping],
    /// Whether the operator's trusted certificates are mounted where a client asks for them.
    pub has_trusted_certificates: bool,
    /// Whether the container has a certificate of its own.
    pub has_identity: bool,
}

/// All that one container does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Diego's container guid: the instance's or the task's.
    guid: String,
    cell_id: CellId,
    /// Empty for the default.
    log_source: String,
    pub(crate) setup: Option<Action>,
    pub(crate) action: Option<Action>,
    pub(crate) sidecars: Vec<Option<Action>>,
    pub(crate) monitor: Option<Action>,
    pub(crate) check_definition: Option<CheckDefinition>,
    /// 0 is without end.
    pub(crate) start_timeout_ms: u64,
    /// Of every process, before its own.
    env: Variables,
    /// Of every process, after its own.
    network_env: Variables,
    /// The image's, where a process says nothing.
    user: String,
    working_dir: String,
    /// The image's, which every process finds.
    #[serde(default)]
    volumes: Vec<String>,
}

impl Recipe {
    /// Of one instance of an LRP.
    #[must_use]
    pub fn of_lrp(
        desired: &DesiredLrp,
        index: u32,
        guid: &InstanceGuid,
        surroundings: Surroundings<'_>,
    ) -> Self {
        let user = &desired.legacy_download_user;
        let mut env = environment::of_instance(guid.as_str(), index);
        env.extend(environment::of_client(&desired.env));
        let certificates = &desired.trusted_system_certificates_path;
        Self {
            log_source: desired.log_source.clone(),
            setup: image_layers::setup(&desired.image_layers, user, desired.setup.as_ref()),
            action: desired.action.clone(),
            sidecars: desired.sidecars.iter().map(|sidecar| sidecar.action.clone()).collect(),
            monitor: desired.monitor.clone(),
            check_definition: desired.check_definition.clone(),
            start_timeout_ms: u64::try_from(desired.start_timeout_ms).unwrap_or(0),
            ..Self::new(guid.as_str(), env, certificates, surroundings)
        }
    }

    /// Of a task.
    #[must_use]
    pub fn of_task(
        definition: &TaskDefinition,
        guid: &TaskGuid,
        surroundings: Surroundings<'_>,
    ) -> Self {
        let user = &definition.legacy_download_user;
        let env = environment::of_client(&definition.env);
        let certificates = &definition.trusted_system_certificates_path;
        Self {
            log_source: definition.log_source.clone(),
            setup: image_layers::setup(&definition.image_layers, user, None),
            action: definition.action.clone(),
            ..Self::new(guid.as_str(), env, certificates, surroundings)
        }
    }

    fn new(
        guid: &str,
        container_env: Variables,
        certificates_path: &str,
        surroundings: Surroundings<'_>,
    ) -> Self {
        let Surroundings { cell_id, image, external_address, address, ports, .. } = surroundings;
        let mut env = environment::of_image(&image.env);
        env.extend(container_env);
        if surroundings.has_trusted_certificates && !certificates_path.is_empty() {
            env.push(("CF_SYSTEM_CERT_PATH".to_owned(), certificates_path.to_owned()));
        }
        if surroundings.has_identity {
            env.extend(environment::of_identity());
        }
        Self {
            guid: guid.to_owned(),
            cell_id: cell_id.clone(),
            log_source: String::new(),
            setup: None,
            action: None,
            sidecars: Vec::new(),
            monitor: None,
            check_definition: None,
            start_timeout_ms: 0,
            env,
            network_env: environment::of_network(external_address, address, ports),
            user: image.user.clone(),
            working_dir: image.working_dir.clone(),
            volumes: image.volumes.iter().cloned().collect(),
        }
    }

    /// What the container's lines are said to come from, for instance `APP/PROC/WEB`.
    #[must_use]
    pub fn log_source(&self) -> &str {
        if self.log_source.is_empty() { LOG_SOURCE } else { &self.log_source }
    }

    #[must_use]
    pub fn cell_id(&self) -> &CellId {
        &self.cell_id
    }

    /// Diego's container guid: the instance's or the task's.
    #[must_use]
    pub fn guid(&self) -> &str {
        &self.guid
    }

    /// The process that a run action asks for. Of a name in its environment the later value
    /// counts: image, container, process, network.
    #[must_use]
    pub fn process(&self, run: &RunAction) -> Process {
        let mut env = self.env.clone();
        env.extend(environment::of_client(&run.env));
        env.extend(self.network_env.iter().cloned());
        let mut args = vec![run.path.clone()];
        args.extend(run.args.iter().cloned());
        let said = |of_run: &String, of_image: &String| {
            let texts = [of_run, of_image];
            texts.into_iter().find(|text| !text.is_empty()).cloned()
        };
        Process {
            args,
            env,
            user: said(&run.user, &self.user).unwrap_or_default(),
            working_dir: said(&run.dir, &self.working_dir),
            directories: self.volumes.clone(),
            nofile: run.resource_limits.nofile,
        }
    }

    /// A process beside the app's own, for a person's use: it is told what the first process that
    /// the action runs is told, and has no program yet.
    #[must_use]
    pub fn process_beside(&self) -> Process {
        let run = self.action.as_ref().and_then(first_run).cloned().unwrap_or_default();
        Process { args: Vec::new(), ..self.process(&run) }
    }
}

/// The first by its place, which reading has bounded in depth.
fn first_run(action: &Action) -> Option<&RunAction> {
    fn nested(action: &Option<Nested>) -> Option<&RunAction> {
        action.as_ref().and_then(|Nested(action)| first_run(action))
    }
    match action {
        Action::Run(run) => Some(run),
        Action::Download(_) | Action::Upload(_) => None,
        Action::Timeout(timeout) => nested(&timeout.action),
        Action::EmitProgress(progress) => nested(&progress.action),
        Action::Try(attempt) => nested(&attempt.action),
        Action::Parallel(many) | Action::Serial(many) | Action::Codependent(many) => {
            many.actions.iter().find_map(nested)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            env: ["PATH=/bin", "A=image"].map(str::to_owned).to_vec(),
            user: "1000".to_owned(),
            working_dir: "/srv".to_owned(),
            volumes: ["/data".to_owned()].into(),
            ..ImageConfig::default()
        }
    }

    fn surroundings<'a>(image: &'a ImageConfig, cell_id: &'a CellId) -> Surroundings<'a> {
        Surroundings {
            cell_id,
            image,
            external_address: [10, 0, 0, 1].into(),
            address: [10, 255, 0, 2].into(),
            ports: &[PortMapping { container: 8080, host: 61001 }],
            has_trusted_certificates: true,
            has_identity: true,
        }
    }

    fn lrp() -> Recipe {
        let desired = json!({
            "process_guid": "web", "domain": "d", "rootfs": "docker:///a", "log_source": "APP",
            "env": [{"name": "A", "value": "container"}, {"name": "B", "value": "container"}],
            "start_timeout_ms": -1,
            "trusted_system_certificates_path": "/certs",
            "sidecars": [{"action": {"run": {"path": "/sidecar"}}}],
        });
        let desired = serde_json::from_value(desired).unwrap();
        Recipe::of_lrp(&desired, 3, &"guid".into(), surroundings(&image(), &"cell".into()))
    }

    fn run(run: serde_json::Value) -> RunAction {
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn a_processs_environment_is_in_diegos_order() {
        let process = lrp().process(&run(json!({
            "path": "/app", "args": ["-x"],
            "env": [{"name": "B", "value": "process"}, {"name": "CF_INSTANCE_IP", "value": "no"}],
        })));
        let env: String =
            process.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        expect_test::expect![[r#"
            PATH=/bin
            A=image
            INSTANCE_GUID=guid
            INSTANCE_INDEX=3
            CF_INSTANCE_GUID=guid
            CF_INSTANCE_INDEX=3
            A=container
            B=container
            CF_SYSTEM_CERT_PATH=/certs
            CF_INSTANCE_CERT=/etc/cf-instance-credentials/instance.crt
            CF_INSTANCE_KEY=/etc/cf-instance-credentials/instance.key
            B=process
            CF_INSTANCE_IP=no
            CF_INSTANCE_IP=10.0.0.1
            CF_INSTANCE_INTERNAL_IP=10.255.0.2
            CF_INSTANCE_PORT=61001
            CF_INSTANCE_ADDR=10.0.0.1:61001
            CF_INSTANCE_PORTS=[{"external":61001,"internal":8080}]
        "#]]
        .assert_eq(&env);
        assert_eq!(process.args, ["/app", "-x"]);
    }

    #[test]
    fn a_process_says_more_than_its_image() {
        let recipe = lrp();
        let silent = recipe.process(&run(json!({"path": "/app"})));
        assert_eq!((silent.user.as_str(), silent.working_dir.as_deref()), ("1000", Some("/srv")));
        assert_eq!(silent.nofile, None);
        assert_eq!(silent.directories, ["/data"]);
        let loud = recipe.process(&run(json!({
            "path": "/app", "user": "vcap", "dir": "/app", "resource_limits": {"nofile": 16384},
        })));
        assert_eq!((loud.user.as_str(), loud.working_dir.as_deref()), ("vcap", Some("/app")));
        assert_eq!(loud.nofile, Some(16384));
    }

    #[test]
    fn a_process_beside_the_apps_is_told_what_the_first_is_told() {
        let action = json!({"codependent": {"actions": [
            {"download": {"from": "http://a", "to": "/"}},
            {"timeout": {"timeout_ms": 1, "action": {"run": {
                "path": "/first", "args": ["-x"], "user": "vcap", "dir": "/app",
                "env": [{"name": "OF", "value": "first"}], "resource_limits": {"nofile": 7},
            }}}},
            {"run": {"path": "/second", "user": "other"}},
        ]}});
        let recipe = Recipe { action: Some(serde_json::from_value(action).unwrap()), ..lrp() };
        let beside = recipe.process_beside();
        assert_eq!((beside.user.as_str(), beside.working_dir.as_deref()), ("vcap", Some("/app")));
        assert_eq!((beside.args, beside.nofile), (Vec::new(), Some(7)));
        let has =
            |name: &str, value: &str| beside.env.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("OF", "first") && has("B", "container") && has("CF_INSTANCE_INDEX", "3"));
        let alone = Recipe { action: None, ..lrp() }.process_beside();
        assert_eq!(alone.user, "1000", "the image's");
    }

    #[test]
    fn a_task_is_not_told_of_instances() {
        let definition = json!({
            "rootfs": "docker:///a", "log_source": "TASK", "legacy_download_user": "vcap",
            "image_layers": [{
                "url": "http://a", "destination_path": "/d", "layer_type": "EXCLUSIVE",
                "media_type": "TGZ", "digest_algorithm": "SHA256", "digest_value": "a",
            }],
        });
        let definition = serde_json::from_value(definition).unwrap();
        let (image, cell) = (ImageConfig::default(), "cell".into());
        let surroundings = Surroundings {
            has_identity: false,
            has_trusted_certificates: false,
            ports: &[],
            ..surroundings(&image, &cell)
        };
        let task = Recipe::of_task(&definition, &"guid".into(), surroundings);
        let process = task.process(&run(json!({"path": "/task"})));
        let names: Vec<_> = process.env.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "CF_INSTANCE_IP",
            "CF_INSTANCE_INTERNAL_IP",
            "CF_INSTANCE_PORT",
            "CF_INSTANCE_ADDR",
            "CF_INSTANCE_PORTS",
        ];
        assert_eq!(names, expected);
        assert_eq!((process.user.as_str(), process.working_dir), ("", None));
        assert!(matches!(task.setup, Some(Action::Parallel(_))));
        assert_eq!(task.log_source(), "TASK");
    }

    #[test]
    fn a_recipe_is_kept_as_json() {
        let recipe = lrp();
        assert_eq!(recipe.start_timeout_ms, 0);
        let kept = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&kept).unwrap(), recipe);
        let nameless = Recipe { log_source: String::new(), ..recipe };
        assert_eq!(nameless.log_source(), "LOG");
    }
}
