//! What is true: the nouns of Tasks and LRPs, the commands that change them, and the one door
//! through which every change goes.
//!
//! Reading order: [`id`] and [`time`], the nouns ([`desired_lrp`], [`actual_lrp`], [`task`],
//! [`cell`], [`domain`], [`lock`], [`feature_flag`]), then [`due`], [`command`], [`apply`], [`state`],
//! [`invariants`] and [`codec`].
//!
//! Deliberately absent: clocks, randomness, files, sockets, threads, hash maps, floats, logging,
//! and any notion of who leads.

pub mod action;
pub mod actual_lrp;
pub mod apply;
pub mod cell;
pub mod check;
pub mod codec;
pub mod command;
pub mod dependency;
pub mod desired_lrp;
pub mod domain;
pub mod due;
pub mod egress;
pub mod event;
pub mod feature_flag;
pub mod id;
pub mod image;
pub mod invariants;
pub mod limits;
pub mod lock;
pub mod metric_tag;
pub mod mutant;
pub mod refusal;
pub mod restart;
pub mod state;
pub mod task;
pub mod time;
pub mod validate;
pub mod volume;

pub use action::{Action, EnvironmentVariable, RunAction};
pub use actual_lrp::{
    ActualLrp, ActualLrpKey, ActualState, InstanceKey, NetInfo, PortMapping, Presence,
};
pub use apply::{Applied, apply, apply_proposal};
pub use cell::{Capacity, Cell, CellHealth, Intake, RootfsProvider};
pub use command::{Command, Outcome, Proposal, Stamp};
pub use desired_lrp::{DesiredLrp, DesiredLrpUpdate, ModificationTag};
pub use domain::Domain;
pub use due::Due;
pub use event::Event;
pub use feature_flag::FeatureFlag;
pub use id::{ActualLrpId, CellId, DomainName, InstanceGuid, LockKey, ProcessGuid, TaskGuid};
pub use image::Digest;
pub use lock::Lock;
pub use refusal::Refusal;
pub use state::{CellLoad, RowKey, State};
pub use task::{Task, TaskDefinition, TaskState};
pub use time::Millis;
