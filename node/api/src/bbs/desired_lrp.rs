//! Desired LRPs, and the shorter forms in which they are listed.

use std::collections::{BTreeMap, BTreeSet};

use model::check::{Check, CheckDefinition, HttpCheck, TcpCheck};
use model::desired_lrp::{Sidecar, UpdateStrategy};
use model::{DesiredLrp, DesiredLrpUpdate, ProcessGuid};

use super::action::{action, action_from};
use super::error::Complaints;
use super::messages::{self as bbs, desired_lrp};
use super::{Malformed, parts};

/// What a client desires.
///
/// # Errors
///
/// [`Malformed`]: the model cannot say it, or it has no metric tag; then with all else that is
/// wrong. What the model can say and should not is otherwise for the model to refuse.
pub fn desired_lrp_from(it: bbs::DesiredLrp, trace_id: &str) -> Result<DesiredLrp, Malformed> {
    #[expect(deprecated, reason = "old clients send them")]
    let (start_timeout_s, legacy_download_user, metrics_guid) = (
        i64::from(it.deprecated_start_timeout_s),
        it.legacy_download_user.clone(),
        it.metrics_guid.clone(),
    );
    let mut complaints = Complaints::default();
    let update_strategy = match it.update_strategy.try_into() {
        Ok(desired_lrp::UpdateStrategy::Rolling) => UpdateStrategy::Rolling,
        Ok(desired_lrp::UpdateStrategy::Recreate) => UpdateStrategy::Recreate,
        Err(_) => {
            complaints.field("update_strategy", true);
            UpdateStrategy::Rolling
        }
    };
    // An empty map and an absent one are the same on the wire; Diego takes it for an absent one.
    let lacks_tags = it.metric_tags.is_empty();
    let lrp = DesiredLrp {
        process_guid: it.process_guid.into(),
        domain: it.domain.into(),
        log_guid: it.log_guid,
        log_source: it.log_source,
        rootfs: it.root_fs,
        rootfs_digest: None,
        instances: it.instances,
        memory_mb: it.memory_mb,
        disk_mb: it.disk_mb,
        max_pids: it.max_pids,
        cpu_weight: it.cpu_weight,
        env: parts::env_from(it.environment_variables),
        action: it.action.map(|it| action_from(&mut complaints, it)),
        ports: ports_from(&mut complaints, &it.ports),
        routes: it.routes.map(|routes| routes_from(&mut complaints, routes)).unwrap_or_default(),
        annotation: it.annotation,
        placement_tags: it.placement_tags,
        setup: it.setup.map(|it| action_from(&mut complaints, it)),
        monitor: it.monitor.map(|it| action_from(&mut complaints, it)),
        check_definition: it.check_definition.map(checks_from),
        start_timeout_ms: match it.start_timeout_ms {
            0 => start_timeout_s * 1000,
            timeout_ms => timeout_ms,
        },
        privileged: it.privileged,
        egress_rules: parts::egress_rules_from(it.egress_rules),
        cached_dependencies: parts::dependencies_from(it.cached_dependencies),
        image_layers: parts::layers_from(it.image_layers),
        legacy_download_user,
        trusted_system_certificates_path: it.trusted_system_certificates_path,
        volume_mounts: parts::mounts_from(it.volume_mounts),
        volume_mounted_files: parts::files_from(it.volume_mounted_files),
        network: parts::network_from(it.network),
        certificate_properties: parts::certificate_from(it.certificate_properties),
        image_username: it.image_username,
        image_password: it.image_password,
        sidecars: sidecars_from(&mut complaints, it.sidecars),
        log_rate_limit: parts::log_rate_from(it.log_rate_limit),
        metrics_guid,
        metric_tags: parts::metric_tags_from(it.metric_tags),
        update_strategy,
        trace_id: trace_id.to_owned(),
        ..DesiredLrp::default()
    };
    if lacks_tags || !complaints.is_empty() {
        complaints.after(lrp.complaint());
    }
    complaints.refuse().map(|()| lrp)
}

/// As lists have it: Diego mirrors the source of its metrics there, and nowhere else.
#[must_use]
pub fn desired_lrp(it: &DesiredLrp) -> bbs::DesiredLrp {
    let mut lrp = desired_lrp_in_event(it);
    #[expect(deprecated, reason = "old clients read it")]
    parts::mirror(&mut lrp.metrics_guid, &mut lrp.metric_tags);
    lrp
}

