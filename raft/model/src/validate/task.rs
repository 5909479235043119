//! Tasks (lifecycle.md section 8). Unlike LRPs', their environment, volume mounts, metric tags and
//! mounted files are not looked at.

use super::{BadFields, action, dependency, egress, is_guid, is_name, rootfs};
use crate::id::{DomainName, TaskGuid};
use crate::limits::ANNOTATION_BYTES_MAX;
use crate::refusal::Refusal;
use crate::task::TaskDefinition;

pub(crate) fn task(
    task_guid: &TaskGuid,
    domain: &DomainName,
    definition: Option<&TaskDefinition>,
) -> Result<(), Refusal> {
    let mut bad = BadFields::default();
    bad.field("task_guid", !is_guid(task_guid.as_str()));
    bad.field("domain", !is_name(domain.as_str()));
    let Some(definition) = definition else {
        bad.field("task_definition", true);
        return bad.refuse();
    };
    bad.field("rootfs", !rootfs::is_url(&definition.rootfs));
    action::required(&mut bad, "action", definition.action.as_ref());
    bad.field("memory_mb", definition.memory_mb < 0);
    bad.field("disk_mb", definition.disk_mb < 0);
    let limit = definition.log_rate_limit;
    bad.field("log_rate_limit", limit.is_some_and(|limit| limit.bytes_per_second < -1));
    bad.field("max_pids", definition.max_pids < 0);
    bad.field("annotation", definition.annotation.len() > ANNOTATION_BYTES_MAX);
    for rule in &definition.egress_rules {
        bad.field("egress_rules", !egress::bad_fields(rule).is_empty());
    }
    bad.credentials(!definition.image_username.is_empty(), !definition.image_password.is_empty());
    dependency::cached_dependencies(&mut bad, &definition.cached_dependencies);
    dependency::image_layers(&mut bad, &definition.image_layers, &definition.legacy_download_user);
    bad.refuse()
}
