//! What a container may use, and how the two cgroup versions say it.

use serde::{Deserialize, Serialize};

use super::log_rate::LogRate;
use crate::limits::PIDS_DIVISOR;

/// Resource limits of one container; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, swap included: what exceeds it is killed by the kernel.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the app at a time (the container's own init is not counted);
    /// without a limit a container can take a quarter of what the machine has numbers for.
    pub pids: Option<u32>,
    /// Share of the processors under contention; 1024 is one ordinary container.
    pub cpu_shares: Option<u32>,
    /// Bytes on disk.
    pub disk: Option<DiskLimit>,
    /// Files, directories and other inodes that it may make.
    /// Counted where the disk is; not for a container without a disk limit whose runtime gives a
    /// volume to those that have one, and at most one for each 4 KiB of such a volume.
    pub inodes: Option<u64>,
    /// What its processes say.
    #[serde(default)]
    pub log_rate: LogRate,
}

/// A limit on a container's disk; what exceeds it is refused to the process, which goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimit {
    /// The limit.
    pub bytes: u64,
    /// What counts.
    pub scope: DiskScope,
}

/// What counts against a [`DiskLimit`]; garden's `DiskLimitScope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskScope {
    /// The image's layers, and what the container writes.
    Total,
    /// What the container writes.
    Exclusive,
}

impl Limits {
    /// The kernel's bound on tasks: the app's, and the container's own init.
    /// `machine` is how many the machine has numbers for.
    pub(super) fn pids_max(&self, machine: u64) -> u64 {
        self.pids.map_or(machine / PIDS_DIVISOR, |pids| u64::from(pids) + 1)
    }

    /// Version 1's `cpu.shares`, within what the kernel takes (2 to 262144).
    pub(super) fn cpu_shares_v1(&self) -> Option<u32> {
        self.cpu_shares.map(|shares| shares.clamp(2, 262_144))
    }

    /// Version 2's `cpu.weight` (1 to 10000), by the linear map that OCI runtimes share:
    /// 2 shares are weight 1 and 262144 shares are weight 10000.
    pub(super) fn cpu_weight_v2(&self) -> Option<u64> {
        self.cpu_shares_v1().map(|shares| 1 + ((u64::from(shares) - 2) * 9_999) / 262_142)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        let weight =
            |shares| Limits { cpu_shares: Some(shares), ..Limits::default() }.cpu_weight_v2();
        assert_eq!(weight(0), Some(1));
        assert_eq!(weight(2), Some(1));
        assert_eq!(weight(1024), Some(39));
        assert_eq!(weight(262_144), Some(10_000));
        assert_eq!(weight(u32::MAX), Some(10_000));
        assert_eq!(Limits::default().cpu_weight_v2(), None);
    }

    #[test]
    fn init_is_not_the_apps_process() {
        let pids_max = |pids| Limits { pids, ..Limits::default() }.pids_max(32_768);
        assert_eq!(pids_max(Some(10)), 11);
        assert_eq!(pids_max(Some(u32::MAX)), 1 << 32);
        assert_eq!(pids_max(None), 8192, "three such leave the machine some");
    }
}