/// As it was desired, but without the password of its registry, which is shown to nobody.
pub(super) fn desired_lrp_in_event(it: &DesiredLrp) -> bbs::DesiredLrp {
    let update_strategy = match it.update_strategy {
        UpdateStrategy::Rolling => desired_lrp::UpdateStrategy::Rolling,
        UpdateStrategy::Recreate => desired_lrp::UpdateStrategy::Recreate,
    };
    #[expect(deprecated, reason = "old clients read what they sent")]
    bbs::DesiredLrp {
        process_guid: it.process_guid.to_string(),
        domain: it.domain.to_string(),
        root_fs: it.rootfs.clone(),
        instances: it.instances,
        environment_variables: parts::env(&it.env),
        setup: it.setup.as_ref().map(action),
        action: it.action.as_ref().map(action),
        start_timeout_ms: it.start_timeout_ms,
        deprecated_start_timeout_s: 0,
        monitor: it.monitor.as_ref().map(action),
        disk_mb: it.disk_mb,
        memory_mb: it.memory_mb,
        cpu_weight: it.cpu_weight,
        privileged: it.privileged,
        ports: ports(it),
        routes: Some(routes(it)),
        log_source: it.log_source.clone(),
        log_guid: it.log_guid.clone(),
        metrics_guid: it.metrics_guid.clone(),
        annotation: it.annotation.clone(),
        egress_rules: parts::egress_rules(&it.egress_rules),
        modification_tag: Some(super::actual_lrp::modification_tag(&it.modification_tag)),
        cached_dependencies: parts::dependencies(&it.cached_dependencies),
        legacy_download_user: it.legacy_download_user.clone(),
        trusted_system_certificates_path: it.trusted_system_certificates_path.clone(),
        volume_mounts: parts::mounts(&it.volume_mounts),
        network: parts::network(it.network.as_ref()),
        placement_tags: it.placement_tags.clone(),
        max_pids: it.max_pids,
        certificate_properties: parts::certificate(it.certificate_properties.as_ref()),
        image_username: it.image_username.clone(),
        image_password: String::new(),
        check_definition: it.check_definition.as_ref().map(checks),
        image_layers: parts::layers(&it.image_layers),
        metric_tags: parts::metric_tags(&it.metric_tags),
        sidecars: it.sidecars.iter().map(sidecar).collect(),
        log_rate_limit: parts::log_rate(it.log_rate_limit),
        volume_mounted_files: parts::files(&it.volume_mounted_files),
        update_strategy: update_strategy.into(),
    }
}

/// What is needed to place its instances (lifecycle.md section 2.1).
#[must_use]
pub fn scheduling_info(it: &DesiredLrp) -> bbs::DesiredLrpSchedulingInfo {
    bbs::DesiredLrpSchedulingInfo {
        desired_lrp_key: Some(bbs::DesiredLrpKey {
            process_guid: it.process_guid.to_string(),
            domain: it.domain.to_string(),
            log_guid: it.log_guid.clone(),
        }),
        annotation: it.annotation.clone(),
        instances: it.instances,
        desired_lrp_resource: Some(bbs::DesiredLrpResource {
            memory_mb: it.memory_mb,
            disk_mb: it.disk_mb,
            root_fs: it.rootfs.clone(),
            max_pids: it.max_pids,
        }),
        routes: Some(routes(it)),
        modification_tag: Some(super::actual_lrp::modification_tag(&it.modification_tag)),
        volume_placement: Some(bbs::VolumePlacement {
            driver_names: it.volume_mounts.iter().map(|mount| mount.driver.clone()).collect(),
        }),
        placement_tags: it.placement_tags.clone(),
    }
}

/// What a router needs (lifecycle.md section 2.1).
#[must_use]
pub fn routing_info(it: &DesiredLrp) -> bbs::DesiredLrp {
    bbs::DesiredLrp {
        process_guid: it.process_guid.to_string(),
        domain: it.domain.to_string(),
        log_guid: it.log_guid.clone(),
        instances: it.instances,
        routes: Some(routes(it)),
        modification_tag: Some(super::actual_lrp::modification_tag(&it.modification_tag)),
        metric_tags: parts::metric_tags(&it.metric_tags),
        ..bbs::DesiredLrp::default()
    }
}

