//! What containers use: any node is asked, the cells that hold the containers answer.

use std::collections::BTreeMap;
use std::time::Instant;

use api::Error;
use api::admin::{InstanceUsage, Unknown, Usage};
use api::limits::USAGE_CONTAINERS_MAX;
use container::container::{ContainerId, Stats};
use futures_util::StreamExt as _;
use model::{CellId, InstanceGuid, ProcessGuid, State};
use plan::cell::Handle;

use crate::faces::whereabouts;
use crate::limits::{USAGE_CELLS_AT_ONCE_MAX, USAGE_INTERVAL, USAGE_WAIT};
use crate::world::NodeAgent;

/// Of every instance of a process that has a container, in the order of the instances.
///
/// A cell that does not answer in [`USAGE_WAIT`] leaves its instances' figures out, and says so;
/// no cell waits for another's turn for longer than [`USAGE_CELLS_AT_ONCE_MAX`] make it.
pub(super) async fn of_process(
    agent: &NodeAgent,
    process_guid: &ProcessGuid,
) -> Result<Vec<InstanceUsage>, Error> {
    let state = agent.read_stale().state;
    let mut by_cell: BTreeMap<CellId, Vec<InstanceGuid>> = BTreeMap::new();
    for lrp in state.actual_lrps_of(process_guid) {
        if let Some(instance) = lrp.instance() {
            by_cell
                .entry(instance.cell_id.clone())
                .or_default()
                .push(instance.instance_guid.clone());
        }
    }
    let asked = by_cell.into_iter().flat_map(|(cell_id, instances)| {
        let batches = instances.chunks(USAGE_CONTAINERS_MAX).map(<[_]>::to_vec);
        batches.map(move |batch| (cell_id.clone(), batch)).collect::<Vec<_>>()
    });
    let answers = asked.map(async |(cell_id, instances)| {
        let answer = ask(agent, &state, &cell_id, &instances).await;
        of_instances(instances, answer)
    });
    let answers = futures_util::stream::iter(answers);
    let usages: Vec<_> = answers.buffer_unordered(USAGE_CELLS_AT_ONCE_MAX).collect().await;
    Ok(usages.into_iter().flatten().collect())
}

/// Each instance with its figures, or with why there are none.
fn of_instances(
    instances: Vec<InstanceGuid>,
    answer: Result<Vec<Option<Usage>>, Error>,
) -> Vec<InstanceUsage> {
    let usages: Vec<Result<Usage, Unknown>> = match answer {
        Ok(usages) => {
            let gone = || Unknown("its cell has no container for it".to_owned());
            usages.into_iter().map(|usage| usage.ok_or_else(gone)).collect()
        }
        Err(error) => vec![Err(Unknown(error.to_string())); instances.len()],
    };
    let pairs = instances.into_iter().zip(usages);
    pairs.map(|(instance_guid, usage)| InstanceUsage { instance_guid, usage }).collect()
}

async fn ask(
    agent: &NodeAgent,
    state: &State,
    cell_id: &CellId,
    instances: &[InstanceGuid],
) -> Result<Vec<Option<Usage>>, Error> {
    let id = |guid: &InstanceGuid| crate::containers::id_text(&Handle::Lrp(guid.clone()));
    let containers: Vec<String> = instances.iter().map(id).collect();
    if *cell_id == agent.cell().cell_id {
        return of_containers(agent, cell_id, &containers).await;
    }
    let address = whereabouts::address(agent, state, cell_id)?;
    let unreachable =
        |error: String| Error::Unavailable(format!("cell {cell_id} at {address}: {error}"));
    let asked = async {
        let dialer = agent.world().security.dialer();
        let client =
            dialer.admin(&address).await.map_err(|error| unreachable(error.to_string()))?;
        let mut context = tarpc::context::current();
        // Ours ends first, and says what was waited for.
        context.deadline = Instant::now() + 2 * USAGE_WAIT;
        client
            .cell_usage(context, cell_id.clone(), containers)
            .await
            .map_err(|error| unreachable(error.to_string()))?
    };
    let answer = tokio::time::timeout(USAGE_WAIT, asked).await;
    answer.unwrap_or_else(|_| Err(unreachable(format!("no answer in {USAGE_WAIT:?}"))))
}

/// Of containers here: `None` for those that are none, or no more.
///
/// The rate of the processor's use is that of [`USAGE_INTERVAL`], between two readings: nothing
/// is measured while nobody asks.
pub(super) async fn of_containers(
    agent: &NodeAgent,
    on: &CellId,
    containers: &[String],
) -> Result<Vec<Option<Usage>>, Error> {
    if *on != agent.cell().cell_id {
        return Err(Error::Invalid(format!("this is cell {}, not {on}", agent.cell().cell_id)));
    }
    if containers.len() > USAGE_CONTAINERS_MAX {
        let limit = USAGE_CONTAINERS_MAX;
        return Err(Error::Invalid(format!("more than {limit} containers; ask for fewer")));
    }
    let runtime = agent.world().containers.runtime();
    let read = |container: &String| {
        let id = ContainerId::new(container.as_str()).ok()?;
        let stats = runtime.stats(&id).ok()?;
        Some((Instant::now(), stats))
    };
    let before: Vec<_> = containers.iter().map(read).collect();
    tokio::time::sleep(USAGE_INTERVAL).await;
    let usage = |(before, container): (Option<(Instant, Stats)>, &String)| {
        let (before_at, before) = before?;
        let (at, now) = read(container)?;
        let cpu_ns = now.cpu_ns.saturating_sub(before.cpu_ns);
        Some(Usage {
            cpu_millicores: millicores(cpu_ns, (at - before_at).as_nanos()),
            cpu_ns: now.cpu_ns,
            memory_bytes: now.memory_bytes,
            disk_bytes: now.disk_bytes,
            inodes: now.inodes,
            pids: now.pids,
            age_ms: now.age_ms,
        })
    };
    Ok(before.into_iter().zip(containers).map(usage).collect())
}

/// Thousandths of one core.
fn millicores(cpu_ns: u64, elapsed_ns: u128) -> u64 {
    let rate = u128::from(cpu_ns) * 1000 / elapsed_ns.max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_one_core() {
        assert_eq!(millicores(0, 250_000_000), 0);
        assert_eq!(millicores(250_000_000, 250_000_000), 1000);
        assert_eq!(millicores(500_000_000, 250_000_000), 2000);
        assert_eq!(millicores(1, 250_000_000), 0);
        // Two readings of one moment.
        assert_eq!(millicores(1, 0), 1000);
        assert_eq!(millicores(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn each_instance_is_told_or_says_why_not() {
        let guids = || ["a", "b"].map(|guid| InstanceGuid::from(guid.to_owned())).to_vec();
        let usage = Usage { memory_bytes: 7, ..Usage::default() };
        let told = of_instances(guids(), Ok(vec![Some(usage), None]));
        assert_eq!(told[0].usage, Ok(usage));
        assert_eq!(told[1].instance_guid, guids()[1]);
        assert_eq!(told[1].usage, Err(Unknown("its cell has no container for it".to_owned())));
        let silent = of_instances(guids(), Err(Error::Unavailable("cell c1: silent".to_owned())));
        assert_eq!(silent.len(), 2);
        for one in silent {
            assert!(one.usage.unwrap_err().0.contains("cell c1: silent"));
        }
    }
}
