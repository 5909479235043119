//! Which instances a host and a path lead to: those that run and are routable, of each app that
//! has a route there.
//!
//! Pure. Made from a state, and kept by its events: a change costs what its app has, and a look-up
//! nothing that grows with the cluster. Instances that run twice for a while, as in an evacuation,
//! are all there.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{ActualLrp, ActualState, DesiredLrp, Event, Presence, ProcessGuid, State};

use crate::route::{Route, Target, routes};

/// Where an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub app: ProcessGuid,
    pub index: u32,
    pub instance_guid: String,
    pub address: SocketAddrV4,
    pub is_http2: bool,
}

/// Who answers on one route, in turns.
#[derive(Debug, Default)]
pub struct Pool {
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Pool {
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, turn: usize) -> Self {
        let endpoints = endpoints.into_iter().map(Arc::new).collect();
        Self { endpoints, turn: AtomicUsize::new(turn) }
    }

    /// A number that is one more each time.
    pub fn take_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// What an app has.
#[derive(Debug, Default)]
struct App {
    routes: BTreeSet<Route>,
    /// Those that run and are routable.
    instances: BTreeMap<(u32, Presence), Arc<ActualLrp>>,
}

/// One host and path.
#[derive(Debug, Default)]
struct Slot {
    /// Who has the route, and at which port.
    targets: BTreeSet<(ProcessGuid, Target)>,
    pool: Arc<Pool>,
}

/// The routing table.
#[derive(Debug, Default)]
pub struct Table {
    apps: BTreeMap<ProcessGuid, App>,
    /// By host, and then by path.
    hosts: BTreeMap<String, BTreeMap<String, Slot>>,
}

impl Table {
    #[must_use]
    pub fn of(state: &State) -> Self {
        let mut table = Self::default();
        for lrp in state.actual_lrps() {
            table.put(lrp);
        }
        for lrp in state.desired_lrps() {
            table.add(lrp);
        }
        table
    }

    /// Follows a change.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::DesiredLrpCreated(lrp) => self.add(lrp),
            Event::DesiredLrpChanged { before, after } => {
                if before.routes != after.routes {
                    self.remove(before);
                    self.add(after);
                }
            }
            Event::DesiredLrpRemoved(lrp) => self.remove(lrp),
            Event::ActualLrpCreated(lrp) => {
                if self.put(lrp) {
                    self.refresh(&lrp.key.process_guid);
                }
            }
            Event::ActualLrpChanged { before, after } => {
                let is_gone = before.id() != after.id() && self.take(before);
                if self.put(after) || is_gone {
                    self.refresh(&after.key.process_guid);
                }
            }
            Event::ActualLrpRemoved(lrp) => {
                if self.take(lrp) {
                    self.refresh(&lrp.key.process_guid);
                    self.forget(&lrp.key.process_guid);
                }
            }
            Event::ActualLrpCrashed { .. }
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

    /// Who answers; `None` where nobody has a route there.
    ///
    /// The host itself comes before patterns, the narrower pattern before the wider, and of one
    /// host's paths the longest that the request's begins with (Gorouter: `registry.Lookup`).
    #[must_use]
    pub fn look_up(&self, host: &str, path: &str) -> Option<Arc<Pool>> {
        if let Some(pool) = self.hosts.get(host).and_then(|paths| longest(paths, path)) {
            return Some(pool);
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            let paths = self.hosts.get(&format!("*.{parent}"));
            if let Some(pool) = paths.and_then(|paths| longest(paths, path)) {
                return Some(pool);
            }
            rest = parent;
        }
        None
    }

    /// Every route with whoever answers there: what another router is told.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str, &Pool)> {
        self.hosts.iter().flat_map(|(host, paths)| {
            paths.iter().map(move |(path, slot)| (&**host, &**path, &*slot.pool))
        })
    }

    /// A route of its own, for tests of what is built on the table.
    #[cfg(test)]
    pub(crate) fn set(&mut self, host: &str, endpoints: Vec<Endpoint>) {
        let slot = Slot { targets: BTreeSet::new(), pool: Arc::new(Pool::new(endpoints, 0)) };
        self.hosts.entry(host.to_owned()).or_default().insert(String::new(), slot);
    }

