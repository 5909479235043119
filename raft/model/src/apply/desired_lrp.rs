//! What somebody wants: desire, update, remove.
//!
//! Rows of instances follow in the same apply, so that no index is ever without its row and no
//! row is without its index. Source: lifecycle.md sections 2.2 to 2.4.

use std::sync::Arc;

use super::Change;
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate, ModificationTag};
use crate::event::Event;
use crate::id::{ActualLrpId, Epoch, InstanceGuid, ProcessGuid};
use crate::mutant;
use crate::refusal::Refusal;
use crate::validate;

impl Change<'_> {
    pub(super) fn desire_lrp(&mut self, mut desired: DesiredLrp) -> Result<(), Refusal> {
        validate::desired_lrp(&desired)?;
        if self.state.desired_lrp(&desired.process_guid).is_some() {
            return Err(Refusal::DesiredLrpExists(desired.process_guid));
        }
        validate::rootfs_allowed(self.state, &desired.rootfs)?;
        desired.modification_tag = ModificationTag::new(self.mint_epoch());
        desired.created_at = self.stamp.at;
        let indices = desired.indices();
        let desired = Arc::new(desired);
        self.state.put_desired_lrp(Arc::clone(&desired));
        self.events.push(Event::DesiredLrpCreated(Arc::clone(&desired)));
        for index in indices {
            self.insert_unclaimed(&desired, index);
        }
        Ok(())
    }

    pub(super) fn update_desired_lrp(
        &mut self,
        guid: &ProcessGuid,
        update: DesiredLrpUpdate,
    ) -> Result<(), Refusal> {
        validate::desired_lrp_update(&update)?;
        let before = self.desired(guid)?;
        let mut after = DesiredLrp::clone(&before);
        after.modification_tag = before.modification_tag.next();
        if let Some(instances) = update.instances {
            after.instances = instances;
        }
        if let Some(routes) = update.routes {
            after.routes = routes;
        }
        if let Some(annotation) = update.annotation {
            after.annotation = annotation;
        }
        if let Some(metric_tags) = update.metric_tags {
            after.metric_tags = metric_tags;
        }
        if let (Some(username), Some(password)) = (update.image_username, update.image_password) {
            after.image_username = username;
            after.image_password = password;
        }
        after.trace_id = update.trace_id;
        let after = Arc::new(after);
        let [wanted_before, wanted] = [&before, &after].map(|lrp| self.state.wanted(lrp));
        self.state.put_desired_lrp(Arc::clone(&after));
        for index in wanted_before.end..wanted.end {
            self.insert_unclaimed(&after, index);
        }
        self.remove_rows_from(guid, wanted.end);
        self.events.push(Event::DesiredLrpChanged { before, after });
        Ok(())
    }

    pub(super) fn remove_desired_lrp(&mut self, guid: &ProcessGuid) -> Result<(), Refusal> {
        let desired = self.desired(guid)?;
        self.state.remove_desired_lrp(guid);
        self.events.push(Event::DesiredLrpRemoved(desired));
        if !mutant!("removal-keeps-instances") {
            self.remove_rows_from(guid, 0);
        }
        Ok(())
    }

    pub(super) fn desired(&self, guid: &ProcessGuid) -> Result<Arc<DesiredLrp>, Refusal> {
        self.state
            .desired_lrp(guid)
            .cloned()
            .ok_or_else(|| Refusal::DesiredLrpNotFound(guid.clone()))
    }

    /// Text that is distinct for each creation in a cluster's life.
    pub(super) fn mint_epoch(&self) -> Epoch {
        Epoch::from(self.mint().as_str())
    }

    pub(super) fn mint(&self) -> InstanceGuid {
        let mut salt = self.state.cluster().salt;
        if mutant!("ids-differ") {
            // Where something lies in memory is not the same on two replicas.
            salt ^= u32::try_from(std::ptr::from_ref(self.state).addr() >> 4 & 0xffff).unwrap_or(0);
        }
        InstanceGuid::mint(salt, self.stamp.log_index, self.stamp.position)
    }

    /// Evacuating copies as well: nobody wants their replacement any more.
    pub(super) fn remove_rows_from(&mut self, guid: &ProcessGuid, first_index: u32) {
        let surplus: Vec<ActualLrpId> = self
            .state
            .actual_lrps_of(guid)
            .filter(|lrp| lrp.key.index >= first_index)
            .map(|lrp| lrp.id())
            .collect();
        for id in surplus {
            self.remove_row(&id);
        }
    }
}
