//! The executor: which task runs next, when time moves, and what a crash takes away.
//!
//! One thread. Among the tasks that are ready it picks by the seed; when none is ready, virtual
//! time jumps to the next timer. Tasks live in groups: a node's tasks are one group, and killing
//! the group drops every one of them wherever it waits, as a crash does. It never reads a real
//! clock and never sleeps.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::time::{Clock, SimInstant};
use crate::limits;
use crate::rng::Rng;
use crate::trace::{Listener, Trace};

/// A set of tasks that live and die together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(u32);

impl Group {
    /// The simulator's own tasks: never killed, and its clock is true.
    pub const WORLD: Group = Group(0);
}

/// A task that panicked: in the product, a broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// Nanoseconds since the run began.
    pub at_ns: u64,
    /// The label of the group it ran in.
    pub group: String,
    /// What the panic said.
    pub message: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked at {} ns: {}", self.group, self.at_ns, self.message)
    }
}

pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct GroupState {
    label: String,
    clock: Clock,
    alive: bool,
}

struct Task {
    group: Group,
    waker: Arc<TaskWaker>,
    /// Absent while the task is being polled.
    future: Option<TaskFuture>,
}

/// Where a block_on's own future, which lives on the stack, is found.
const ROOT_SLOT: usize = usize::MAX;

struct TaskWaker {
    slot: usize,
    /// Never used twice, so that a late wake cannot reach a slot's next task.
    serial: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Ready(Mutex<Vec<Arc<TaskWaker>>>);

impl Ready {
    fn push(&self, task: Arc<TaskWaker>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn take_one(&self, choose: impl FnOnce(usize) -> usize) -> Option<Arc<TaskWaker>> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            return None;
        }
        let chosen = choose(tasks.len());
        Some(tasks.swap_remove(chosen))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            let ready = self.ready.clone();
            ready.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.clone().wake();
    }
}

/// Names one timer: when it is due, and the order of its making among those due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey {
    due_ns: u64,
    serial: u64,
}

