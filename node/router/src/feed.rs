//! What other routers are told of one cell's instances: Diego's route-emitter, without the wire.
//!
//! Pure. Made from a state, and kept by its events as the [table](crate::table) is; a change of an
//! app becomes the messages by which routers follow it. Each cell tells of its own instances, so
//! nobody need lead, and nothing is told twice. Nobody takes back what a lost cell has said: its
//! routes go stale (Gorouter: `droplet_stale_threshold`, 120 s).

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use model::{ActualLrp, CellId, DesiredLrp, Event, Presence, ProcessGuid, State};

pub use self::message::Message;
use self::message::messages;
use crate::limits::WITHDRAWN_MAX;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Gorouters, of `cf-router` routes.
    Routers,
    /// Who answers for `internal-router` names.
    ServiceDiscovery,
}

impl Audience {
    /// What its subjects begin with.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Routers => "router",
            Self::ServiceDiscovery => "service-discovery",
        }
    }
}

/// What a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Register,
    Unregister,
}

impl Verb {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Unregister => "unregister",
        }
    }
}

/// A message, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    pub audience: Audience,
    pub verb: Verb,
    pub message: Arc<Message>,
}

impl Telling {
    /// `router.register`, and so on.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}.{}", self.audience.name(), self.verb.name())
    }
}

/// What is told, as the operator has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether routers reach containers at their own addresses. Diego:
    /// `register_direct_instance_routes`.
    pub has_direct_routes: bool,
    /// Whether service discovery is told. Diego: `internal_routes.enabled`.
    pub has_internal_routes: bool,
}

/// What tells one registration from another: a later one of the same key replaces it, and a
/// withdrawal is of a key (Gorouter: the pool of a URI, by address).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    audience: Audience,
    uri: String,
    host: Ipv4Addr,
    port: u16,
}

type Messages = BTreeMap<Key, Arc<Message>>;

/// What an app has.
#[derive(Debug, Default)]
struct App {
    desired: Option<Arc<DesiredLrp>>,
    /// Those on this cell that run and are routable.
    instances: BTreeMap<(u32, Presence), Arc<ActualLrp>>,
    /// What is registered, without ages.
    told: Messages,
}

/// A registration that was taken back.
#[derive(Debug)]
struct Withdrawn {
    message: Arc<Message>,
    /// How often that was repeated.
    repeated: u32,
}

/// What others are told of one cell.
#[derive(Debug)]
pub struct Feed {
    cell_id: CellId,
    settings: Settings,
    apps: BTreeMap<ProcessGuid, App>,
    /// What is to be told and was not taken yet; of one key the last only.
    changes: BTreeMap<Key, (Verb, Arc<Message>)>,
    /// What is to be repeated: routers may have missed it.
    withdrawn: BTreeMap<Key, Withdrawn>,
}

impl Feed {
    #[must_use]
    pub fn new(cell_id: CellId, settings: Settings) -> Self {
        Self {
            cell_id,
            settings,
            apps: BTreeMap::new(),
            changes: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
        }
    }

    /// Begins anew where events were missed: what differs is told.
    pub fn sync(&mut self, state: &State) {
        let mut before = std::mem::take(&mut self.apps);
        for lrp in state.desired_lrps() {
            self.app(&lrp.process_guid).desired = Some(Arc::clone(lrp));
        }
        for lrp in state.actual_lrps() {
            self.put(lrp);
        }
        for (guid, app) in &mut before {
            if !app.told.is_empty() {
                self.app(guid).told = std::mem::take(&mut app.told);
            }
        }
        let guids: Vec<_> = self.apps.keys().cloned().collect();
        guids.iter().for_each(|guid| self.refresh(guid));
    }

