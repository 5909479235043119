//! **No instance is told to end while routers may still send it requests: its row has been gone, or
//! not routable, for the drain.**
//!
//! From the agreed log and from the machines, which see each SIGTERM. A row goes at its entry, and
//! that is agreed after it was first sent to anybody: what counts here is from when it was sent, so
//! that no order of messages accuses a cell that waited. For the same reason the drain is as short
//! as the fastest clock makes it. Whose process ends by itself, is killed, or loses its machine is
//! told nothing: there a router finds a refused connection, and tries another instance. A cell that
//! was cut off, or whose node died in the middle of the drain, may wait longer, and never shorter;
//! the end of an evacuation's time takes rows away as anything else does. Source: ADR 12;
//! `agent::limits::ROUTE_DRAIN`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::limits::ROUTE_DRAIN;
use model::{ActualLrp, ActualState, CellId, InstanceGuid, RowKey, State};
use replica::peers::AppendEntries;
use replica::wire::LogId;

use super::Verdict;
use crate::limits::DRIFT_PERCENT_MAX;

pub(super) const NAME: &str = "an instance is told to end only once its routes have drained";

/// An instance's process gets SIGTERM.
#[derive(Clone, Debug)]
pub struct ToldToEnd {
    /// Where.
    pub cell_id: CellId,
    /// Which.
    pub instance: InstanceGuid,
    /// The last entry that the cell's node has applied.
    pub applied: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Open,
    /// It closed no sooner than this.
    Closed {
        at_ns: u64,
    },
}

/// What is known of instances that were ever routable.
#[derive(Debug, Default)]
pub(super) struct Drained {
    first_sent: BTreeMap<LogId, u64>,
    routes: BTreeMap<InstanceGuid, Route>,
    /// What cannot be judged yet: its node was ahead of what is known to be agreed.
    waiting: Vec<(u64, ToldToEnd)>,
}

impl Drained {
    /// A leader sends entries.
    pub(super) fn sent(&mut self, at_ns: u64, append: &AppendEntries) {
        for entry in &append.entries {
            self.first_sent.entry(entry.log_id).or_insert(at_ns);
        }
    }

    /// Follows an agreed entry, and judges what has become known by it.
    pub(super) fn agreed(&mut self, id: LogId, before: &State, after: &State) -> Verdict {
        let (mut were, mut are) = (BTreeSet::new(), BTreeSet::new());
        for row in before.differences(after) {
            if let RowKey::ActualLrp(id) = row {
                were.extend(before.actual_lrp(&id).and_then(|row| routed(row)).cloned());
                are.extend(after.actual_lrp(&id).and_then(|row| routed(row)).cloned());
            }
        }
        let at_ns = self.first_sent.get(&id).copied().unwrap_or_default();
        self.routes.extend(were.into_iter().map(|guid| (guid, Route::Closed { at_ns })));
        self.routes.extend(are.into_iter().map(|guid| (guid, Route::Open)));
        let is_known = |(_, told): &mut (u64, ToldToEnd)| told.applied <= Some(id.index);
        let known: Vec<_> = self.waiting.extract_if(.., is_known).collect();
        known.iter().try_for_each(|(at_ns, told)| self.judge(*at_ns, told))
    }

    /// A process gets SIGTERM, while everything through `agreed` is known to be agreed.
    pub(super) fn told(&mut self, at_ns: u64, told: ToldToEnd, agreed: Option<u64>) -> Verdict {
        if told.applied > agreed {
            self.waiting.push((at_ns, told));
            return Ok(());
        }
        self.judge(at_ns, &told)
    }

    fn judge(&self, told_ns: u64, told: &ToldToEnd) -> Verdict {
        let ToldToEnd { cell_id, instance, applied } = told;
        let since = match self.routes.get(instance) {
            None => return Ok(()),
            Some(Route::Open) => "while its row is routable".to_owned(),
            Some(Route::Closed { at_ns }) => {
                let waited = Duration::from_nanos(told_ns.saturating_sub(*at_ns));
                if waited >= drain_min() {
                    return Ok(());
                }
                format!("at most {} ms after its route closed", waited.as_millis())
            }
        };
        Err(format!("{cell_id}, at entry {applied:?}, tells {instance} to end {since}"))
    }
}

/// The drain, by the fastest clock.
fn drain_min() -> Duration {
    let percent = 100 + u32::try_from(DRIFT_PERCENT_MAX).expect("it is small");
    ROUTE_DRAIN * 100 / percent
}

