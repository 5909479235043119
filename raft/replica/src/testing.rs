//! For tests of this crate and of those that implement its traits: what every [`Disk`] must do,
//! openraft's own storage suite, and a switchboard that wires replicas in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::async_runtime::{WatchReceiver, WatchSender};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::WatchSenderOf;

use crate::disk::{Batch, Change, Disk, Done, LogRecord, Meta, Row};
use crate::log::LogStore;
use crate::newcomer::{Entrance, Newcomer};
use crate::peers::{Envelope, PeerError, PeerRequest, PeerResponse, Peers};
use crate::raft::Types;
use crate::replica::{Config, Replica, StartError};
use crate::state::StateStore;
use crate::wire::{Node, NodeId};

/// Runs openraft's storage suite on the log and state of this crate over disks that `make`
/// supplies, each with a guard that is dropped after it.
///
/// # Panics
/// The suite found a fault.
pub async fn storage_suite<RT, D, G>(make: impl Fn() -> (G, Arc<D>) + Send + Sync)
where
    RT: AsyncRuntime,
    D: Disk,
    G: Send + Sync + 'static,
{
    struct Builder<F>(F);
    impl<RT, D, G, F> StoreBuilder<Types<RT>, LogStore<RT, D>, StateStore<RT, D>, G> for Builder<F>
    where
        RT: AsyncRuntime,
        D: Disk,
        G: Send + Sync + 'static,
        F: Fn() -> (G, Arc<D>) + Send + Sync,
    {
        async fn build(
            &self,
        ) -> Result<(G, LogStore<RT, D>, StateStore<RT, D>), openraft::StorageError<Types<RT>>>
        {
            let (guard, disk) = (self.0)();
            let log = LogStore::open(disk.clone()).expect("an empty log opens");
            let state = StateStore::open(disk).await.expect("an empty state opens");
            Ok((guard, log, state))
        }
    }
    Suite::<Types<RT>, LogStore<RT, D>, StateStore<RT, D>, _, G>::test_all(Builder(make))
        .await
        .expect("the storage keeps openraft's rules");
}

/// Checks what [`Disk`] promises to a process that does not crash.
///
/// # Panics
/// A promise is broken.
pub fn disk_suite<D: Disk>(disk: &D) {
    log_is_kept_in_order(disk);
    log_is_cut_at_both_ends(disk);
    single_values_are_kept(disk);
    rows_are_kept_by_generation(disk);
    answer(|done| disk.sync(done));
}

/// The answer of a request, waited for.
///
/// # Panics
/// The request failed or was dropped.
pub fn answer<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> T {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |answer| {
        let _gone = sender.send(answer);
    }));
    receiver.recv().expect("the disk answers").expect("the disk works")
}

fn put(index: u64) -> Change {
    Change::PutLog { index, bytes: format!("entry {index}").into_bytes() }
}

fn record(index: u64) -> LogRecord {
    LogRecord { index, bytes: format!("entry {index}").into_bytes() }
}

fn write(disk: &impl Disk, changes: Vec<Change>) {
    disk.write(Batch(changes)).expect("the disk works");
}

fn indexes(disk: &impl Disk, range: std::ops::Range<u64>, bytes_max: usize) -> Vec<u64> {
    let records = answer(|done| disk.read_log(range, bytes_max, done));
    records.iter().map(|record| record.index).collect()
}

