//! What this machine can give to containers, where the operator does not say.

use std::path::Path;

use model::Capacity;

use crate::config::CellConfig;

/// The share of memory that is left to the node and the system: a fifth.
const MEMORY_KEPT_DIVISOR: u64 = 5;
/// The share of free disk that is left alone: a tenth.
const DISK_KEPT_DIVISOR: u64 = 10;

/// # Errors
///
/// The kernel does not say how much memory or disk there is.
pub(crate) fn of_machine(config: &CellConfig, data_dir: &Path) -> std::io::Result<Capacity> {
    let memory_mb = match config.memory_mb {
        Some(memory_mb) => memory_mb,
        None => {
            let total = memory_mb_of(&std::fs::read_to_string("/proc/meminfo")?)
                .ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemTotal"))?;
            saturate(total - total / MEMORY_KEPT_DIVISOR)
        }
    };
    let disk_mb = match config.disk_mb {
        Some(disk_mb) => disk_mb,
        None => {
            let stat = nix::sys::statvfs::statvfs(data_dir)?;
            let free = stat.blocks_available() * stat.fragment_size() / (1 << 20);
            saturate(free - free / DISK_KEPT_DIVISOR)
        }
    };
    Ok(Capacity { memory_mb, disk_mb, containers: config.containers })
}

/// `MemTotal` of `/proc/meminfo` (proc_meminfo(5), in KiB), as mebibytes.
fn memory_mb_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

fn saturate(mebibytes: u64) -> u32 {
    u32::try_from(mebibytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_mebibytes() {
        assert_eq!(memory_mb_of("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_000));
        assert_eq!(memory_mb_of("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn what_the_operator_says_counts() {
        let config = CellConfig {
            memory_mb: Some(7),
            disk_mb: Some(8),
            containers: 9,
            ..CellConfig::default()
        };
        let capacity = of_machine(&config, Path::new("/")).unwrap();
        assert_eq!(capacity, Capacity { memory_mb: 7, disk_mb: 8, containers: 9 });
    }
}
