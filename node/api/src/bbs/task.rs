//! Tasks.

use model::{DomainName, Millis, Task, TaskDefinition, TaskGuid, TaskState};

use super::Malformed;
use super::action::{action, action_from};
use super::error::Complaints;
use super::messages::{self as bbs, task::State};
use super::parts;

/// What a client desires.
///
/// # Errors
///
/// [`Malformed`]: the model cannot say it; then with all else that is wrong. What it can say and
/// should not is otherwise for the model to refuse.
pub fn task_from(
    it: bbs::DesireTaskRequest,
    trace_id: &str,
) -> Result<(TaskGuid, DomainName, TaskDefinition), Malformed> {
    let (task_guid, domain) = (TaskGuid::from(it.task_guid), DomainName::from(it.domain));
    let mut complaints = Complaints::default();
    let definition = it.task_definition.map(|it| definition_from(&mut complaints, it, trace_id));
    if definition.is_none() || !complaints.is_empty() {
        complaints.after(model::task::complaint(&task_guid, &domain, definition.as_ref()));
    }
    complaints.refuse()?;
    let definition = definition.expect("that there is none was refused");
    Ok((task_guid, domain, definition))
}

fn definition_from(
    complaints: &mut Complaints,
    it: bbs::TaskDefinition,
    trace_id: &str,
) -> TaskDefinition {
    #[expect(deprecated, reason = "old clients send it")]
    let legacy_download_user = it.legacy_download_user;
    TaskDefinition {
        rootfs: it.root_fs,
        rootfs_digest: None,
        env: parts::env_from(it.environment_variables),
        action: it.action.map(|it| action_from(complaints, it)),
        memory_mb: it.memory_mb,
        disk_mb: it.disk_mb,
        max_pids: it.max_pids,
        cpu_weight: it.cpu_weight,
        log_guid: it.log_guid,
        log_source: it.log_source,
        annotation: it.annotation,
        placement_tags: it.placement_tags,
        result_file: it.result_file,
        completion_callback_url: it.completion_callback_url,
        privileged: it.privileged,
        metrics_guid: it.metrics_guid,
        metric_tags: parts::metric_tags_from(it.metric_tags),
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
        log_rate_limit: parts::log_rate_from(it.log_rate_limit),
        trace_id: trace_id.to_owned(),
    }
}

/// Without the password of its registry, which is shown to nobody.
fn definition(it: &TaskDefinition) -> bbs::TaskDefinition {
    #[expect(deprecated, reason = "old clients read what they sent")]
    bbs::TaskDefinition {
        root_fs: it.rootfs.clone(),
        environment_variables: parts::env(&it.env),
        action: it.action.as_ref().map(action),
        disk_mb: it.disk_mb,
        memory_mb: it.memory_mb,
        cpu_weight: it.cpu_weight,
        privileged: it.privileged,
        log_source: it.log_source.clone(),
        log_guid: it.log_guid.clone(),
        metrics_guid: it.metrics_guid.clone(),
        result_file: it.result_file.clone(),
        completion_callback_url: it.completion_callback_url.clone(),
        annotation: it.annotation.clone(),
        egress_rules: parts::egress_rules(&it.egress_rules),
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
        image_layers: parts::layers(&it.image_layers),
        log_rate_limit: parts::log_rate(it.log_rate_limit),
        metric_tags: parts::metric_tags(&it.metric_tags),
        volume_mounted_files: parts::files(&it.volume_mounted_files),
    }
}

/// A task with what has become of it.
#[must_use]
pub fn task(task: &Task) -> bbs::Task {
    let result = task.result();
    let cell_id = match &task.state {
        TaskState::Running { cell_id } => cell_id.as_str(),
        // A cell that has not started it yet is no cell to Diego.
        TaskState::Pending { .. } | TaskState::Completed { .. } | TaskState::Resolving { .. } => "",
    };
    bbs::Task {
        task_definition: Some(definition(&task.definition)),
        task_guid: task.task_guid.to_string(),
        domain: task.domain.to_string(),
        created_at: task.created_at.as_nanos(),
        updated_at: task.updated_at.as_nanos(),
        first_completed_at: result.map_or(Millis(0), |end| end.first_completed_at).as_nanos(),
        state: state(&task.state).into(),
        cell_id: cell_id.to_owned(),
        result: result.map(|end| end.result.clone()).unwrap_or_default(),
        failed: result.is_some_and(|end| end.failed),
        failure_reason: result.map(|end| end.failure_reason.clone()).unwrap_or_default(),
        rejection_count: task.rejection_count.try_into().unwrap_or(i32::MAX),
        rejection_reason: task.rejection_reason.clone(),
    }
}

fn state(state: &TaskState) -> State {
    match state {
        TaskState::Pending { .. } => State::Pending,
        TaskState::Running { .. } => State::Running,
        TaskState::Completed { .. } => State::Completed,
        TaskState::Resolving { .. } => State::Resolving,
    }
}
