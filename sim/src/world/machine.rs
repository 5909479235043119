//! The containers of one machine: records with a life of their own in virtual time.
//!
//! They outlive the node that made them, as real shims do: a node that starts finds them as they
//! are by then, also those that it was still making. When the machine itself loses power their
//! processes are over. They hold nothing and run nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::world::{CallbackError, Containers, CreateFailure, Found};
use model::{NetInfo, PortMapping, Task};
use openraft_rt::{AsyncRuntime, Watch as _, WatchReceiver as _, WatchSender as _};
use plan::cell::{Container, Handle, Work};
use replica::NodeId;

use super::surroundings::cell_id;
use super::{Sabotage, World};
use crate::check::{Ended, ToldToEnd};
use crate::rng::{PerMillion, Rng};
use crate::runtime::{self, Group, Sender, SimRuntime, Watch};

const HALF: PerMillion = PerMillion(500_000);

/// How containers fare.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// The most that bringing an image takes, and starting, stopping or removing a container.
    pub step_max: Duration,
    /// How many containers cannot be made.
    pub create_fails: PerMillion,
    /// How many containers cannot be removed at the first try.
    pub destroy_fails: PerMillion,
    /// How many processes of instances crash.
    pub crashes: PerMillion,
    /// The most that a process lives that is going to end.
    pub life_max: Duration,
    /// How many requests to tasks' clients are not answered, or not for good.
    pub callbacks_fail: PerMillion,
    /// How many images take long to come.
    pub image_slow: PerMillion,
    /// How many containers hang while they are made, until something gives up.
    pub hangs: PerMillion,
    /// How long these hang.
    pub hang: Duration,
    /// How many processes ignore SIGTERM, and are killed when their grace is over.
    pub stubborn: PerMillion,
    /// How many instances are not healthy as soon as their process runs, but only later or never.
    pub health_slow: PerMillion,
    /// How many instances fail their readiness checks now and then.
    pub unready: PerMillion,
}

/// The most that an instance takes to be healthy; one that takes longer has crashed.
const HEALTH_SLOW_MAX: Duration = Duration::from_secs(60);
/// The most that an instance is ready, or not ready, at a stretch.
const READINESS_MAX: Duration = Duration::from_secs(30);
/// The most that an image takes that is slow.
const IMAGE_SLOW_MAX: Duration = Duration::from_secs(60);
/// How long a container hangs, where the mix says nothing else.
const HANG: Duration = Duration::from_secs(120);
/// The most that a task's process lives: it is waited for when all is mended.
const TASK_LIFE_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

impl Habits {
    /// Nothing goes wrong; tasks end.
    pub const CALM: Habits = Habits {
        step_max: Duration::from_millis(200),
        create_fails: PerMillion::NEVER,
        destroy_fails: PerMillion::NEVER,
        crashes: PerMillion::NEVER,
        life_max: Duration::from_secs(5),
        callbacks_fail: PerMillion::NEVER,
        image_slow: PerMillion::NEVER,
        hangs: PerMillion::NEVER,
        hang: HANG,
        stubborn: PerMillion::NEVER,
        health_slow: PerMillion::NEVER,
        unready: PerMillion::NEVER,
    };

    /// Whether all is mended.
    fn is_calm(&self) -> bool {
        self.crashes == PerMillion::NEVER
            && self.health_slow == PerMillion::NEVER
            && self.unready == PerMillion::NEVER
    }

    /// A mix of its own for each run.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            step_max: Duration::from_millis(*rng.pick(&[1, 200, 5_000])),
            create_fails: PerMillion(*rng.pick(&[0, 20_000, 200_000])),
            destroy_fails: PerMillion(*rng.pick(&[0, 100_000])),
            crashes: PerMillion(*rng.pick(&[0, 50_000, 300_000])),
            life_max: Duration::from_millis(*rng.pick(&[1, 1_000, 10_000, 30_000, 10_000_000])),
            callbacks_fail: PerMillion(*rng.pick(&[0, 200_000, 800_000])),
            image_slow: PerMillion(*rng.pick(&[0, 100_000])),
            hangs: PerMillion(*rng.pick(&[0, 0, 20_000])),
            hang: HANG,
            stubborn: PerMillion(*rng.pick(&[0, 200_000])),
            health_slow: PerMillion(*rng.pick(&[0, 100_000])),
            unready: PerMillion(*rng.pick(&[0, 0, 100_000])),
        }
    }
}

/// A machine, whatever lives the node on it has had.
pub(super) struct Machine {
    inner: Mutex<Inner>,
    versions: Sender<u64>,
}