/// A change of a desired LRP, and of which. An empty map of metric tags is an absent one on the
/// wire, and changes nothing; nor does a change that is absent, but that the LRP's tag is one on.
///
/// # Errors
///
/// [`Malformed`]: it names none, or a route is not text; then with all else that is wrong.
pub fn update_from(
    it: bbs::UpdateDesiredLrpRequest,
    trace_id: &str,
) -> Result<(ProcessGuid, DesiredLrpUpdate), Malformed> {
    let mut complaints = Complaints::default();
    let asked = it.update.unwrap_or_default();
    let metric_tags = parts::metric_tags_from(asked.metric_tags);
    let update = DesiredLrpUpdate {
        instances: asked.instances,
        routes: asked.routes.map(|routes| routes_from(&mut complaints, routes)),
        annotation: asked.annotation,
        metric_tags: (!metric_tags.is_empty()).then_some(metric_tags),
        image_username: asked.image_username,
        image_password: asked.image_password,
        trace_id: trace_id.to_owned(),
    };
    let is_nameless = it.process_guid.is_empty();
    if is_nameless || !complaints.is_empty() {
        complaints.after(update.complaint());
    }
    complaints.after(is_nameless.then(|| Malformed::field("process_guid").0));
    complaints.refuse().map(|()| (it.process_guid.into(), update))
}

fn ports_from(complaints: &mut Complaints, ports: &[u32]) -> Vec<u16> {
    let known: Vec<u16> = ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    complaints.field("ports", known.len() < ports.len());
    known
}

/// Each once, in the order in which they were desired.
fn ports(it: &DesiredLrp) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    it.ports.iter().filter(|port| seen.insert(**port)).map(|port| u32::from(*port)).collect()
}

/// Their bytes are JSON, and the model keeps text.
fn routes_from(complaints: &mut Complaints, routes: bbs::ProtoRoutes) -> BTreeMap<String, String> {
    let count = routes.routes.len();
    let text = |(router, bytes): (String, Vec<u8>)| Some((router, String::from_utf8(bytes).ok()?));
    let texts: BTreeMap<_, _> = routes.routes.into_iter().filter_map(text).collect();
    complaints.field("routes", texts.len() < count);
    texts
}

fn routes(it: &DesiredLrp) -> bbs::ProtoRoutes {
    let route = |(router, text): (&String, &String)| (router.clone(), text.clone().into_bytes());
    bbs::ProtoRoutes { routes: it.routes.iter().map(route).collect() }
}

fn sidecars_from(complaints: &mut Complaints, sidecars: Vec<bbs::Sidecar>) -> Vec<Sidecar> {
    let sidecar = |it: bbs::Sidecar| Sidecar {
        action: it.action.map(|it| action_from(complaints, it)),
        disk_mb: it.disk_mb,
        memory_mb: it.memory_mb,
    };
    sidecars.into_iter().map(sidecar).collect()
}

fn sidecar(it: &Sidecar) -> bbs::Sidecar {
    bbs::Sidecar {
        action: it.action.as_ref().map(action),
        disk_mb: it.disk_mb,
        memory_mb: it.memory_mb,
    }
}

fn checks_from(it: bbs::CheckDefinition) -> CheckDefinition {
    CheckDefinition {
        checks: it.checks.into_iter().map(check_from).collect(),
        log_source: it.log_source,
        readiness_checks: it.readiness_checks.into_iter().map(check_from).collect(),
    }
}

fn check_from(it: bbs::Check) -> Check {
    Check {
        tcp_check: it.tcp_check.map(|check| TcpCheck {
            port: check.port,
            connect_timeout_ms: check.connect_timeout_ms,
            interval_ms: check.interval_ms,
        }),
        http_check: it.http_check.map(|check| HttpCheck {
            port: check.port,
            request_timeout_ms: check.request_timeout_ms,
            path: check.path,
            interval_ms: check.interval_ms,
        }),
    }
}

fn checks(it: &CheckDefinition) -> bbs::CheckDefinition {
    bbs::CheckDefinition {
        checks: it.checks.iter().map(check).collect(),
        log_source: it.log_source.clone(),
        readiness_checks: it.readiness_checks.iter().map(check).collect(),
    }
}

fn check(it: &Check) -> bbs::Check {
    bbs::Check {
        tcp_check: it.tcp_check.map(|check| bbs::TcpCheck {
            port: check.port,
            connect_timeout_ms: check.connect_timeout_ms,
            interval_ms: check.interval_ms,
        }),
        http_check: it.http_check.as_ref().map(|check| bbs::HttpCheck {
            port: check.port,
            request_timeout_ms: check.request_timeout_ms,
            path: check.path.clone(),
            interval_ms: check.interval_ms,
        }),
    }
}
