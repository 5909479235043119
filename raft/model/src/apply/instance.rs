//! What has happened to an instance: start, crash, removal, retirement.
//!
//! Reports of cells are fenced: they name the placement they speak of, and one that is no longer
//! on record is refused. Source: lifecycle.md sections 3.2 and 3.3.

use std::sync::Arc;

use super::Change;
use crate::actual_lrp::{ActualLrp, ActualLrpKey, ActualState, InstanceKey, NetInfo, Presence};
use crate::desired_lrp::{DesiredLrp, ModificationTag};
use crate::event::Event;
use crate::id::{ActualLrpId, ProcessGuid};
use crate::limits::truncate_reason;
use crate::mutant;
use crate::refusal::Refusal;
use crate::restart::{self, Restart};
use crate::state::mebibytes;
use crate::validate;

impl Change<'_> {
    pub(super) fn start_lrp(
        &mut self,
        key: &ActualLrpKey,
        instance: &InstanceKey,
        net_info: NetInfo,
        routable: bool,
    ) -> Result<(), Refusal> {
        validate::placement(key, instance)?;
        if self.suspect_with(key, instance).is_some() {
            return Ok(());
        }
        let row = self.ordinary(&key.process_guid, key.index)?;
        if row.instance() != Some(instance) && !mutant!("start-unfenced") {
            return Err(Refusal::ActualLrpCannotBeStarted {
                process_guid: key.process_guid.clone(),
                index: key.index,
                state: describe(&row),
            });
        }
        let running = ActualState::Running { instance: instance.clone(), net_info };
        if row.state != running || row.routable != routable {
            self.move_row(&row, |after| {
                after.state = running;
                after.routable = routable;
            });
        }
        self.settle(&row.id());
        Ok(())
    }

    /// An ordinary row runs: what it replaces need not run any more.
    pub(super) fn settle(&mut self, id: &ActualLrpId) {
        for presence in [Presence::Evacuating, Presence::Suspect] {
            if mutant!("start-keeps-copy") && presence == Presence::Evacuating {
                continue;
            }
            self.remove_row(&ActualLrpId { presence, ..id.clone() });
        }
    }

    pub(super) fn crash_lrp(
        &mut self,
        key: &ActualLrpKey,
        instance: &InstanceKey,
        reason: &str,
    ) -> Result<(), Refusal> {
        validate::placement(key, instance)?;
        if let Some(suspect) = self.suspect_with(key, instance) {
            self.remove_row(&suspect.id());
            return Ok(());
        }
        let row = self.ordinary(&key.process_guid, key.index)?;
        if row.instance() != Some(instance) && !mutant!("crash-unfenced") {
            return Err(Refusal::ActualLrpCannotBeCrashed {
                process_guid: key.process_guid.clone(),
                index: key.index,
                state: describe(&row),
            });
        }
        let now = self.stamp.at;
        let running_since = row.is_running().then_some(row.since);
        let count = restart::count_after_crash(row.crash_count, running_since, now);
        let reason = truncate_reason(reason);
        self.events.push(Event::ActualLrpCrashed {
            key: row.key.clone(),
            instance: instance.clone(),
            count,
            reason: reason.clone(),
            since: now,
        });
        self.move_row(&row, |after| {
            after.crash_count = count;
            after.crash_reason = reason;
            after.state = match restart::after_crash(count, now) {
                Restart::Now => ActualState::Unclaimed { placement_error: String::new() },
                Restart::At(_) | Restart::Never => ActualState::Crashed,
            };
        });
        // A replacement that keeps crashing lets the copy go (lifecycle.md section 4.2).
        if restart::after_crash(count, now) != Restart::Now {
            self.remove_row(&ActualLrpId { presence: Presence::Evacuating, ..row.id() });
        }
        Ok(())
    }

    pub(super) fn remove_lrp(
        &mut self,
        key: &ActualLrpKey,
        instance: &InstanceKey,
    ) -> Result<(), Refusal> {
        validate::placement(key, instance)?;
        let id = self.placed(key, instance)?.id();
        self.remove_row(&id);
        Ok(())
    }

    /// The row of a placement, whatever its presence.
    pub(super) fn placed(
        &self,
        key: &ActualLrpKey,
        instance: &InstanceKey,
    ) -> Result<Arc<ActualLrp>, Refusal> {
        let mut rows = self.state.actual_lrps_of(&key.process_guid);
        let row = rows.find(|lrp| lrp.key.index == key.index && lrp.instance() == Some(instance));
        row.cloned().ok_or_else(|| Refusal::ActualLrpNotFound {
            process_guid: key.process_guid.clone(),
            index: key.index,
        })
    }

    pub(super) fn retire_lrp(
        &mut self,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Refusal> {
        validate::process_guid(&process_guid)?;
        let row = self.ordinary(&process_guid, index)?;
        self.remove_row(&row.id());
        Ok(())
    }

    pub(super) fn ordinary(
        &self,
        process_guid: &ProcessGuid,
        index: u32,
    ) -> Result<Arc<ActualLrp>, Refusal> {
        self.state
            .actual_lrp(&ActualLrpId::ordinary(process_guid.clone(), index))
            .cloned()
            .ok_or_else(|| Refusal::ActualLrpNotFound { process_guid: process_guid.clone(), index })
    }

    pub(super) fn suspect(&self, process_guid: &ProcessGuid, index: u32) -> Option<Arc<ActualLrp>> {
        let presence = Presence::Suspect;
        let id = ActualLrpId { process_guid: process_guid.clone(), index, presence };
        self.state.actual_lrp(&id).cloned()
    }

    fn suspect_with(&self, key: &ActualLrpKey, instance: &InstanceKey) -> Option<Arc<ActualLrp>> {
        self.suspect(&key.process_guid, key.index).filter(|row| row.instance() == Some(instance))
    }

    /// A new row for an index that has none. The caller has checked that the index is desired.
    pub(super) fn insert_unclaimed(&mut self, desired: &DesiredLrp, index: u32) {
        let id = ActualLrpId::ordinary(desired.process_guid.clone(), index);
        assert!(self.state.actual_lrp(&id).is_none(), "one ordinary row for each index");
        self.put_unclaimed(desired, index);
    }

    /// A new row for an index; it takes the place of one that has become another presence.
    pub(super) fn put_unclaimed(&mut self, desired: &DesiredLrp, index: u32) {
        let row = Arc::new(ActualLrp {
            key: ActualLrpKey {
                process_guid: desired.process_guid.clone(),
                index,
                domain: desired.domain.clone(),
            },
            presence: Presence::Ordinary,
            state: ActualState::Unclaimed { placement_error: String::new() },
            crash_count: 0,
            crash_reason: String::new(),
            since: self.stamp.at,
            memory_mb: saturate(mebibytes(desired.memory_mb)),
            disk_mb: saturate(mebibytes(desired.disk_mb)),
            modification_tag: ModificationTag::new(self.mint_epoch()),
            routable: false,
            availability_zone: Arc::default(),
        });
        self.state.put_actual_lrp(Arc::clone(&row));
        self.events.push(Event::ActualLrpCreated(row));
    }

    /// Rewrites a row in place, with a new `since` and modification index.
    pub(super) fn move_row(&mut self, before: &Arc<ActualLrp>, edit: impl FnOnce(&mut ActualLrp)) {
        let mut after = ActualLrp::clone(before);
        after.since = self.stamp.at;
        after.modification_tag = before.modification_tag.next();
        edit(&mut after);
        assert_eq!(before.id(), after.id(), "a row that moves keeps its identity");
        let after = Arc::new(after);
        self.state.put_actual_lrp(Arc::clone(&after));
        self.events.push(Event::ActualLrpChanged { before: Arc::clone(before), after });
    }

    /// Removes a row, if it is there.
    pub(super) fn remove_row(&mut self, id: &ActualLrpId) {
        let Some(row) = self.state.actual_lrp(id).cloned() else { return };
        self.state.remove_actual_lrp(id);
        self.events.push(Event::ActualLrpRemoved(row));
    }
}

/// What a refusal says of the row it met.
pub(super) fn describe(row: &ActualLrp) -> String {
    match row.instance() {
        Some(instance) => {
            format!("{} as {} on {}", row.state.name(), instance.instance_guid, instance.cell_id)
        }
        None => row.state.name().to_owned(),
    }
}

fn saturate(mebibytes: u64) -> u32 {
    u32::try_from(mebibytes).unwrap_or(u32::MAX)
}