struct Inner {
    containers: BTreeMap<Handle, Record>,
    habits: Habits,
    rng: Rng,
    next_serial: u64,
}

struct Record {
    /// Tells a container from a later one of the same name.
    serial: u64,
    container: Container,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(habits: Habits, rng: Rng) -> Self {
        let inner = Inner { containers: BTreeMap::new(), habits, rng, next_serial: 0 };
        let (versions, _) = Watch::channel(1);
        Self { inner: Mutex::new(inner), versions }
    }

    pub(super) fn set_habits(&self, habits: Habits) {
        self.inner().habits = habits;
    }

    /// What is there.
    pub(super) fn containers(&self) -> BTreeMap<Handle, Container> {
        let inner = self.inner();
        let named =
            |(handle, record): (&Handle, &Record)| (handle.clone(), record.container.clone());
        inner.containers.iter().map(named).collect()
    }

    /// The node crashes; in one of two cases the machine with it. Then processes are over, and
    /// what is left of them is found, or is not.
    pub(super) fn crash(&self) {
        let mut inner = self.inner();
        if inner.rng.chance(HALF) || inner.containers.is_empty() {
            return;
        }
        runtime::event("containers_lost", &[("count", inner.containers.len() as u64)]);
        if inner.rng.chance(HALF) {
            inner.containers.clear();
        }
        for record in inner.containers.values_mut() {
            record.container = exited(true, "the machine lost power");
        }
    }

    /// Ends the process of some container.
    pub(super) fn kill_one(&self, rng: &mut Rng) {
        let running =
            |(_, container): &(Handle, Container)| matches!(container, Container::Running { .. });
        let running: Vec<_> = self.containers().into_iter().filter(running).collect();
        if let [_, ..] = &running[..] {
            runtime::event("container_killed", &[]);
            let (handle, _) = rng.pick(&running);
            self.put(handle, None, exited(true, "killed"));
        }
    }

