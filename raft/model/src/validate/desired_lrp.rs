//! Desired LRPs and their updates (lifecycle.md section 8).

use std::collections::BTreeMap;

use super::{BadFields, action, dependency, egress, is_guid, is_instance_count, is_name, rootfs};
use crate::check::{Check, CheckDefinition};
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate, Sidecar};
use crate::limits::{ANNOTATION_BYTES_MAX, MOUNTED_FILES_BYTES_MAX, PORTS_MAX, ROUTES_BYTES_MAX};
use crate::metric_tag::{DynamicValue, MetricTagValue};
use crate::refusal::Refusal;
use crate::volume::VolumeMount;

pub(crate) fn desired_lrp(lrp: &DesiredLrp) -> Result<(), Refusal> {
    bad_fields(lrp, Tags::Optional).refuse()
}

/// As a client of Diego's API desires it: it has a metric tag at least.
pub(crate) fn desired_lrp_of_diegos(lrp: &DesiredLrp) -> Result<(), Refusal> {
    bad_fields(lrp, Tags::Needed).refuse()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tags {
    Needed,
    Optional,
}

/// Diego looks at some fields twice: in the LRP, and in its key and run info.
fn bad_fields(lrp: &DesiredLrp, tags: Tags) -> BadFields {
    let mut bad = BadFields::default();
    let files: usize = lrp.volume_mounted_files.iter().map(|file| file.content.len()).sum();
    let is_log_rate_bad = lrp.log_rate_limit.is_some_and(|limit| limit.bytes_per_second < -1);
    bad.field("volumeMountedFiles", files > MOUNTED_FILES_BYTES_MAX);
    bad.field("domain", !is_name(lrp.domain.as_str()));
    bad.field("rootfs", lrp.rootfs.is_empty());
    bad.field("rootfs", !rootfs::is_url(&lrp.rootfs));
    bad.field("instances", !is_instance_count(lrp.instances));
    bad.field("memory_mb", lrp.memory_mb < 0);
    bad.field("disk_mb", lrp.disk_mb < 0);
    bad.field("log_rate_limit_bytes_per_second", is_log_rate_bad);
    bad.field("annotation", lrp.annotation.len() > ANNOTATION_BYTES_MAX);
    bad.field("max_pids", lrp.max_pids < 0);
    bad.field("routes", routes_bytes(&lrp.routes) > ROUTES_BYTES_MAX);
    bad.field("metric_tags", tags == Tags::Needed && lrp.metric_tags.is_empty());
    bad.part("metric_tags", bad_fields_of_tags(&lrp.metric_tags, &lrp.metrics_guid));
    bad.field("domain", !is_name(lrp.domain.as_str()));
    bad.field("process_guid", !is_guid(lrp.process_guid.as_str()));
    bad.field("volumeMountedFiles", files > MOUNTED_FILES_BYTES_MAX);
    bad.field("ports", lrp.ports.len() > PORTS_MAX || lrp.ports.contains(&0));
    action::optional(&mut bad, "setup", lrp.setup.as_ref());
    action::required(&mut bad, "action", lrp.action.as_ref());
    action::optional(&mut bad, "monitor", lrp.monitor.as_ref());
    bad.environment(&lrp.env);
    for rule in &lrp.egress_rules {
        bad.part("egress_rules", egress::bad_fields(rule));
    }
    dependency::cached_dependencies(&mut bad, &lrp.cached_dependencies);
    dependency::image_layers(&mut bad, &lrp.image_layers, &lrp.legacy_download_user);
    bad.part("sidecars", bad_fields_of_sidecars(&lrp.sidecars));
    for mount in &lrp.volume_mounts {
        volume_mount(&mut bad, mount);
    }
    bad.credentials(!lrp.image_username.is_empty(), !lrp.image_password.is_empty());
    if let Some(definition) = &lrp.check_definition {
        bad.part("check_definition", bad_fields_of_checks(definition));
    }
    bad.field("log_rate_limit", is_log_rate_bad);
    bad
}

pub(crate) fn desired_lrp_update(update: &DesiredLrpUpdate) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("instances", update.instances.is_some_and(|n| !is_instance_count(n)));
    let annotation = update.annotation.as_ref();
    bad.field("annotation", annotation.is_some_and(|text| text.len() > ANNOTATION_BYTES_MAX));
    let routes = update.routes.as_ref();
    bad.field("routes", routes.is_some_and(|routes| routes_bytes(routes) > ROUTES_BYTES_MAX));
    if let Some(tags) = &update.metric_tags {
        bad.part("metric_tags", bad_fields_of_tags(tags, ""));
    }
    bad.credentials(update.image_username.is_some(), update.image_password.is_some());
    bad.refuse()
}

fn routes_bytes(routes: &BTreeMap<String, String>) -> usize {
    routes.values().map(String::len).sum()
}

fn bad_fields_of_tags(tags: &BTreeMap<String, MetricTagValue>, metrics_guid: &str) -> BadFields {
    let mut bad = BadFields::default();
    for tag in tags.values() {
        let is_fixed = !tag.fixed.is_empty();
        let is_bad = is_fixed == (tag.dynamic != DynamicValue::Invalid);
        bad.field("static", is_bad);
        bad.field("dynamic", is_bad);
    }
    let source_id = tags.get("source_id").map(|tag| tag.fixed.as_str());
    let is_another =
        !tags.is_empty() && !metrics_guid.is_empty() && source_id != Some(metrics_guid);
    bad.field("source_id should match metrics_guid", is_another);
    bad
}

fn bad_fields_of_sidecars(sidecars: &[Sidecar]) -> BadFields {
    let mut bad = BadFields::default();
    for sidecar in sidecars {
        action::required(&mut bad, "action", sidecar.action.as_ref());
        bad.field("memory_mb", sidecar.memory_mb < 0);
        bad.field("disk_mb", sidecar.disk_mb < 0);
    }
    bad
}

fn volume_mount(bad: &mut BadFields, mount: &VolumeMount) {
    let shared = mount.shared.as_ref();
    let dedicated = mount.dedicated.as_ref();
    bad.sentence("invalid volume_mount driver", mount.driver.is_empty());
    bad.sentence("invalid volume_mount mode", !["r", "rw"].contains(&mount.mode.as_str()));
    let lacks_volume = shared.is_some_and(|device| device.volume_id.is_empty());
    bad.sentence("invalid volume_mount volume id", lacks_volume);
    let lacks_mounter = dedicated.is_some_and(|device| device.mounter_id.is_empty());
    bad.sentence("invalid volume_mount mounter id", lacks_mounter);
}

fn bad_fields_of_checks(definition: &CheckDefinition) -> BadFields {
    let mut bad = BadFields::default();
    for check in definition.checks.iter().chain(&definition.readiness_checks) {
        let Check { tcp_check, http_check } = check;
        let port = match (tcp_check, http_check) {
            (Some(_), Some(_)) => {
                bad.field("check", true);
                continue;
            }
            (Some(check), None) => check.port,
            (None, Some(check)) => check.port,
            (None, None) => 0,
        };
        bad.field("port", !(1..=u32::from(u16::MAX)).contains(&port));
    }
    bad
}
