//! What there is for all containers, so that none takes it from the others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

/// Places, of which each container has some at most.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    taken: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
    all_max: usize,
    each_max: usize,
}

impl Shares {
    pub(super) fn new(all_max: usize, each_max: usize) -> Self {
        Self { taken: Arc::default(), all_max, each_max }
    }

    pub(super) fn take(&self, client: Ipv4Addr) -> Option<Share> {
        let mut taken = self.taken.lock().expect("no holder of the lock panics");
        let all: usize = taken.values().sum();
        let own = taken.get(&client).copied().unwrap_or_default();
        if all >= self.all_max || own >= self.each_max {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Share { taken: Arc::clone(&self.taken), client })
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    taken: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
    client: Ipv4Addr,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().expect("no holder of the lock panics");
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let shares = Shares::new(3, 2);
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let first = shares.take(one).unwrap();
        let second = shares.take(one).unwrap();
        assert!(shares.take(one).is_none());
        let third = shares.take(two).unwrap();
        assert!(shares.take(two).is_none(), "there are three");
        drop(first);
        assert!(shares.take(two).is_some());
        drop((second, third));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