    /// A request to the client of a task, which may hear it and not be heard.
    pub(super) async fn call_back(&self, world: &World, task: &Task) -> Result<u16, CallbackError> {
        let (takes, fails) = self.draw(|habits| habits.callbacks_fail);
        SimRuntime::sleep(takes).await;
        let (_, is_heard) = self.draw(|_| HALF);
        if !fails || is_heard {
            world.check(|checker, _| checker.told(task));
        }
        if !fails {
            runtime::event("callback_answered", &[]);
            return Ok(200);
        }
        runtime::event("callback_failed", &[]);
        match self.inner().rng.below(3) {
            0 => return Ok(503),
            1 => return Err(CallbackError("connection refused".to_owned())),
            _ => {}
        }
        // Whoever asked has stopped waiting by then.
        SimRuntime::sleep(Duration::from_secs(3600)).await;
        Ok(200)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what a container is, if it is still the one of `serial`.
    fn put(&self, handle: &Handle, serial: Option<u64>, container: Container) {
        let mut inner = self.inner();
        let Some(record) = inner.containers.get_mut(handle) else { return };
        if serial.is_some_and(|serial| serial != record.serial) {
            return;
        }
        record.container = container;
        drop(inner);
        self.changed();
    }

    fn changed(&self) {
        self.versions.send_if_modified(|version| {
            *version += 1;
            true
        });
    }

    /// One step's time, and whether something of this chance happens.
    fn draw(&self, chance: impl FnOnce(&Habits) -> PerMillion) -> (Duration, bool) {
        let mut inner = self.inner();
        let chance = chance(&inner.habits);
        let step_max = inner.habits.step_max;
        (inner.rng.between(Duration::ZERO, step_max), inner.rng.chance(chance))
    }

    /// Makes the record of a container. Nothing if there is one of its name.
    fn insert(&self, handle: &Handle) -> Option<u64> {
        let mut inner = self.inner();
        if inner.containers.contains_key(handle) {
            return None;
        }
        inner.next_serial += 1;
        let serial = inner.next_serial;
        inner.containers.insert(handle.clone(), Record { serial, container: Container::Preparing });
        Some(serial)
    }

    /// Takes away what was made of a container, if it is still the one of `serial`.
    fn remove(&self, handle: &Handle, serial: u64) {
        let mut inner = self.inner();
        if inner.containers.get(handle).is_some_and(|record| record.serial == serial) {
            inner.containers.remove(handle);
        }
        drop(inner);
        self.changed();
    }

    /// A process that runs from now on, until it is healthy, and when and how it ends.
    fn run(self: &Arc<Self>, handle: &Handle, serial: u64) {
        let is_slow = matches!(handle, Handle::Lrp(_)) && self.draw(|it| it.health_slow).1;
        if !is_slow {
            return self.run_healthy(handle, serial);
        }
        self.put(handle, Some(serial), Container::Starting);
        let takes = self.inner().rng.between(Duration::ZERO, HEALTH_SLOW_MAX * 5 / 4);
        let (machine, handle) = (self.clone(), handle.clone());
        drop(runtime::spawn_in(Group::WORLD, async move {
            runtime::event_with("health_slow", &[], || handle.to_string());
            SimRuntime::sleep(takes.min(HEALTH_SLOW_MAX)).await;
            if machine.of(&handle, serial) != Some(Container::Starting) {
                return;
            }
            if takes <= HEALTH_SLOW_MAX || machine.inner().habits.is_calm() {
                return machine.run_healthy(&handle, serial);
            }
            runtime::event_with("never_healthy", &[], || handle.to_string());
            let reason = "Instance never healthy after 1m0s: timed out";
            machine.put(&handle, Some(serial), exited(true, reason));
        }));
    }

    /// The container of this name, if it is still the one of `serial`.
    fn of(&self, handle: &Handle, serial: u64) -> Option<Container> {
        let inner = self.inner();
        let record = inner.containers.get(handle).filter(|record| record.serial == serial);
        record.map(|record| record.container.clone())
    }

    /// A healthy process, and when and how it ends.
    fn run_healthy(self: &Arc<Self>, handle: &Handle, serial: u64) {
        let (takes, ends, failed) = {
            let mut inner = self.inner();
            let life_max = inner.habits.life_max;
            let life_max = match handle {
                Handle::Lrp(_) => life_max,
                Handle::Task(_) => life_max.min(TASK_LIFE_MAX),
            };
            let takes = inner.rng.between(Duration::ZERO, life_max);
            let crashes = inner.habits.crashes;
            let crashes = inner.rng.chance(crashes);
            match handle {
                Handle::Lrp(_) => (takes, crashes, true),
                Handle::Task(_) => (takes, true, crashes),
            }
        };
        let octet = u8::try_from(serial % 250).expect("below 250");
        let instance_address = Ipv4Addr::new(10, 255, 0, octet);
        let ports = match handle {
            Handle::Lrp(_) => {
                vec![PortMapping { container_port: 8080, host_port: 61_001 + u16::from(octet) }]
            }
            Handle::Task(_) => Vec::new(),
        };
        let net_info = NetInfo { address: Ipv4Addr::LOCALHOST, instance_address, ports };
        self.put(handle, Some(serial), Container::Running { net_info, routable: true });
        if matches!(handle, Handle::Lrp(_)) && self.draw(|habits| habits.unready).1 {
            self.flap(handle, serial);
        }
        if !ends {
            return;
        }
        let (machine, handle) = (self.clone(), handle.clone());
        drop(runtime::spawn_in(Group::WORLD, async move {
            SimRuntime::sleep(takes).await;
            if machine.inner().habits.is_calm() && matches!(handle, Handle::Lrp(_)) {
                return;
            }
            runtime::event_with("process_ended", &[], || handle.to_string());
            machine.put(&handle, Some(serial), exited(failed, "Exited with status 1"));
        }));
    }
}

impl Machine {
    /// Readiness that comes and goes, until all is mended.
    fn flap(self: &Arc<Self>, handle: &Handle, serial: u64) {
        let (machine, handle) = (self.clone(), handle.clone());
        drop(runtime::spawn_in(Group::WORLD, async move {
            loop {
                let stretch = machine.inner().rng.between(Duration::ZERO, READINESS_MAX);
                SimRuntime::sleep(stretch).await;
                let Some(Container::Running { net_info, routable }) = machine.of(&handle, serial)
                else {
                    return;
                };
                let is_calm = machine.inner().habits.is_calm();
                let turns = Container::Running { net_info, routable: is_calm || !routable };
                runtime::event_with("readiness_turned", &[], || handle.to_string());
                machine.put(&handle, Some(serial), turns);
                if is_calm {
                    return;
                }
            }
        }));
    }
}

fn exited(failed: bool, reason: &str) -> Container {
    Container::Exited { failed, reason: reason.to_owned(), result: String::new() }
}

/// One life's way to the containers of its machine.
pub(super) struct SimContainers {
    pub(super) me: NodeId,
    pub(super) world: Arc<World>,
    pub(super) machine: Arc<Machine>,
}

impl SimContainers {
    fn tell(&self, name: &'static str, handle: &Handle) {
        runtime::event_with(name, &[("node", self.me)], || handle.to_string());
    }