    /// Follows a change.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::DesiredLrpCreated(lrp) | Event::DesiredLrpChanged { after: lrp, .. } => {
                self.app(&lrp.process_guid).desired = Some(Arc::clone(lrp));
                self.refresh(&lrp.process_guid);
            }
            Event::DesiredLrpRemoved(lrp) => {
                self.app(&lrp.process_guid).desired = None;
                self.refresh(&lrp.process_guid);
            }
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

    /// What has changed since this was asked last. First what is registered: a route whose
    /// instance is replaced by another one always leads somewhere.
    pub fn take_changes(&mut self) -> Vec<Telling> {
        let changes = std::mem::take(&mut self.changes);
        let telling =
            |(key, (verb, message)): (Key, _)| Telling { audience: key.audience, verb, message };
        let (mut tellings, withdrawals): (Vec<_>, Vec<_>) =
            changes.into_iter().map(telling).partition(|telling| telling.verb == Verb::Register);
        tellings.extend(withdrawals);
        tellings
    }

    /// Everything that is registered, to be told at intervals: what is not repeated goes stale.
    #[must_use]
    pub fn registrations(&self, audience: Audience) -> Vec<Telling> {
        let told = self.apps.values().flat_map(|app| &app.told);
        told.filter(|(key, _)| key.audience == audience)
            .map(|(_, message)| Telling {
                audience,
                verb: Verb::Register,
                message: Arc::clone(message),
            })
            .collect()
    }

    /// What was taken back lately, each `times` times. Diego: `unregistration_send_count`.
    pub fn repeat_withdrawals(&mut self, times: u32) -> Vec<Telling> {
        let mut tellings = Vec::new();
        self.withdrawn.retain(|key, withdrawn| {
            withdrawn.repeated += 1;
            tellings.push(Telling {
                audience: key.audience,
                verb: Verb::Unregister,
                message: Arc::clone(&withdrawn.message),
            });
            withdrawn.repeated < times
        });
        tellings
    }

    /// Takes everything back, as where the instances end with the node.
    pub fn withdraw_all(&mut self) {
        let guids: Vec<_> = self.apps.keys().cloned().collect();
        for guid in guids {
            self.app(&guid).instances.clear();
            self.refresh(&guid);
        }
    }

    fn app(&mut self, guid: &ProcessGuid) -> &mut App {
        self.apps.entry(guid.clone()).or_default()
    }

    /// Takes an instance in if requests may be sent there, and out if not; whether that changed.
    fn put(&mut self, lrp: &Arc<ActualLrp>) -> bool {
        let is_here = lrp.instance().is_some_and(|instance| instance.cell_id == self.cell_id);
        if !(is_here && lrp.routable && lrp.is_running()) {
            return self.take(lrp);
        }
        let app = self.app(&lrp.key.process_guid);
        let before = app.instances.insert((lrp.key.index, lrp.presence), Arc::clone(lrp));
        before.is_none_or(|before| before.state != lrp.state)
    }

    fn take(&mut self, lrp: &ActualLrp) -> bool {
        let app = self.apps.get_mut(&lrp.key.process_guid);
        app.is_some_and(|app| app.instances.remove(&(lrp.key.index, lrp.presence)).is_some())
    }

    /// Tells what is different of an app now.
    fn refresh(&mut self, guid: &ProcessGuid) {
        let Some(app) = self.apps.get_mut(guid) else { return };
        let wanted: Messages = match &app.desired {
            Some(desired) => app
                .instances
                .values()
                .flat_map(|lrp| messages(desired, lrp, self.settings))
                .collect(),
            None => Messages::new(),
        };
        let without_age =
            |(key, message): (&Key, &Arc<Message>)| (key.clone(), Arc::new(message.without_age()));
        let told = wanted.iter().map(without_age).collect();
        let before = std::mem::replace(&mut app.told, told);
        // Of instances that others know already, the age is no news.
        let known: BTreeSet<_> = before.keys().map(|key| (key.host, key.port)).collect();
        for (key, message) in wanted {
            let told = &app.told[&key];
            if before.get(&key) == Some(told) {
                continue;
            }
            let is_news = !known.contains(&(key.host, key.port));
            let message = if is_news { message } else { Arc::clone(told) };
            self.withdrawn.remove(&key);
            self.changes.insert(key, (Verb::Register, message));
        }
        for (key, message) in before {
            if app.told.contains_key(&key) {
                continue;
            }
            self.changes.insert(key.clone(), (Verb::Unregister, Arc::clone(&message)));
            if self.withdrawn.len() < WITHDRAWN_MAX {
                self.withdrawn.insert(key, Withdrawn { message, repeated: 0 });
            }
        }
        if app.desired.is_none() && app.instances.is_empty() && app.told.is_empty() {
            self.apps.remove(guid);
        }
    }
}
