//! **An instance that runs is not ended before its replacement runs.**
//!
//! But for what ends it by itself (a crash, an exit, a lost cell), what people asked for, the
//! end of an evacuation's time, and what must not run twice. Source: lifecycle.md section 4.2;
//! Diego's promise to those who upgrade cells.

use std::collections::BTreeSet;

use model::{Command, ProcessGuid, State, codec};

use super::Verdict;

pub(super) const NAME: &str = "an instance that runs is not ended before its replacement runs";

/// Judges one proposal by the states before and after it.
pub(super) fn check(before: &State, after: &State, proposal: &[u8]) -> Verdict {
    let run_on = running(after);
    let ended: Vec<_> = running(before).difference(&run_on).cloned().collect();
    if ended.is_empty() {
        return Ok(());
    }
    let proposal = codec::decode_proposal(proposal).map_err(|error| error.to_string())?;
    verdict(before, &ended, &proposal.commands)
}

fn verdict(before: &State, ended: &[(ProcessGuid, u32)], commands: &[Command]) -> Verdict {
    for (guid, index) in ended {
        if !commands.iter().any(|command| may_end(command, before, guid, *index)) {
            return Err(format!("{guid}/{index} runs no more after {commands:?}"));
        }
    }
    Ok(())
}

/// The indices of which a container runs, whether it is to be replaced or not.
fn running(state: &State) -> BTreeSet<(ProcessGuid, u32)> {
    let rows = state.actual_lrps().filter(|row| row.is_running());
    rows.map(|row| (row.key.process_guid.clone(), row.key.index)).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all commands only these end instances")]
fn may_end(command: &Command, before: &State, guid: &ProcessGuid, at: u32) -> bool {
    match command {
        Command::RemoveDesiredLrp { process_guid }
        | Command::UpdateDesiredLrp { process_guid, .. } => process_guid == guid,
        Command::RetireLrp { process_guid, index }
        | Command::RecreateLrp { process_guid, index } => process_guid == guid && *index == at,
        Command::CrashLrp { key, .. } | Command::RemoveLrp { key, .. } => {
            key.process_guid == *guid && key.index == at
        }
        Command::CellMissing { cell_id } | Command::CloseCell { cell_id } => before
            .actual_lrps_of(guid)
            .filter(|row| row.key.index == at)
            .any(|row| row.instance().is_some_and(|on| on.cell_id == *cell_id)),
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
        apply(&mut state, Command::StartLrp { key, instance, net_info });
        state
    }

    /// As [`super::check`], of decisions not made into bytes yet.
    fn check(before: &State, after: &State, commands: &[Command]) -> Verdict {
        let proposal = Proposal { at: Millis(1), commands: commands.to_vec() };
        super::check(before, after, &codec::encode_proposal(&proposal))
    }

    fn apply(state: &mut State, command: Command) {
        let proposal = Proposal { at: Millis(1), commands: vec![command] };
        let (outcome, _) = model::apply_proposal(state, 1, proposal);
        assert_eq!(outcome.0, [Ok(true)]);
    }

    #[test]
    fn an_evacuation_that_ends_what_runs_is_seen() {
        let before = state();
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
        assert!(check(&before, &after, &[evacuate]).is_err());
        let elsewhere = Command::CloseCell { cell_id: "cell-2".into() };
        assert!(check(&before, &after, &[elsewhere]).is_err());
        assert_eq!(check(&before, &after, &[Command::CloseCell { cell_id }]), Ok(()));
    }
}