    /// The agent here has a container ended.
    fn ends(&self, handle: &Handle) {
        let applied = self.applied();
        let ended = Ended { cell_id: cell_id(self.me), handle: handle.clone(), applied };
        self.world.check(|checker, at_ns| checker.ended(at_ns, ended));
    }

    /// A process that runs gets SIGTERM.
    fn tells_to_end(&self, handle: &Handle) {
        let Handle::Lrp(guid) = handle else { return };
        let (cell_id, applied) = (cell_id(self.me), self.applied());
        let told = ToldToEnd { cell_id, instance: guid.clone(), applied };
        self.world.check(|checker, at_ns| checker.told_to_end(at_ns, told));
    }

    /// The last entry that the node here has applied.
    fn applied(&self) -> Option<u64> {
        self.world.replica(self.me).and_then(|(_, it)| it.read_stale().applied)
    }

    fn started(&self, handle: &Handle) {
        self.tell("container_started", handle);
        if let Handle::Task(guid) = handle {
            self.world.check(|checker, at_ns| checker.task_started(at_ns, guid, self.me));
        }
    }
}

impl Containers for SimContainers {
    async fn create(&self, handle: &Handle, _work: &Work) -> Result<(), CreateFailure> {
        let (takes, fails) = self.machine.draw(|habits| habits.create_fails);
        SimRuntime::sleep(takes).await;
        if self.machine.draw(|habits| habits.image_slow).1 {
            self.tell("image_slow", handle);
            let takes = self.machine.inner().rng.between(Duration::ZERO, IMAGE_SLOW_MAX);
            SimRuntime::sleep(takes).await;
        }
        if fails || self.world.is_registry_away() {
            self.tell("container_not_made", handle);
            let (_, retryable) = self.machine.draw(|_| HALF);
            return Err(CreateFailure { reason: "its image is not there".to_owned(), retryable });
        }
        let Some(serial) = self.machine.insert(handle) else {
            let reason = "there is one of its name".to_owned();
            return Err(CreateFailure { reason, retryable: true });
        };
        let (takes, hangs) = self.machine.draw(|habits| habits.hangs);
        SimRuntime::sleep(takes).await;
        if hangs {
            self.tell("container_hung", handle);
            let hang = self.machine.inner().habits.hang;
            SimRuntime::sleep(hang).await;
            self.machine.remove(handle, serial);
            let reason = "it did not start in time".to_owned();
            return Err(CreateFailure { reason, retryable: true });
        }
        self.started(handle);
        if self.world.sabotage == Some(Sabotage::StartTwice) {
            self.started(handle);
        }
        self.machine.run(handle, serial);
        Ok(())
    }

    async fn stop(&self, handle: &Handle) {
        self.ends(handle);
        let has_ended =
            |container| !matches!(container, Some(Container::Running { .. } | Container::Starting));
        if has_ended(self.machine.containers().remove(handle)) {
            return;
        }
        self.tells_to_end(handle);
        let (takes, is_stubborn) = self.machine.draw(|habits| habits.stubborn);
        SimRuntime::sleep(takes).await;
        if is_stubborn {
            self.tell("sigterm_ignored", handle);
            SimRuntime::sleep(GRACE).await;
        }
        self.tell("container_stopped", handle);
        self.machine.put(handle, None, exited(true, "stopped"));
    }

    async fn destroy(&self, handle: &Handle) -> Result<(), String> {
        self.ends(handle);
        let (takes, fails) = self.machine.draw(|habits| habits.destroy_fails);
        SimRuntime::sleep(takes).await;
        if fails {
            self.tell("container_not_destroyed", handle);
            return Err("its mounts are busy".to_owned());
        }
        if self.world.sabotage == Some(Sabotage::KeepContainers) {
            return Ok(());
        }
        self.machine.inner().containers.remove(handle);
        self.machine.changed();
        self.tell("container_destroyed", handle);
        Ok(())
    }

    fn list(&self) -> Vec<Found> {
        let found = |(handle, container)| Found { handle, container };
        self.machine.containers().into_iter().map(found).collect()
    }

    async fn changed(&self, seen: u64) -> u64 {
        let mut versions = self.machine.versions.subscribe();
        loop {
            let version = *versions.borrow_watched();
            if version != seen {
                return version;
            }
            versions.changed().await.expect("the machine outlives its nodes");
        }
    }
}

#[cfg(test)]
mod tests;
