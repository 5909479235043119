//! Desired LRPs and their updates (lifecycle.md section 8).

use std::collections::BTreeMap;

use super::{
    BadFields, action, dependency, egress, has_scheme, is_guid, is_instance_count, is_name,
};
use crate::check::{Check, CheckDefinition};
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate, Sidecar};
use crate::limits::{ANNOTATION_BYTES_MAX, MOUNTED_FILES_BYTES_MAX, PORTS_MAX, ROUTES_BYTES_MAX};
use crate::metric_tag::{DynamicValue, MetricTagValue};
use crate::refusal::Refusal;
use crate::volume::VolumeMount;

pub(crate) fn desired_lrp(lrp: &DesiredLrp) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("process_guid", !is_guid(lrp.process_guid.as_str()));
    // Diego looks at it in the key as well.
    bad.field("domain", !is_name(lrp.domain.as_str()));
    bad.field("domain", !is_name(lrp.domain.as_str()));
    bad.field("rootfs", lrp.rootfs.is_empty());
    bad.field("rootfs", !has_scheme(&lrp.rootfs));
    bad.field("instances", !is_instance_count(lrp.instances));
    bad.field("memory_mb", lrp.memory_mb < 0);
    bad.field("disk_mb", lrp.disk_mb < 0);
    bad.field("max_pids", lrp.max_pids < 0);
    bad.field("annotation", lrp.annotation.len() > ANNOTATION_BYTES_MAX);
    bad.field("routes", routes_bytes(&lrp.routes) > ROUTES_BYTES_MAX);
    metric_tags(&mut bad, &lrp.metric_tags, &lrp.metrics_guid);
    if let Some(limit) = lrp.log_rate_limit {
        let is_bad = limit.bytes_per_second < -1;
        bad.field("log_rate_limit", is_bad);
        bad.field("log_rate_limit_bytes_per_second", is_bad);
    }
    let files: usize = lrp.volume_mounted_files.iter().map(|file| file.content.len()).sum();
    bad.field("volumeMountedFiles", files > MOUNTED_FILES_BYTES_MAX);
    bad.field("volumeMountedFiles", files > MOUNTED_FILES_BYTES_MAX);
    bad.field("ports", lrp.ports.len() > PORTS_MAX || lrp.ports.contains(&0));
    action::required(&mut bad, "action", lrp.action.as_ref());
    action::optional(&mut bad, "setup", lrp.setup.as_ref());
    action::optional(&mut bad, "monitor", lrp.monitor.as_ref());
    bad.environment(&lrp.env);
    for rule in &lrp.egress_rules {
        bad.part("egress_rules", egress::bad_fields(rule));
    }
    dependency::cached_dependencies(&mut bad, &lrp.cached_dependencies);
    dependency::image_layers(&mut bad, &lrp.image_layers, &lrp.legacy_download_user);
    for sidecar in &lrp.sidecars {
        bad.part("sidecars", bad_fields_of_sidecar(sidecar));
    }
    for mount in &lrp.volume_mounts {
        volume_mount(&mut bad, mount);
    }
    bad.credentials(!lrp.image_username.is_empty(), !lrp.image_password.is_empty());
    if let Some(definition) = &lrp.check_definition {
        bad.part("check_definition", bad_fields_of_checks(definition));
    }
    bad.refuse()
}

pub(crate) fn desired_lrp_update(update: &DesiredLrpUpdate) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("instances", update.instances.is_some_and(|n| !is_instance_count(n)));
    let annotation = update.annotation.as_ref();
    bad.field("annotation", annotation.is_some_and(|text| text.len() > ANNOTATION_BYTES_MAX));
    let routes = update.routes.as_ref();
    bad.field("routes", routes.is_some_and(|routes| routes_bytes(routes) > ROUTES_BYTES_MAX));
    if let Some(tags) = &update.metric_tags {
        metric_tags(&mut bad, tags, "");
    }
    bad.credentials(update.image_username.is_some(), update.image_password.is_some());
    bad.refuse()
}

fn routes_bytes(routes: &BTreeMap<String, String>) -> usize {
    routes.values().map(String::len).sum()
}

fn metric_tags(bad: &mut BadFields, tags: &BTreeMap<String, MetricTagValue>, metrics_guid: &str) {
    for tag in tags.values() {
        let is_fixed = !tag.fixed.is_empty();
        if is_fixed == (tag.dynamic != DynamicValue::Invalid) {
            bad.field("metric_tags", true);
            bad.field("static", true);
            bad.field("dynamic", true);
        }
    }
    let source_id = tags.get("source_id").map(|tag| tag.fixed.as_str());
    if !metrics_guid.is_empty() && source_id != Some(metrics_guid) {
        bad.field("metric_tags", true);
        bad.field("source_id should match metrics_guid", true);
    }
}

fn bad_fields_of_sidecar(sidecar: &Sidecar) -> BadFields {
    let mut bad = BadFields::default();
    action::required(&mut bad, "action", sidecar.action.as_ref());
    bad.field("memory_mb", sidecar.memory_mb < 0);
    bad.field("disk_mb", sidecar.disk_mb < 0);
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
        bad.field("check", tcp_check.is_some() && http_check.is_some());
        let port = match (tcp_check, http_check) {
            (Some(check), _) => check.port,
            (None, Some(check)) => check.port,
            (None, None) => 0,
        };
        bad.field("port", !(1..=u32::from(u16::MAX)).contains(&port));
    }
    bad
}
