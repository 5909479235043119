//! Locks of outsiders (bbs-wire.md section 8).

use std::sync::Arc;

use super::Change;
use crate::event::Event;
use crate::id::LockKey;
use crate::lock::{Lock, LockKind};
use crate::mutant;
use crate::refusal::Refusal;
use crate::time::Millis;
use crate::validate;

/// What somebody claims.
pub(super) struct Claim {
    pub(super) key: LockKey,
    pub(super) owner: String,
    pub(super) value: String,
    pub(super) kind: LockKind,
    pub(super) ttl: Millis,
}

impl Change<'_> {
    /// By its owner, it is held longer.
    pub(super) fn claim_lock(&mut self, claim: Claim) -> Result<(), Refusal> {
        let Claim { key, owner, value, kind, ttl } = claim;
        validate::lock(&key, &owner, &value, ttl)?;
        if key.is_reserved(self.state) {
            return Err(Refusal::LockHeld(key));
        }
        if !mutant!("lock-stolen") {
            self.check_owner(&key, &owner)?;
        }
        let expires_at = self.stamp.at + ttl;
        let lock = Lock { key: key.clone(), owner, value, kind, expires_at };
        self.state.put_lock(Arc::new(lock));
        self.events.push(Event::LockChanged(key));
        Ok(())
    }

    /// What nobody holds is released.
    pub(super) fn release_lock(&mut self, key: &LockKey, owner: &str) -> Result<(), Refusal> {
        self.check_owner(key, owner)?;
        self.remove_lock(key);
        Ok(())
    }

    pub(super) fn expire_lock(&mut self, key: &LockKey) -> Result<(), Refusal> {
        let Some(lock) = self.state.lock(key) else { return Ok(()) };
        if lock.expires_at > self.stamp.at && !mutant!("lock-expires-early") {
            return Err(Refusal::NotDue);
        }
        self.remove_lock(key);
        Ok(())
    }

    /// One whose time is up is nobody's, also while it has not been removed yet.
    fn check_owner(&self, key: &LockKey, owner: &str) -> Result<(), Refusal> {
        let now = self.stamp.at;
        match self.state.lock(key) {
            Some(lock) if lock.owner != owner && lock.expires_at > now => {
                Err(Refusal::LockHeld(key.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn remove_lock(&mut self, key: &LockKey) {
        if self.state.lock(key).is_some() {
            self.state.remove_lock(key);
            self.events.push(Event::LockChanged(key.clone()));
        }
    }
}