/// The state of one simulated world's execution.
pub(super) struct Executor {
    now_ns: Cell<u64>,
    current: Cell<Group>,
    next_serial: Cell<u64>,
    polls_at_this_instant: Cell<u64>,
    groups: RefCell<Vec<GroupState>>,
    tasks: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<usize>>,
    ready: Arc<Ready>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    schedule: RefCell<Rng>,
    draws: RefCell<Rng>,
    trace: RefCell<Trace>,
    panics: RefCell<Vec<Panic>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// The executor that runs on this thread.
///
/// # Panics
/// Outside of a simulation.
pub(super) fn current() -> Rc<Executor> {
    try_current().expect("this is called by tasks of a simulation only")
}

/// The executor that runs on this thread, if one does.
pub(super) fn try_current() -> Option<Rc<Executor>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Makes an executor this thread's own until dropped.
struct Entered(Option<Rc<Executor>>);

impl Entered {
    fn enter(executor: Rc<Executor>) -> Self {
        Self(CURRENT.replace(Some(executor)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Executor {
    pub(super) fn new(seed: u64) -> Self {
        let world = GroupState { label: "world".into(), clock: Clock::default(), alive: true };
        Self {
            now_ns: Cell::new(0),
            current: Cell::new(Group::WORLD),
            next_serial: Cell::new(0),
            polls_at_this_instant: Cell::new(0),
            groups: RefCell::new(vec![world]),
            tasks: RefCell::default(),
            free: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            schedule: RefCell::new(Rng::stream(seed, "schedule")),
            draws: RefCell::new(Rng::stream(seed, "draws")),
            trace: RefCell::default(),
            panics: RefCell::default(),
        }
    }

    /// Runs until `root` is done, and returns what it gives. Other tasks stay where they are.
    pub(super) fn run<F: Future>(self: &Rc<Self>, root: F) -> F::Output {
        assert!(try_current().is_none(), "a simulation was started inside a simulation");
        let _entered = Entered::enter(self.clone());
        let mut root = pin!(root);
        let root_task = self.new_waker(ROOT_SLOT);
        let root_waker = Waker::from(root_task.clone());
        root_waker.wake_by_ref();
        loop {
            let Some(task) = self.take_ready() else {
                self.advance();
                continue;
            };
            task.queued.store(false, Ordering::Relaxed);
            if task.slot != ROOT_SLOT {
                self.poll_task(&task);
            } else if task.serial == root_task.serial {
                self.count_poll(task.serial);
                let mut context = Context::from_waker(&root_waker);
                if let Poll::Ready(output) = root.as_mut().poll(&mut context) {
                    return output;
                }
            }
        }
    }

    /// Drops every task: nothing of the simulated world outlives it.
    pub(super) fn clear(self: &Rc<Self>) {
        let _entered = Entered::enter(self.clone());
        for state in self.groups.borrow_mut().iter_mut() {
            state.alive = false;
        }
        self.drop_tasks(|_| true);
    }

    fn take_ready(&self) -> Option<Arc<TaskWaker>> {
        self.ready.take_one(|len| self.schedule.borrow_mut().index(len))
    }

    fn count_poll(&self, serial: u64) {
        self.trace.borrow_mut().poll(serial, self.now_ns.get());
        let polls = self.polls_at_this_instant.get() + 1;
        self.polls_at_this_instant.set(polls);
        assert!(
            polls <= limits::POLLS_AT_ONE_INSTANT_MAX,
            "livelock: {polls} polls while virtual time stood at {} ns",
            self.now_ns.get()
        );
    }

    fn poll_task(&self, waker: &Arc<TaskWaker>) {
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(waker.slot).and_then(Option::as_mut);
            task.filter(|task| task.waker.serial == waker.serial)
                .and_then(|task| Some((task.group, task.future.take()?)))
        };
        let Some((group, mut future)) = taken else {
            return; // woken after it ended or was killed
        };
        self.count_poll(waker.serial);
        let outer = self.current.replace(group);
        let task_waker = Waker::from(waker.clone());
        let done = future.as_mut().poll(&mut Context::from_waker(&task_waker)).is_ready();
        let unfinished = {
            let mut tasks = self.tasks.borrow_mut();
            // The slot holds another task, or none, if this one killed its own group.
            let slot = tasks[waker.slot].as_mut().filter(|t| t.waker.serial == waker.serial);
            match slot {
                Some(task) if !done => {
                    task.future = Some(future);
                    None
                }
                Some(_) => {
                    tasks[waker.slot] = None;
                    self.free.borrow_mut().push(waker.slot);
                    Some(future)
                }
                None => Some(future),
            }
        };
        drop(unfinished); // its destructors may call back into the executor
        self.current.set(outer);
    }

    /// Nothing is ready: time jumps to the next timer.
    fn advance(&self) {
        let due_ns = match self.timers.borrow().first_key_value() {
            Some((key, _)) => key.due_ns,
            None => panic!("deadlock: no task is ready and no timer is set"),
        };
        if due_ns > self.now_ns.get() {
            self.now_ns.set(due_ns);
            self.polls_at_this_instant.set(0);
        }
        loop {
            let mut timers = self.timers.borrow_mut();
            let Some(entry) = timers.first_entry().filter(|e| e.key().due_ns <= due_ns) else {
                return;
            };
            let waker = entry.remove();
            drop(timers);
            waker.wake();
        }
    }

    fn new_waker(&self, slot: usize) -> Arc<TaskWaker> {
        let serial = self.next_serial.get();
        self.next_serial.set(serial + 1);
        let queued = AtomicBool::new(false);
        Arc::new(TaskWaker { slot, serial, queued, ready: self.ready.clone() })
    }

    /// Adds a task to a group. A dead group takes none: the future is dropped unpolled.
    pub(super) fn spawn(&self, group: Group, future: TaskFuture) {
        if !self.is_alive(group) {
            drop(future);
            return;
        }
        let slot = self.free.borrow_mut().pop();
        let slot = slot.unwrap_or_else(|| {
            let mut tasks = self.tasks.borrow_mut();
            tasks.push(None);
            tasks.len() - 1
        });
        let waker = self.new_waker(slot);
        let task = Task { group, waker: waker.clone(), future: Some(future) };
        self.tasks.borrow_mut()[slot] = Some(task);
        waker.wake();
    }

    pub(super) fn new_group(&self, label: String, clock: Clock) -> Group {
        let mut groups = self.groups.borrow_mut();
        let id = u32::try_from(groups.len()).expect("a run makes fewer than 2^32 groups");
        groups.push(GroupState { label, clock, alive: true });
        Group(id)
    }

    /// Drops every task of a group, wherever it waits, and lets it have no more.
    pub(super) fn kill(&self, group: Group) {
        assert!(group != Group::WORLD, "the world cannot be killed");
        self.groups.borrow_mut()[group.0 as usize].alive = false;
        let outer = self.current.replace(group);
        self.drop_tasks(|task| task.group == group);
        self.current.set(outer);
    }

    fn drop_tasks(&self, which: impl Fn(&Task) -> bool) {
        let slots = self.tasks.borrow().len();
        for slot in 0..slots {
            let task = {
                let mut tasks = self.tasks.borrow_mut();
                if !tasks[slot].as_ref().is_some_and(&which) {
                    continue;
                }
                self.free.borrow_mut().push(slot);
                tasks[slot].take()
            };
            drop(task); // its destructors may call back into the executor
        }
    }

    pub(super) fn is_alive(&self, group: Group) -> bool {
        self.groups.borrow()[group.0 as usize].alive
    }

    /// How many tasks a group has.
    pub(super) fn tasks_of(&self, group: Group) -> usize {
        self.tasks.borrow().iter().flatten().filter(|task| task.group == group).count()
    }

    pub(super) fn current_group(&self) -> Group {
        self.current.get()
    }

    /// True time since the run began.
    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// What the running group's clock shows.
    pub(super) fn local_now(&self) -> SimInstant {
        self.clock().at(self.now_ns.get())
    }

    fn clock(&self) -> Clock {
        self.groups.borrow()[self.current.get().0 as usize].clock
    }

    /// Wakes `waker` when the running group's clock shows `deadline`.
    pub(super) fn set_timer(&self, deadline: SimInstant, waker: Waker) -> TimerKey {
        let due_ns = self.clock().when(deadline);
        let serial = self.next_serial.get();
        self.next_serial.set(serial + 1);
        let key = TimerKey { due_ns, serial };
        self.timers.borrow_mut().insert(key, waker);
        key
    }

    /// Changes whom a timer wakes; false if it has fired.
    pub(super) fn update_timer(&self, key: TimerKey, waker: &Waker) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some(held) = timers.get_mut(&key) else {
            return false;
        };
        held.clone_from(waker);
        true
    }

    pub(super) fn cancel_timer(&self, key: TimerKey) {
        let waker = self.timers.borrow_mut().remove(&key);
        drop(waker); // may be the last hold on a task's waker
    }

    /// The next seed for someone who asks for randomness of their own.
    pub(super) fn draw_seed(&self) -> u64 {
        self.draws.borrow_mut().any()
    }

    pub(super) fn event(
        &self,
        name: &'static str,
        fields: &[(&'static str, u64)],
        detail: impl FnOnce() -> String,
    ) {
        let groups = self.groups.borrow();
        let label = &groups[self.current.get().0 as usize].label;
        self.trace.borrow_mut().event(self.now_ns.get(), label, name, fields, detail);
    }

    pub(super) fn panicked(&self, message: String) {
        self.event("panicked", &[], || message.clone());
        let group = self.groups.borrow()[self.current.get().0 as usize].label.clone();
        self.panics.borrow_mut().push(Panic { at_ns: self.now_ns.get(), group, message });
    }

    pub(super) fn panics(&self) -> Vec<Panic> {
        self.panics.borrow().clone()
    }

    pub(super) fn listen(&self, listener: Listener) {
        self.trace.borrow_mut().listen(listener);
    }

    pub(super) fn with_trace<T>(&self, read: impl FnOnce(&Trace) -> T) -> T {
        read(&self.trace.borrow())
    }
}
