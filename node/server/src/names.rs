//! What names inside the cluster mean, by its own records: `APP.internal`, `INDEX.APP.internal`,
//! and the hostnames of internal routes, with or without an index (Diego: `internal-router`).
//!
//! Pure: who asks, and how, is the DNS face's.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use container::container::AddressRange;
use model::{ActualLrp, ActualState, CellId, DesiredLrp, Event, NetInfo, ProcessGuid, State};
use serde::Deserialize;

/// The zone that the cluster's names are in.
pub(crate) const ZONE: &str = "internal";

/// Who has which name. Of the records it keeps only what cannot be looked up in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Apps by their names in lower case: DNS knows no other.
    apps: BTreeMap<String, BTreeSet<ProcessGuid>>,
    /// Apps by the hostnames of their internal routes, in lower case. Several may share one.
    routes: BTreeMap<String, BTreeSet<ProcessGuid>>,
}

#[derive(Deserialize)]
struct InternalRoute {
    #[serde(default)]
    hostname: String,
}

impl Names {
    pub(crate) fn of(state: &State) -> Self {
        let mut names = Self::default();
        state.desired_lrps().for_each(|lrp| names.add(lrp));
        names
    }

    /// Follows a change.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::DesiredLrpCreated(lrp) => self.add(lrp),
            Event::DesiredLrpChanged { before, after } => {
                if before.routes != after.routes {
                    self.remove(before);
                    self.add(after);
                }
            }
            Event::DesiredLrpRemoved(lrp) => self.remove(lrp),
            Event::ActualLrpCreated(_)
            | Event::ActualLrpChanged { .. }
            | Event::ActualLrpCrashed { .. }
            | Event::ActualLrpRemoved(_)
            | Event::TaskCreated(_)
            | Event::TaskChanged { .. }
            | Event::TaskRemoved(_)
            | Event::CellChanged(_)
            | Event::DomainChanged(_)
            | Event::LockChanged(_)
            | Event::FeatureFlagChanged { .. }
            | Event::ClusterInitialised => {}
        }
    }

    fn add(&mut self, lrp: &DesiredLrp) {
        let guid = &lrp.process_guid;
        self.apps.entry(guid.as_str().to_ascii_lowercase()).or_default().insert(guid.clone());
        for hostname in hostnames(lrp) {
            self.routes.entry(hostname).or_default().insert(guid.clone());
        }
    }

    fn remove(&mut self, lrp: &DesiredLrp) {
        let guid = &lrp.process_guid;
        take(&mut self.apps, &guid.as_str().to_ascii_lowercase(), guid);
        for hostname in hostnames(lrp) {
            take(&mut self.routes, &hostname, guid);
        }
    }

    /// What a name means, given by its labels in lower case; `None` where nothing has it.
    ///
    /// An app's own name comes before a route of that name: nobody takes another's by a route.
    pub(crate) fn find(&self, state: &State, labels: &[String]) -> Option<Meaning> {
        let (zone, name) = labels.split_last()?;
        if zone != ZONE {
            return None;
        }
        if name.is_empty() {
            return Some(Meaning::default());
        }
        match name {
            [app] if let Some(guid) = self.app(app) => return Meaning::of(state, [guid], None),
            [index, app] if let (Some(index), Some(guid)) = (number(index), self.app(app)) => {
                return Meaning::of(state, [guid], Some(index));
            }
            _ => {}
        }
        if let Some(guids) = self.routes.get(&labels.join(".")) {
            return Meaning::of(state, guids, None);
        }
        let (index, hostname) = labels.split_first()?;
        let guids = self.routes.get(&hostname.join("."))?;
        Meaning::of(state, guids, Some(number(index)?))
    }

    /// Of apps that differ in case only, the one in lower case, or else the first.
    fn app(&self, name: &str) -> Option<&ProcessGuid> {
        let guids = self.apps.get(name)?;
        guids.iter().find(|guid| guid.as_str() == name).or_else(|| guids.first())
    }
}

