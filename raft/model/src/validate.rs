//! What a request must look like before it may change anything.
//!
//! All bad fields of one request are collected and joined with `, `, each as
//! `Invalid field: NAME` (lifecycle.md section 8).

use crate::action::{Action, EnvironmentVariable};
use crate::cell::Cell;
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate};
use crate::feature_flag::FeatureFlag;
use crate::id::{DomainName, TaskGuid};
use crate::limits::{
    ANNOTATION_BYTES_MAX, INSTANCES_MAX, NAME_BYTES_MAX, PORTS_MAX, ROUTES_BYTES_MAX,
};
use crate::refusal::Refusal;
use crate::state::State;
use crate::task::TaskDefinition;

pub(crate) fn desired_lrp(lrp: &DesiredLrp) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("process_guid", !is_guid(lrp.process_guid.as_str()));
    bad.field("domain", !is_name(lrp.domain.as_str()));
    bad.field("rootfs", !has_scheme(&lrp.rootfs));
    bad.field("instances", !is_instance_count(lrp.instances));
    bad.field("memory_mb", lrp.memory_mb < 0);
    bad.field("disk_mb", lrp.disk_mb < 0);
    bad.field("max_pids", lrp.max_pids < 0);
    bad.field("annotation", lrp.annotation.len() > ANNOTATION_BYTES_MAX);
    bad.field("routes", lrp.routes.values().map(String::len).sum::<usize>() > ROUTES_BYTES_MAX);
    bad.field("ports", lrp.ports.len() > PORTS_MAX || lrp.ports.contains(&0));
    bad.action(lrp.action.as_ref());
    bad.environment(&lrp.env);
    bad.refuse()
}

pub(crate) fn desired_lrp_update(update: &DesiredLrpUpdate) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("instances", update.instances.is_some_and(|n| !is_instance_count(n)));
    let annotation = update.annotation.as_ref();
    bad.field("annotation", annotation.is_some_and(|text| text.len() > ANNOTATION_BYTES_MAX));
    let routes = update.routes.as_ref();
    let routes_bytes = routes.map_or(0, |routes| routes.values().map(String::len).sum());
    bad.field("routes", routes_bytes > ROUTES_BYTES_MAX);
    bad.refuse()
}

pub(crate) fn task(
    task_guid: &TaskGuid,
    domain: &DomainName,
    definition: &TaskDefinition,
) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("task_guid", !is_guid(task_guid.as_str()));
    bad.field("domain", !is_name(domain.as_str()));
    bad.field("rootfs", !has_scheme(&definition.rootfs));
    bad.action(definition.action.as_ref());
    bad.field("memory_mb", definition.memory_mb < 0);
    bad.field("disk_mb", definition.disk_mb < 0);
    bad.field("max_pids", definition.max_pids < 0);
    bad.field("annotation", definition.annotation.len() > ANNOTATION_BYTES_MAX);
    bad.refuse()
}

pub(crate) fn cell(cell: &Cell) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("cell_id", !is_name(cell.cell_id.as_str()));
    bad.field("memory_mb", cell.capacity.memory_mb == 0);
    bad.field("containers", cell.capacity.containers == 0);
    bad.refuse()
}

pub(crate) fn domain(name: &DomainName) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("domain", !is_name(name.as_str()));
    bad.refuse()
}

/// Docker images run only where an operator has allowed them.
pub(crate) fn rootfs_allowed(state: &State, rootfs: &str) -> Result<(), Refusal> {
    if rootfs.starts_with("docker:") && !state.is_enabled(FeatureFlag::DiegoDocker) {
        return Err(Refusal::FeatureDisabled(FeatureFlag::DiegoDocker));
    }
    Ok(())
}

#[derive(Default)]
struct BadFields(Vec<String>);

impl BadFields {
    fn field(&mut self, name: &str, is_bad: bool) {
        if is_bad {
            self.0.push(format!("Invalid field: {name}"));
        }
    }

    fn action(&mut self, action: Option<&Action>) {
        match action {
            None => self.0.push("invalid action type".to_owned()),
            Some(Action::Run(run)) => {
                let fields = [("path", run.path.is_empty()), ("user", run.user.is_empty())];
                if fields.iter().any(|(_, is_bad)| *is_bad) {
                    self.field("action", true);
                }
                for (name, is_bad) in fields {
                    self.field(name, is_bad);
                }
            }
        }
    }

    fn environment(&mut self, env: &[EnvironmentVariable]) {
        if env.iter().any(|variable| variable.name.is_empty()) {
            self.0.push("invalid field: name cannot be blank".to_owned());
        }
    }

    fn refuse(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::InvalidRequest(self.0.join(", "))) }
    }
}

/// `^[a-zA-Z0-9_-]+$`, and short enough for a key.
fn is_guid(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    is_name(text) && text.bytes().all(is_legal)
}

/// Not empty, short enough for a key, and fit to be printed on one line.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// RFC 3986 section 3.1: a letter, then letters, digits, `+`, `-` and `.`, then a colon.
fn has_scheme(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_legal)
        && !rest.is_empty()
        && !url.chars().any(|c| c.is_control() || c == ' ')
}

fn is_instance_count(instances: i32) -> bool {
    u32::try_from(instances).is_ok_and(|count| count <= INSTANCES_MAX)
}