fn log_is_kept_in_order(disk: &impl Disk) {
    assert_eq!(disk.last_log().expect("the disk works"), None);
    // Indexes whose bytes sort otherwise than they do, if stored carelessly.
    write(disk, [1, 2, 255, 256, 257, 65_536].map(put).to_vec());
    assert_eq!(indexes(disk, 0..u64::MAX, usize::MAX), [1, 2, 255, 256, 257, 65_536]);
    assert_eq!(indexes(disk, 2..257, usize::MAX), [2, 255, 256]);
    assert_eq!(indexes(disk, 2..257, 0), [2], "one entry whatever the bound");
    assert_eq!(indexes(disk, 1..257, 15), [1, 2, 255], "no more once the bound is passed");
    assert!(indexes(disk, 300..400, usize::MAX).is_empty());
    assert!(indexes(disk, 5..5, usize::MAX).is_empty());
    assert_eq!(disk.last_log().expect("the disk works"), Some(record(65_536)));
    let over = Change::PutLog { index: 2, bytes: b"other".to_vec() };
    write(disk, vec![over]);
    let read = answer(|done| disk.read_log(2..3, 1, done));
    assert_eq!(read, [LogRecord { index: 2, bytes: b"other".to_vec() }]);
}

fn log_is_cut_at_both_ends(disk: &impl Disk) {
    write(disk, vec![Change::TruncateLog { index: 256 }]);
    assert_eq!(indexes(disk, 0..u64::MAX, usize::MAX), [1, 2, 255]);
    assert_eq!(disk.last_log().expect("the disk works"), Some(record(255)));
    // Cut and written again in one batch, in this order.
    write(disk, vec![Change::TruncateLog { index: 3 }, put(3), put(4), put(5)]);
    assert_eq!(indexes(disk, 0..u64::MAX, usize::MAX), [1, 2, 3, 4, 5]);
    write(disk, vec![Change::PurgeLog { index: 3 }]);
    assert_eq!(indexes(disk, 0..u64::MAX, usize::MAX), [4, 5]);
    write(disk, vec![Change::PurgeLog { index: 9 }]);
    assert_eq!(disk.last_log().expect("the disk works"), None);
    write(disk, vec![put(10)]);
    assert_eq!(disk.last_log().expect("the disk works"), Some(record(10)));
    write(disk, vec![Change::TruncateLog { index: 0 }]);
    assert_eq!(disk.last_log().expect("the disk works"), None);
}

fn single_values_are_kept(disk: &impl Disk) {
    assert_eq!(disk.meta(Meta::Vote).expect("the disk works"), None);
    let put = |meta, text: &str| Change::PutMeta { meta, bytes: text.as_bytes().to_vec() };
    write(disk, vec![put(Meta::Vote, "a"), put(Meta::Purged, "b"), put(Meta::Vote, "c")]);
    assert_eq!(disk.meta(Meta::Vote).expect("the disk works"), Some(b"c".to_vec()));
    assert_eq!(disk.meta(Meta::Purged).expect("the disk works"), Some(b"b".to_vec()));
    assert_eq!(disk.meta(Meta::Applied).expect("the disk works"), None);
}

fn rows_are_kept_by_generation(disk: &impl Disk) {
    let put = |generation, key: &[u8]| Change::PutRow {
        generation,
        key: key.to_vec(),
        value: [key, b"!"].concat(),
    };
    let keys = |generation, after: Option<&[u8]>, bytes_max| -> Vec<Vec<u8>> {
        let after = after.map(<[u8]>::to_vec);
        let rows: Vec<Row> = answer(|done| disk.read_rows(generation, after, bytes_max, done));
        for row in &rows {
            assert_eq!(row.value, [&row.key[..], b"!"].concat());
        }
        rows.into_iter().map(|row| row.key).collect()
    };
    let max = usize::MAX;
    write(disk, vec![put(7, b"b"), put(7, b"a"), put(7, b"a\xff"), put(8, b"c"), put(9, b"")]);
    assert_eq!(keys(7, None, max), [&b"a"[..], b"a\xff", b"b"]);
    assert_eq!(keys(7, Some(b"a"), max), [&b"a\xff"[..], b"b"]);
    assert!(keys(7, Some(b"b"), max).is_empty());
    assert_eq!(keys(7, None, 0), [b"a"], "one row whatever the bound");
    assert_eq!(keys(9, None, max), [b""]);
    write(disk, vec![Change::RemoveRow { generation: 7, key: b"a".to_vec() }]);
    assert_eq!(keys(7, None, max), [&b"a\xff"[..], b"b"]);
    write(disk, vec![Change::RemoveGenerations { generations: 0..8 }]);
    assert!(keys(7, None, max).is_empty());
    assert_eq!(keys(8, None, max), [b"c"]);
    write(disk, vec![Change::RemoveGenerations { generations: 9..u64::MAX }]);
    assert!(keys(9, None, max).is_empty());
    assert_eq!(keys(8, None, max), [b"c"]);
    write(disk, vec![Change::RemoveGenerations { generations: 8..9 }]);
}