    fn add(&mut self, lrp: &DesiredLrp) {
        let guid = &lrp.process_guid;
        let routes: BTreeSet<Route> = routes(lrp).into_iter().collect();
        for Route { host, path, target } in &routes {
            let paths = self.hosts.entry(host.clone()).or_default();
            let slot = paths.entry(path.clone()).or_default();
            slot.targets.insert((guid.clone(), *target));
        }
        if !routes.is_empty() {
            self.apps.entry(guid.clone()).or_default().routes = routes.clone();
        }
        self.refill(guid, &routes);
    }

    fn remove(&mut self, lrp: &DesiredLrp) {
        let guid = &lrp.process_guid;
        let Some(app) = self.apps.get_mut(guid) else { return };
        let routes = std::mem::take(&mut app.routes);
        for Route { host, path, target } in &routes {
            let Some(paths) = self.hosts.get_mut(host) else { continue };
            let Some(slot) = paths.get_mut(path) else { continue };
            slot.targets.remove(&(guid.clone(), *target));
            if slot.targets.is_empty() {
                paths.remove(path);
                if paths.is_empty() {
                    self.hosts.remove(host);
                }
            }
        }
        // Routes that others have as well.
        self.refill(guid, &routes);
        self.forget(guid);
    }

    /// Takes an instance in if requests may be sent there, and out if not; whether that changed.
    fn put(&mut self, lrp: &Arc<ActualLrp>) -> bool {
        if !(lrp.routable && lrp.is_running()) {
            return self.take(lrp);
        }
        let app = self.apps.entry(lrp.key.process_guid.clone()).or_default();
        let before = app.instances.insert((lrp.key.index, lrp.presence), Arc::clone(lrp));
        before.is_none_or(|before| before.state != lrp.state)
    }

    fn take(&mut self, lrp: &ActualLrp) -> bool {
        let app = self.apps.get_mut(&lrp.key.process_guid);
        app.is_some_and(|app| app.instances.remove(&(lrp.key.index, lrp.presence)).is_some())
    }

    /// Tells an app's routes who its instances are now.
    fn refresh(&mut self, guid: &ProcessGuid) {
        let Some(app) = self.apps.get(guid) else { return };
        self.fill_all(&app.routes.clone());
    }

    /// Tells routes that an app has got or lost who answers there now. Where none of its instances
    /// runs, that is whoever did before: many apps may have one route, and none of them is asked.
    fn refill(&mut self, guid: &ProcessGuid, routes: &BTreeSet<Route>) {
        if self.apps.get(guid).is_some_and(|app| !app.instances.is_empty()) {
            self.fill_all(routes);
        }
    }

    fn fill_all(&mut self, routes: &BTreeSet<Route>) {
        let places: BTreeSet<(&str, &str)> =
            routes.iter().map(|route| (&*route.host, &*route.path)).collect();
        for (host, path) in places {
            self.fill(host, path);
        }
    }

    fn fill(&mut self, host: &str, path: &str) {
        let slot = self.hosts.get_mut(host).and_then(|paths| paths.get_mut(path));
        let Some(slot) = slot else { return };
        let mut endpoints = Vec::new();
        for (guid, target) in &slot.targets {
            let Some(app) = self.apps.get(guid) else { continue };
            endpoints.extend(app.instances.values().filter_map(|lrp| endpoint(lrp, *target)));
        }
        let turn = slot.pool.turn.load(Ordering::Relaxed);
        slot.pool = Arc::new(Pool::new(endpoints, turn));
    }

    fn forget(&mut self, guid: &ProcessGuid) {
        let is_empty = |app: &App| app.routes.is_empty() && app.instances.is_empty();
        if self.apps.get(guid).is_some_and(is_empty) {
            self.apps.remove(guid);
        }
    }
}

/// The pool of the longest path that this one is, or is below.
fn longest(paths: &BTreeMap<String, Slot>, path: &str) -> Option<Arc<Pool>> {
    let mut path = path.trim_end_matches('/');
    loop {
        if let Some(slot) = paths.get(path) {
            return Some(Arc::clone(&slot.pool));
        }
        path = &path[..path.rfind('/')?];
    }
}

/// An instance at a port, if it has it.
fn endpoint(lrp: &ActualLrp, target: Target) -> Option<Endpoint> {
    let ActualState::Running { instance, net_info } = &lrp.state else { return None };
    let port = net_info.ports.iter().find(|port| port.container_port == target.port)?;
    Some(Endpoint {
        app: lrp.key.process_guid.clone(),
        index: lrp.key.index,
        instance_guid: instance.instance_guid.to_string(),
        address: SocketAddrV4::new(net_info.address, port.host_port),
        is_http2: target.is_http2,
    })
}
