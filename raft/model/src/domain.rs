//! A domain: fresh while its client keeps saying that it has told everything it wants.

use serde::{Deserialize, Serialize};

use crate::id::DomainName;
use crate::time::Millis;

/// Only a fresh domain allows convergence to destroy what nobody desires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    pub name: DomainName,
    /// `None` never expires (Diego: a TTL of 0).
    pub expires_at: Option<Millis>,
}
