//! **An instance that runs is not ended before its replacement runs.**
//!
//! But for what ends it by itself (a crash, an exit, a lost cell), what people asked for, the
//! end of an evacuation's time, and what must not run twice. Source: lifecycle.md section 4.2;
//! Diego's promise to those who upgrade cells.

use model::desired_lrp::UpdateStrategy;
use model::{CellId, Command, Intake, ProcessGuid, RowKey, State};

use super::Verdict;

pub(super) const NAME: &str = "an instance that runs is not ended before its replacement runs";

/// Judges one proposal by the states before and after it.
pub(super) fn check(before: &State, after: &State, commands: &[&Command]) -> Verdict {
    for row in before.differences(after) {
        let RowKey::ActualLrp(id) = row else { continue };
        let (guid, at) = (&id.process_guid, id.index);
        let ended = runs(before, guid, at) && !runs(after, guid, at);
        if ended && !commands.iter().any(|command| may_end(command, before, after, guid, at)) {
            return Err(format!("{guid}/{at} runs no more after {commands:?}"));
        }
    }
    Ok(())
}

/// Whether a container of an index runs, whether it is to be replaced or not.
fn runs(state: &State, guid: &ProcessGuid, at: u32) -> bool {
    state.actual_lrps_of(guid).any(|row| row.key.index == at && row.is_running())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all commands only these end instances")]
fn may_end(command: &Command, before: &State, after: &State, guid: &ProcessGuid, at: u32) -> bool {
    let is_on = |cell_id: &CellId| {
        let mut rows = before.actual_lrps_of(guid).filter(|row| row.key.index == at);
        rows.any(|row| row.instance().is_some_and(|on| on.cell_id == *cell_id))
    };
    match command {
        Command::RemoveDesiredLrp { process_guid }
        | Command::UpdateDesiredLrp { process_guid, .. } => process_guid == guid,
        Command::RetireLrp { process_guid, index }
        | Command::RecreateLrp { process_guid, index } => process_guid == guid && *index == at,
        Command::CrashLrp { key, .. } | Command::RemoveLrp { key, .. } => {
            key.process_guid == *guid && key.index == at
        }
        Command::EvacuateLrp { key, runs, .. } => {
            let strategy = before.desired_lrp(guid).map(|lrp| lrp.update_strategy);
            let may_stop = !runs || strategy == Some(UpdateStrategy::Recreate);
            key.process_guid == *guid && key.index == at && may_stop
        }
        // People again: what needs a flag ends with it.
        Command::SetFeatureFlag { enabled: false, .. } => {
            before.desired_lrp(guid).is_some_and(|lrp| lrp.rootfs.starts_with("docker:"))
        }
        Command::CellMissing { cell_id } => is_on(cell_id),
        Command::CloseCell { cell_id } => {
            let cell = before.cell(cell_id);
            let is_over = cell.is_some_and(|cell| match cell.intake {
                Intake::Evacuating { until } => until <= after.now(),
                Intake::Open | Intake::Closed => false,
            });
            is_over && is_on(cell_id)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::{Millis, NetInfo, Proposal};

    use super::*;
    use crate::world::samples;

    /// One instance that runs on cell 1.
    fn state() -> State {
        let mut state = State::default();
        apply(&mut state, Command::RegisterCell { cell: Box::new(samples::cell(1)) });
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        apply(&mut state, Command::DesireLrp { desired_lrp });
        let (process_guid, cell_id) = ("app".into(), samples::cell(1).cell_id);
        apply(&mut state, Command::PlaceLrp { process_guid, index: 0, cell_id });
        let row = state.actual_lrps().next().expect("one row").clone();
        let (key, instance) = (row.key.clone(), row.instance().expect("it was placed").clone());
        let address = Ipv4Addr::LOCALHOST;
        let net_info = NetInfo { address, instance_address: address, ports: Vec::new() };
        apply(&mut state, Command::StartLrp { key, instance, net_info, routable: true });
        state
    }

    fn check(before: &State, after: &State, commands: &[Command]) -> Verdict {
        super::check(before, after, &commands.iter().collect::<Vec<_>>())
    }

    fn apply(state: &mut State, command: Command) {
        let proposal = Proposal { at: Millis(1), commands: vec![command] };
        let (outcome, _) = model::apply_proposal(state, 1, proposal);
        assert_eq!(outcome.0, [Ok(true)]);
    }

    #[test]
    fn an_evacuation_that_ends_what_runs_is_seen() {
        let mut before = state();
        let mut after = before.clone();
        let cell_id = samples::cell(1).cell_id;
        let evacuate = Command::EvacuateCell { cell_id: cell_id.clone(), timeout: Millis(9) };
        apply(&mut after, evacuate.clone());
        assert_eq!(check(&before, &after, std::slice::from_ref(&evacuate)), Ok(()), "it runs on");

        // What retiring did, laid at an evacuation's door.
        let (process_guid, index) = ("app".into(), 0);
        let retire = Command::RetireLrp { process_guid, index };
        let mut after = before.clone();
        apply(&mut after, retire.clone());
        assert_eq!(check(&before, &after, &[evacuate.clone(), retire]), Ok(()), "asked for");
        assert!(check(&before, &after, std::slice::from_ref(&evacuate)).is_err());
        let close = || Command::CloseCell { cell_id: cell_id.clone() };
        assert!(check(&before, &after, &[close()]).is_err(), "it is open");
        apply(&mut before, evacuate);
        assert!(check(&before, &after, &[close()]).is_err(), "its time is not up");
        let late = Proposal { at: Millis(99), commands: Vec::new() };
        model::apply_proposal(&mut after, 9, late);
        assert_eq!(check(&before, &after, &[close()]), Ok(()));
        let elsewhere = Command::CloseCell { cell_id: "cell-2".into() };
        assert!(check(&before, &after, &[elsewhere]).is_err());
    }
}
