//! Linux containers and images; knows nothing of the cluster.
//!
//! Reading order: [`image`] brings layers to this machine, [`container`] runs a process on them.

pub mod container;
pub mod image;
pub mod limits;