/// Makes a node a replica as its host does: as a newcomer first, however long it takes.
///
/// # Errors
/// It does not start, or is not to take part.
pub async fn enter<RT: AsyncRuntime, D: Disk>(
    board: &Switchboard<RT>,
    config: &Config,
    first: &BTreeMap<NodeId, Node>,
    disk: Arc<D>,
) -> Result<Replica<RT, D, Line<RT>>, StartError> {
    let line = Arc::new(board.line(config.id));
    let newcomer = Newcomer::open(config, first.clone(), disk.clone(), line.clone()).await?;
    board.plug_newcomer(config.id, &newcomer);
    let entrance = newcomer.introduce().await.inspect_err(|_| board.unplug(config.id))?;
    let config = Config { id: entrance.id(), ..config.clone() };
    let replica = Replica::start(&config, disk, line.clone()).await?;
    board.plug_at(line.from, &replica);
    if let Entrance::Founder(_, members) = entrance {
        replica.initialize(members).await.expect("it is among the first");
    }
    Ok(replica)
}

type Handler =
    Arc<dyn Fn(Envelope) -> Pin<Box<dyn Future<Output = PeerResponse> + Send>> + Send + Sync>;

/// Wires replicas of one process. Every message goes through its bytes.
pub struct Switchboard<RT: AsyncRuntime> {
    inner: Arc<Mutex<Lines<RT>>>,
}

struct Lines<RT: AsyncRuntime> {
    handlers: BTreeMap<NodeId, Handler>,
    cut: BTreeSet<(NodeId, NodeId)>,
    delivered: BTreeMap<&'static str, u64>,
    tried: WatchSenderOf<Types<RT>, Tries>,
}

