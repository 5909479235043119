//! What clients did and what they were told: the history that is judged when all is quiet.
//!
//! Order is kept by a counter that goes up with each beginning and each end, so that two things
//! at one instant of virtual time still have an order: the one in which they happened.

use std::collections::BTreeMap;

use model::Outcome;

/// One thing that a client asked for.
#[derive(Clone, Debug)]
pub struct Operation {
    /// True time of its beginning, in nanoseconds since the run began.
    pub at_ns: u64,
    /// Its place in the order of beginnings and ends.
    pub begun: u64,
    /// The place of its end, and what the client was told then; none while it waits, or when the
    /// client stopped waiting.
    pub ended: Option<(u64, End)>,
    /// For a proposal: where it stands in the agreed log, and what it came to there.
    pub agreed: Option<(u64, Outcome)>,
    /// Whether it is a proposal; otherwise it is a linearizable read.
    pub writes: bool,
}

/// What a client was told in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The proposal was applied, with this outcome.
    Applied(Outcome),
    /// The proposal was not made and never will be.
    NotProposed,
    /// The proposal may or may not take effect.
    Unknown,
    /// The read saw the state after this entry.
    Saw(u64),
    /// The read failed.
    Failed,
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

/// All operations of a run.
#[derive(Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    proposals: BTreeMap<Vec<u8>, OperationId>,
    /// Agreed entries that no client proposed, where nodes propose as well.
    of_nodes: Option<BTreeMap<Vec<u8>, u64>>,
    order: u64,
}

impl History {
    /// From here on nodes propose by themselves too.
    pub fn expect_nodes(&mut self) {
        self.of_nodes = Some(BTreeMap::new());
    }

    fn next_place(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn begin(&mut self, at_ns: u64, writes: bool) -> OperationId {
        let begun = self.next_place();
        let operation = Operation { at_ns, begun, ended: None, agreed: None, writes };
        self.operations.push(operation);
        OperationId(self.operations.len() - 1)
    }

    /// A client begins to propose `bytes`.
    ///
    /// # Panics
    /// When the same bytes were proposed before: the log could not tell them apart.
    pub fn begin_proposal(&mut self, at_ns: u64, bytes: Vec<u8>) -> OperationId {
        let id = self.begin(at_ns, true);
        let earlier = self.proposals.insert(bytes, id);
        assert!(earlier.is_none(), "two clients proposed the same bytes");
        id
    }

    /// A client begins to read.
    pub fn begin_read(&mut self, at_ns: u64) -> OperationId {
        self.begin(at_ns, false)
    }

    /// A client is told.
    pub fn end(&mut self, id: OperationId, end: End) {
        let place = self.next_place();
        let operation = &mut self.operations[id.0];
        assert!(operation.ended.is_none(), "a client was told twice");
        operation.ended = Some((place, end));
    }

    /// The entry at `index` of the agreed log is a proposal of these bytes.
    ///
    /// # Errors
    /// The bytes are of nobody, or agreed already.
    pub fn agreed(&mut self, index: u64, bytes: &[u8], outcome: Outcome) -> Result<(), String> {
        let earlier = match (self.proposals.get(bytes), &mut self.of_nodes) {
            (Some(id), _) => {
                let agreed = &mut self.operations[id.0].agreed;
                agreed.replace((index, outcome)).map(|(first, _)| first)
            }
            (None, Some(of_nodes)) => of_nodes.insert(bytes.to_vec(), index),
            (None, None) => return Err(format!("entry {index} is a proposal that nobody made")),
        };
        match earlier {
            None => Ok(()),
            Some(first) => {
                Err(format!("one proposal is agreed twice, as entries {first} and {index}"))
            }
        }
    }

    /// All of them, in the order of their beginnings.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}