/// The instance of a row, where routers may send it requests.
fn routed(row: &ActualLrp) -> Option<&InstanceGuid> {
    match &row.state {
        ActualState::Running { instance, net_info }
            if row.routable && !net_info.ports.is_empty() =>
        {
            Some(&instance.instance_guid)
        }
        ActualState::Running { .. }
        | ActualState::Claimed { .. }
        | ActualState::Unclaimed { .. }
        | ActualState::Crashed => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::{ActualLrpId, Command, Millis, NetInfo, PortMapping, Proposal};
    use replica::wire::{Blob, Body, Entry, Vote};

    use super::*;
    use crate::world::samples;

    const AT: LogId = LogId { term: 1, index: 9 };
    const SENT_NS: u64 = 5_000_000_000;

    /// Its states while it is routable and after that, and the drain as a checker that has seen
    /// both, the second in an entry that was sent at [`SENT_NS`].
    fn after(ports: Vec<PortMapping>, last: impl Fn(Command, Command) -> Command) -> Case {
        let mut state = State::default();
        let desired_lrp = Box::new(samples::desired_lrp("app", 1, "d".into(), "preloaded:busybox"));
        let cell = Box::new(samples::cell(1));
        let cell_id = cell.cell_id.clone();
        let apply = |state: &mut State, index, commands| {
            let (outcome, _) =
                model::apply_proposal(state, index, Proposal { at: Millis(index), commands });
            assert!(outcome.0.iter().all(Result::is_ok), "{outcome:?}");
        };
        let place =
            Command::PlaceLrp { process_guid: "app".into(), index: 0, cell_id: cell_id.clone() };
        let commands =
            vec![Command::RegisterCell { cell }, Command::DesireLrp { desired_lrp }, place];
        apply(&mut state, 7, commands);
        let row = state.actual_lrp(&ActualLrpId::ordinary("app".into(), 0)).expect("it is placed");
        let (key, instance) = (row.key.clone(), row.instance().expect("it is placed").clone());
        let guid = instance.instance_guid.clone();
        let address = Ipv4Addr::LOCALHOST;
        let net_info = NetInfo { address, instance_address: address, ports };
        let start = |routable| Command::StartLrp {
            key: key.clone(),
            instance: instance.clone(),
            net_info: net_info.clone(),
            routable,
        };
        let mut drained = Drained::default();
        let placed = state.clone();
        apply(&mut state, 8, vec![start(true)]);
        assert_eq!(drained.agreed(LogId { index: 8, ..AT }, &placed, &state), Ok(()));
        let routable = state.clone();
        let remove = Command::RemoveLrp { key: key.clone(), instance: instance.clone() };
        apply(&mut state, 9, vec![last(remove, start(false))]);
        let entry = Entry { log_id: AT, body: Body::Proposal(Blob([1].into())) };
        let vote = Vote { term: 1, node: 1, committed: true };
        let append = AppendEntries { vote, previous: None, entries: vec![entry], committed: None };
        drained.sent(SENT_NS, &append);
        drained.sent(SENT_NS + 700_000_000, &append);
        let told = ToldToEnd { cell_id, instance: guid, applied: Some(9) };
        Case { drained, routable, state, told }
    }

    struct Case {
        drained: Drained,
        routable: State,
        state: State,
        told: ToldToEnd,
    }

    fn port() -> Vec<PortMapping> {
        vec![PortMapping { container_port: 8080, host_port: 61_001 }]
    }

    #[test]
    fn a_sigterm_before_the_drain_is_over_is_seen() {
        let whole = SENT_NS + u64::try_from(ROUTE_DRAIN.as_nanos()).expect("it is a second");
        for not_routable_only in [false, true] {
            let Case { mut drained, routable, state, told } =
                after(port(), |remove, start| if not_routable_only { start } else { remove });
            assert!(
                drained
                    .told(whole, ToldToEnd { applied: Some(8), ..told.clone() }, Some(8))
                    .is_err()
            );
            assert_eq!(drained.agreed(AT, &routable, &state), Ok(()));
            let mut at = |at_ns| drained.told(at_ns, told.clone(), Some(9));
            assert!(at(SENT_NS).is_err());
            assert!(at(SENT_NS + 900_000_000).is_err());
            assert_eq!(at(SENT_NS + 960_000_000), Ok(()), "by a fast clock");
            assert_eq!(at(whole), Ok(()));
        }
    }

    #[test]
    fn a_node_that_is_ahead_is_judged_when_the_rest_is_known() {
        for (waited, is_seen) in [(900_000_000, true), (1_000_000_000, false)] {
            let Case { mut drained, routable, state, told } = after(port(), |remove, _| remove);
            assert_eq!(drained.told(SENT_NS + waited, told, Some(8)), Ok(()));
            assert_eq!(drained.agreed(AT, &routable, &state).is_err(), is_seen);
            assert_eq!(drained.agreed(AT, &state, &state), Ok(()), "judged once");
        }
    }

    #[test]
    fn what_has_no_port_is_not_routed() {
        let Case { mut drained, routable, state, told } = after(Vec::new(), |remove, _| remove);
        assert_eq!(drained.agreed(AT, &routable, &state), Ok(()));
        assert_eq!(drained.told(SENT_NS, told, Some(9)), Ok(()));
    }
}
