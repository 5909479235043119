//! What a request must look like before it may change anything.
//!
//! All bad fields of one request are collected and joined with `, `, each as
//! `Invalid field: NAME` (lifecycle.md section 8), in the order of Diego's own validation
//! (bbs/models: `DesiredLRP.Validate`, then `DesiredLRPRunInfo.Validate`).

mod action;
mod dependency;
mod desired_lrp;
mod egress;
mod rootfs;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use desired_lrp::{desired_lrp, desired_lrp_of_diegos, desired_lrp_update};
pub(crate) use task::task;

use crate::action::EnvironmentVariable;
use crate::actual_lrp::{ActualLrpKey, InstanceKey};
use crate::cell::Cell;
use crate::egress::EgressRule;
use crate::feature_flag::FeatureFlag;
use crate::id::{DomainName, LockKey, ProcessGuid};
use crate::limits::{INSTANCES_MAX, LOCK_VALUE_BYTES_MAX, NAME_BYTES_MAX};
use crate::refusal::Refusal;
use crate::state::State;
use crate::time::Millis;

pub(crate) fn cell(cell: &Cell) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("cell_id", !is_name(cell.cell_id.as_str()));
    bad.field("memory_mb", cell.capacity.memory_mb == 0);
    bad.field("containers", cell.capacity.containers == 0);
    bad.refuse()
}

/// What a cell says of an instance: whose it is, and which placement.
pub(crate) fn placement(key: &ActualLrpKey, instance: &InstanceKey) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("process_guid", key.process_guid.as_str().is_empty());
    bad.field("domain", key.domain.as_str().is_empty());
    bad.field("instance_guid", instance.instance_guid.as_str().is_empty());
    bad.field("cell_id", instance.cell_id.as_str().is_empty());
    bad.refuse()
}

pub(crate) fn process_guid(process_guid: &ProcessGuid) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("process_guid", process_guid.as_str().is_empty());
    bad.refuse()
}

pub(crate) fn domain(name: &DomainName) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("domain", !is_name(name.as_str()));
    bad.refuse()
}

/// Locket says what is wrong first, and no more.
pub(crate) fn lock(key: &LockKey, owner: &str, value: &str, ttl: Millis) -> Result<(), Refusal> {
    let refuse = |reason: &str| Err(Refusal::InvalidRequest(reason.to_owned()));
    if ttl == Millis(0) {
        return refuse("invalid-ttl");
    }
    if !is_name(owner) {
        return refuse("invalid-owner");
    }
    let mut bad = BadFields::default();
    bad.field("key", !is_name(key.as_str()));
    bad.field("value", value.len() > LOCK_VALUE_BYTES_MAX);
    bad.refuse()
}

pub(crate) fn egress_rule(rule: &EgressRule) -> Option<String> {
    let bad = egress::bad_fields(rule);
    (!bad.is_empty()).then(|| bad.0.join(", "))
}

/// Docker images run only where an operator has allowed them.
pub(crate) fn rootfs_allowed(state: &State, rootfs: &str) -> Result<(), Refusal> {
    if state.allows(rootfs) {
        return Ok(());
    }
    Err(Refusal::FeatureDisabled(FeatureFlag::DiegoDocker))
}

#[derive(Default)]
struct BadFields(Vec<String>);

impl BadFields {
    fn field(&mut self, name: &str, is_bad: bool) {
        if is_bad {
            self.0.push(format!("Invalid field: {name}"));
        }
    }

    /// A part of the request: the marker, where anything in it is bad, and then what is.
    fn part(&mut self, marker: &str, part: BadFields) {
        if !part.0.is_empty() {
            self.field(marker, true);
            self.0.extend(part.0);
        }
    }

    /// A sentence of Diego's that is no field's name.
    fn sentence(&mut self, sentence: &str, is_bad: bool) {
        if is_bad {
            self.0.push(sentence.to_owned());
        }
    }

    fn credentials(&mut self, has_username: bool, has_password: bool) {
        self.field("image_username", has_password && !has_username);
        self.field("image_password", has_username && !has_password);
    }

    fn environment(&mut self, env: &[EnvironmentVariable]) {
        for variable in env {
            self.sentence("invalid field: name cannot be blank", variable.name.is_empty());
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
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

fn is_instance_count(instances: i32) -> bool {
    u32::try_from(instances).is_ok_and(|count| count <= INSTANCES_MAX)
}