/// How often each node tried to make each call.
type Tries = BTreeMap<(NodeId, &'static str), u64>;

impl<RT: AsyncRuntime> Clone for Switchboard<RT> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<RT: AsyncRuntime> Default for Switchboard<RT> {
    fn default() -> Self {
        let (tried, _) = Types::<RT>::watch_channel(BTreeMap::new());
        let lines = Lines {
            handlers: BTreeMap::new(),
            cut: BTreeSet::new(),
            delivered: BTreeMap::new(),
            tried,
        };
        Self { inner: Arc::new(Mutex::new(lines)) }
    }
}

impl<RT: AsyncRuntime> fmt::Debug for Switchboard<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lock();
        f.debug_struct("Switchboard")
            .field("plugged", &lines.handlers.keys())
            .field("cut", &lines.cut)
            .finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime> Switchboard<RT> {
    /// What node `from` speaks through.
    #[must_use]
    pub fn line(&self, from: NodeId) -> Line<RT> {
        Line { from, board: self.clone() }
    }

    /// Lets a replica be called, at the place of its number.
    pub fn plug<D: Disk>(&self, replica: &Replica<RT, D, Line<RT>>) {
        self.plug_at(replica.id(), replica);
    }

    /// Lets a replica be called at a place: at the address `memory:PLACE`.
    pub fn plug_at<D: Disk>(&self, place: NodeId, replica: &Replica<RT, D, Line<RT>>) {
        let replica = replica.clone();
        let handler: Handler = Arc::new(move |envelope| {
            let replica = replica.clone();
            Box::pin(async move {
                let request = match replica.open(envelope) {
                    Ok(request) => request,
                    Err(answer) => return answer,
                };
                if let PeerRequest::Soft(message) = request {
                    // Stands in for the host: the answer is the question.
                    return PeerResponse::Soft(message);
                }
                replica.handle(request).await
            })
        });
        self.lock().handlers.insert(place, handler);
    }

    /// Lets a newcomer be called at a place.
    pub fn plug_newcomer<D: Disk>(&self, place: NodeId, newcomer: &Newcomer<RT, D, Line<RT>>) {
        let newcomer = newcomer.clone();
        let handler: Handler = Arc::new(move |envelope| {
            let answer = newcomer.handle(&envelope);
            Box::pin(async move { answer })
        });
        self.lock().handlers.insert(place, handler);
    }

    /// Calls of node `id` find nobody from now on.
    pub fn unplug(&self, id: NodeId) {
        self.lock().handlers.remove(&id);
    }

    /// Cuts node `id` off from all `others`, both ways: messages vanish.
    pub fn isolate(&self, id: NodeId, others: impl IntoIterator<Item = NodeId>) {
        let mut lines = self.lock();
        for other in others {
            lines.cut.insert((id, other));
            lines.cut.insert((other, id));
        }
    }

    /// Mends all cuts.
    pub fn mend(&self) {
        self.lock().cut.clear();
    }

    /// How many calls of a request of this name were delivered.
    #[must_use]
    pub fn calls(&self, name: &str) -> u64 {
        self.lock().delivered.get(name).copied().unwrap_or_default()
    }

    /// Waits until node `from` has tried to make `more` further calls of this name, whatever
    /// became of them.
    ///
    /// # Panics
    /// The switchboard is gone.
    pub async fn tried(&self, from: NodeId, name: &'static str, more: u64) {
        let mut tried = self.lock().tried.subscribe();
        let count = move |tries: &Tries| tries.get(&(from, name)).copied().unwrap_or_default();
        let goal = count(&tried.borrow_watched()) + more;
        tried.wait_until(|tries| count(tries) >= goal).await.expect("the switchboard is here");
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cut.contains(&(from, to))
    }

    fn lock(&self) -> MutexGuard<'_, Lines<RT>> {
        self.inner.lock().expect("no holder of the lock panics")
    }
}

/// What one node speaks through.
pub struct Line<RT: AsyncRuntime> {
    from: NodeId,
    board: Switchboard<RT>,
}

impl<RT: AsyncRuntime> fmt::Debug for Line<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("from", &self.from).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime> Peers for Line<RT> {
    async fn call(
        &self,
        target: NodeId,
        node: &Node,
        envelope: Envelope,
        _timeout: Duration,
    ) -> Result<PeerResponse, PeerError> {
        let place = node.address.strip_prefix("memory:").and_then(|place| place.parse().ok());
        let place = place.expect("addresses here are memory:PLACE");
        self.board.lock().tried.send_if_modified(|tries| {
            *tries.entry((self.from, envelope.request.name())).or_default() += 1;
            true
        });
        if self.board.is_cut(self.from, place) {
            std::future::pending::<()>().await;
        }
        let handler = {
            let mut lines = self.board.lock();
            let Some(handler) = lines.handlers.get(&place).cloned() else {
                let reason = "it is down".to_owned();
                return Err(PeerError::Unreachable { target, reason });
            };
            *lines.delivered.entry(envelope.request.name()).or_default() += 1;
            handler
        };
        let envelope = Envelope::decode(&envelope.encode()).expect("what is encoded decodes");
        // In a task of its own: a caller who gives up does not stop the one who is called.
        let answer = RT::spawn(async move { handler(envelope).await }).await;
        if self.board.is_cut(place, self.from) {
            std::future::pending::<()>().await;
        }
        match answer {
            Ok(answer) => {
                Ok(PeerResponse::decode(&answer.encode()).expect("what is encoded decodes"))
            }
            Err(error) => Err(PeerError::Lost { target, reason: error.to_string() }),
        }
    }
}