fn take(names: &mut BTreeMap<String, BTreeSet<ProcessGuid>>, name: &str, guid: &ProcessGuid) {
    if let Some(guids) = names.get_mut(name) {
        guids.remove(guid);
        if guids.is_empty() {
            names.remove(name);
        }
    }
}

/// Of an LRP's internal routes, those in the zone: nothing here is said of the world's names.
fn hostnames(lrp: &DesiredLrp) -> Vec<String> {
    let Some(text) = lrp.routes.get("internal-router") else { return Vec::new() };
    let routes: Vec<InternalRoute> = serde_json::from_str(text).unwrap_or_default();
    let hostname = |route: InternalRoute| {
        let name = route.hostname.trim_end_matches('.').to_ascii_lowercase();
        name.strip_suffix(ZONE)?.ends_with('.').then_some(name)
    };
    routes.into_iter().filter_map(hostname).collect()
}

/// An index as a label: the number as it is written, and no other way.
fn number(label: &str) -> Option<u32> {
    let number: u32 = label.parse().ok()?;
    (number.to_string() == label).then_some(number)
}

/// What a name means: instances that run and may be sent requests, none or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meaning(Vec<Arc<ActualLrp>>);

impl Meaning {
    /// `None` where there is no such app, or no such instance of it.
    fn of<'a>(
        state: &State,
        guids: impl IntoIterator<Item = &'a ProcessGuid>,
        index: Option<u32>,
    ) -> Option<Self> {
        let mut instances = Vec::new();
        let mut is_there = false;
        for guid in guids {
            let Some(desired) = state.desired_lrp(guid) else { continue };
            is_there |= index.is_none_or(|index| desired.indices().contains(&index));
            let rows = state.actual_lrps_of(guid);
            let rows = rows.filter(|row| index.is_none_or(|index| row.key.index == index));
            instances.extend(rows.filter(|row| row.routable && row.is_running()).cloned());
        }
        (is_there || !instances.is_empty()).then_some(Self(instances))
    }

    /// Where its instances are reached from here, in no order that means anything.
    ///
    /// Where some are reached at their own addresses, and so at their own ports, it is those;
    /// else the cells that they are on, which have them at other ports: see [`Self::services`].
    pub(crate) fn addresses(&self, here: &Here) -> Vec<Ipv4Addr> {
        let (own, others): (Vec<_>, Vec<_>) =
            self.instances(here).partition(|instance| instance.is_own);
        let those = if own.is_empty() { others } else { own };
        let addresses: BTreeSet<_> = those.into_iter().map(|instance| instance.address).collect();
        addresses.into_iter().collect()
    }

    /// At which port, of the host that this name is of, the first published port of each
    /// instance is reached from here.
    pub(crate) fn services(&self, here: &Here) -> Vec<(u16, String)> {
        let service = |instance: Instance<'_>| {
            let port = instance.net_info.ports.first()?;
            let port = if instance.is_own { port.container_port } else { port.host_port };
            let app = instance.row.key.process_guid.as_str().to_ascii_lowercase();
            Some((port, format!("{}.{app}.{ZONE}", instance.row.key.index)))
        };
        self.instances(here).filter_map(service).collect()
    }

    fn instances(&self, here: &Here) -> impl Iterator<Item = Instance<'_>> {
        self.0.iter().filter_map(|row| {
            let ActualState::Running { instance, net_info } = &row.state else { return None };
            let is_own =
                instance.cell_id == here.cell_id || here.has_route(net_info.instance_address);
            let address = if is_own { net_info.instance_address } else { net_info.address };
            Some(Instance { row, net_info, address, is_own })
        })
    }
}

/// One instance as it is reached.
struct Instance<'a> {
    row: &'a ActualLrp,
    net_info: &'a NetInfo,
    address: Ipv4Addr,
    /// Whether that is its own address, and not its cell's.
    is_own: bool,
}

/// Where the question is asked.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) cell_id: CellId,
    /// Where containers of other cells are, if there is a route to them.
    pub(crate) container_networks: Vec<AddressRange>,
}

impl Here {
    fn has_route(&self, address: Ipv4Addr) -> bool {
        self.container_networks.iter().any(|network| network.contains(address))
    }
}
