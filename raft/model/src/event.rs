//! What has changed, as those who watch are told. Diego's event names (bbs-wire.md).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::actual_lrp::{ActualLrp, ActualLrpKey, InstanceKey};
use crate::cell::Cell;
use crate::desired_lrp::DesiredLrp;
use crate::task::Task;
use crate::time::Millis;

/// One change, in the order in which it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    DesiredLrpCreated(Arc<DesiredLrp>),
    DesiredLrpChanged {
        before: Arc<DesiredLrp>,
        after: Arc<DesiredLrp>,
    },
    DesiredLrpRemoved(Arc<DesiredLrp>),
    ActualLrpCreated(Arc<ActualLrp>),
    ActualLrpChanged {
        before: Arc<ActualLrp>,
        after: Arc<ActualLrp>,
    },
    /// Comes before the change of the row, also when it restarts at once.
    ActualLrpCrashed {
        key: ActualLrpKey,
        instance: InstanceKey,
        count: u32,
        reason: String,
        since: Millis,
    },
    ActualLrpRemoved(Arc<ActualLrp>),
    TaskCreated(Arc<Task>),
    TaskChanged {
        before: Arc<Task>,
        after: Arc<Task>,
    },
    TaskRemoved(Arc<Task>),
    /// A cell registered, went missing or returned. Not of Diego, which has no such event.
    CellChanged(Arc<Cell>),
    DomainChanged(crate::id::DomainName),
    LockChanged(crate::id::LockKey),
    FeatureFlagChanged {
        flag: crate::feature_flag::FeatureFlag,
        enabled: bool,
    },
    ClusterInitialised,
}
