//! What happened in a run: a hash of everything, counts by name, and the story when asked for.
//!
//! Every poll (task, virtual time) and every event goes into the hash, so two runs with equal
//! hashes took the same steps to the last poll. Text is made only for a listener.

use std::collections::BTreeMap;
use std::fmt;

use crate::rng::Hash;

/// Receives the story, one event at a time.
pub type Listener = Box<dyn FnMut(&Event<'_>)>;

/// One thing that happened.
#[derive(Debug)]
pub struct Event<'a> {
    /// Nanoseconds of virtual time since the run began.
    pub at_ns: u64,
    /// Which task group it happened in: a node, or the world.
    pub group: &'a str,
    /// What happened, in the past tense: `elected`, `crashed`.
    pub name: &'static str,
    /// Its numbers, each with its name.
    pub fields: &'a [(&'static str, u64)],
    /// What else is worth telling.
    pub detail: String,
    /// The trace's hash with this event in it.
    pub hash: u64,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.at_ns / 1_000_000_000, self.at_ns % 1_000_000_000);
        write!(f, "{seconds:5}.{rest:09} {:<8} {}", self.group, self.name)?;
        for (name, value) in self.fields {
            write!(f, " {name}={value}")?;
        }
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        Ok(())
    }
}

/// The record of one run.
#[derive(Default)]
pub struct Trace {
    hash: Hash,
    polls: u64,
    counts: BTreeMap<&'static str, u64>,
    listener: Option<Listener>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash())
            .field("polls", &self.polls)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// From here on every event is told to `listener`.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// One poll of a task.
    pub fn poll(&mut self, task: u64, at_ns: u64) {
        self.polls += 1;
        self.hash.u64(task);
        self.hash.u64(at_ns);
    }

    /// One event. Its detail is made only for a listener.
    pub fn event(
        &mut self,
        at_ns: u64,
        group: &str,
        name: &'static str,
        fields: &[(&'static str, u64)],
        detail: impl FnOnce() -> String,
    ) {
        self.hash.u64(at_ns);
        self.hash.bytes(group.as_bytes());
        self.hash.bytes(name.as_bytes());
        for (_, value) in fields {
            self.hash.u64(*value);
        }
        *self.counts.entry(name).or_default() += 1;
        let hash = self.hash.value();
        if let Some(listener) = &mut self.listener {
            listener(&Event { at_ns, group, name, fields, detail: detail(), hash });
        }
    }

    /// The hash of every poll and event so far.
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// How many polls there were.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// How often each event happened.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_trace_counts_and_tells() {
        let mut trace = Trace::default();
        let told = Rc::new(RefCell::new(Vec::new()));
        let hear = told.clone();
        trace.listen(Box::new(move |event| hear.borrow_mut().push(event.to_string())));
        trace.event(1_500_000_000, "node-2", "elected", &[("term", 4)], String::new);
        trace.event(1_500_000_001, "node-2", "elected", &[("term", 5)], || "at last".into());
        assert_eq!(trace.counts().get("elected"), Some(&2));
        assert_eq!(
            *told.borrow(),
            [
                "    1.500000000 node-2   elected term=4",
                "    1.500000001 node-2   elected term=5 at last",
            ]
        );
    }

    #[test]
    fn every_part_of_a_step_changes_the_hash() {
        let hash = |step: &dyn Fn(&mut Trace)| {
            let mut trace = Trace::default();
            step(&mut trace);
            trace.hash()
        };
        let hashes = [
            hash(&|t| t.poll(1, 2)),
            hash(&|t| t.poll(2, 1)),
            hash(&|t| t.event(1, "a", "b", &[("n", 1)], String::new)),
            hash(&|t| t.event(2, "a", "b", &[("n", 1)], String::new)),
            hash(&|t| t.event(1, "c", "b", &[("n", 1)], String::new)),
            hash(&|t| t.event(1, "a", "c", &[("n", 1)], String::new)),
            hash(&|t| t.event(1, "a", "b", &[("n", 2)], String::new)),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b), "hash {i} collides");
        }
    }
}
