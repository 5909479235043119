//! Opening a runtime: finding what a former process of the node left, at whatever moment it
//! died.
//!
//! A container whose record says "created" is adopted if its shim lives, and is reported with
//! its exit if not; whatever else is found was being made or unmade, and is taken away.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::sync::broadcast;

use super::cgroup::Cgroups;
use super::disk::Disk;
use super::error::{Context as _, Error, Result};
use super::link::{Connection, connect, exit_of, watch};
use super::network::{HostPort, Network};
use super::preflight;
use super::runtime::{
    Container, IDS_PER_CONTAINER, Inner, Runtime, RuntimeConfig, Table, blocking, lock,
};
use super::shim::protocol::{FromShim, Running, ToShim};
use super::shim::{pidfd, whole_file_lock};
use super::spec::ContainerState;
use super::state::{Files, Phase, Record};
use super::stop::teardown;
use crate::limits::{
    EVENTS_MAX, EXIT_WAIT_MAX, LOCK_WAIT_MAX, RECOVER_AT_ONCE_MAX, SHIM_REPLY_WAIT_MAX,
};

impl Runtime {
    /// Opens the runtime of `config.dir`, with all containers that a former process left.
    ///
    /// Makes gateway, tables and cgroups as they must be; needs root, and a kernel with nftables and
    /// overlayfs (Linux 5.9; id-mapped mounts, from 5.12 on, spare each container a copy of its
    /// image's inodes).
    pub async fn open(config: RuntimeConfig) -> Result<Self> {
        preflight::check()?;
        check_ids(&config)?;
        let containers_dir = config.dir.join("containers");
        fs::create_dir_all(&containers_dir)
            .context(|| format!("create {}", containers_dir.display()))?;
        let own = lock_dir(&config.dir).await?;
        let cgroups = Cgroups::open(&config.cgroup_parent)?;
        let disk = open_disk(&config).await?;
        let records = read_records(&containers_dir)?;
        let attached: Vec<_> = records
            .iter()
            .filter(|record| record.phase == Phase::Created)
            .map(Record::attachment)
            .collect();
        let policy = config.policy.clone();
        let network =
            Network::open(&config.bridge, config.subnet, config.slots(), policy, attached).await?;
        let inner = Inner {
            cgroups: Arc::new(cgroups),
            network,
            disk: Arc::new(disk),
            events: broadcast::Sender::new(EVENTS_MAX),
            table: Mutex::new(Table::default()),
            _lock: own,
            config,
        };
        // Futures first: a stream of closures would not be general enough over lifetimes.
        let recoveries: Vec<_> =
            records.into_iter().map(|record| Box::pin(inner.recover(record))).collect();
        stream::iter(recoveries).buffer_unordered(RECOVER_AT_ONCE_MAX).collect::<()>().await;
        inner.remove_strays()?;
        Ok(Self(Arc::new(inner)))
    }
}

fn check_ids(config: &RuntimeConfig) -> Result<()> {
    let invalid = |reason: String| Err(Error::Invalid { what: "id ranges".to_owned(), reason });
    let ids = u64::from(config.id_ranges) * u64::from(IDS_PER_CONTAINER);
    let end = u64::from(config.id_base) + ids;
    if config.id_base < IDS_PER_CONTAINER {
        return invalid(format!("{} is an id of the host's own users", config.id_base));
    }
    // The last id, all ones, means "no change" to the kernel.
    if config.id_ranges == 0 || end > u64::from(u32::MAX) {
        return invalid(format!("{} ranges from {} do not fit", config.id_ranges, config.id_base));
    }
    Ok(())
}

async fn open_disk(config: &RuntimeConfig) -> Result<Disk> {
    let (dir, wanted) = (config.dir.clone(), config.disk);
    // Not the first id of a range: those are the containers' own projects.
    let project = config.id_base + 1;
    blocking(move || Disk::open(&dir, wanted, project)).await
}

async fn lock_dir(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        let file = File::create(&path).context(|| format!("create {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {}
            Err((_, Errno::EWOULDBLOCK)) => return Err(Error::InUse(dir.to_owned())),
            Err((_, errno)) => return Err(errno).context(|| format!("lock {}", path.display())),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All whole records; a directory without one has had no side effect yet, or none any more, and
/// goes.
fn read_records(dir: &Path) -> Result<Vec<Record>> {
    let context = || format!("list {}", dir.display());
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).context(context)? {
        let files = Files { dir: entry.context(context)?.path() };
        match files.read_record()? {
            Some(record) if files.dir.ends_with(record.spec.id.as_str()) => records.push(record),
            _ => {
                let gone = fs::remove_dir_all(&files.dir);
                gone.context(|| format!("remove {}", files.dir.display()))?;
            }
        }
    }
    Ok(records)
}

impl Inner {
    async fn recover(&self, record: Record) {
        let id = record.spec.id.clone();
        let files = self.files(&id);
        let phase = record.phase;
        let ports = record.ports.iter().map(|port| HostPort::adopt(port.host)).collect();
        let container = Arc::new(Container::new(record, files, ports));
        // In the table whatever follows: while anything of it may be there, its name, address
        // and ids are nobody else's.
        lock(&self.table).containers.insert(id.clone(), Arc::clone(&container));
        let recovered = match phase {
            Phase::Created => self.adopt(&container).await,
            Phase::Creating | Phase::Destroying => self.finish_off(&container).await,
        };
        if let Err(error) = recovered {
            // One sick container keeps no node from starting; the next open tries again.
            tracing::error!(%id, %error, "recover a container");
        }
    }

    async fn finish_off(&self, container: &Container) -> Result<()> {
        // A shim that is half-way through would go on making what is taken away here.
        let files = container.files.clone();
        let _lock = blocking(move || kill_shim(&files)).await?;
        teardown(self, container).await?;
        lock(&self.table).containers.remove(&container.record.spec.id);
        Ok(())
    }

    async fn adopt(&self, container: &Arc<Container>) -> Result<()> {
        let id = &container.record.spec.id;
        let asked = tokio::time::timeout(SHIM_REPLY_WAIT_MAX, ask(&container.files));
        match asked.await {
            Ok(Some((connection, FromShim::Status { init_pid, first, processes }))) => {
                container.hold_namespace(init_pid);
                container.hold_init(init_pid);
                let running = |Running { pid, since_ms }| ContainerState::Running { pid, since_ms };
                container.state.send_replace(Some(first.map_or(ContainerState::Created, running)));
                container.processes.send_replace(processes);
                watch(self, container, connection, None);
            }
            // Dead, or not answering, or saying something else, which nobody could live with.
            Ok(Some(_) | None) | Err(_) => {
                let files = container.files.clone();
                let _lock = blocking(move || kill_shim(&files)).await?;
                let exit = exit_of(&container.files, &self.cgroups, id);
                container.state.send_replace(Some(ContainerState::Exited(exit)));
            }
        }
        Ok(())
    }

    /// Removes cgroups and writable layers that no record speaks of.
    fn remove_strays(&self) -> Result<()> {
        self.disk.remove_strays(|id| lock(&self.table).containers.contains_key(id))?;
        for id in self.cgroups.list()? {
            if !lock(&self.table).containers.contains_key(&id) {
                self.cgroups.remove(&id)?;
            }
        }
        Ok(())
    }
}

/// Connects to a shim and asks how its container is; `None` if nobody is there.
async fn ask(files: &Files) -> Option<(Connection, FromShim)> {
    let stream = connect(files).ok()?;
    stream.set_nonblocking(true).ok()?;
    let mut connection = Connection::new(UnixStream::from_std(stream).ok()?);
    connection.send(&ToShim::Status).await.ok()?;
    let status = connection.receive().await?;
    Some((connection, status))
}

/// Makes sure that no shim is, or comes to be, at work in a container's directory: kills the
/// one that is and takes its lock, which the caller keeps while it cleans up.
///
/// Blocks until the shim is gone.
pub(super) fn kill_shim(files: &Files) -> Result<Option<File>> {
    let path = files.lock();
    let context = || format!("lock {}", path.display());
    let file = match File::options().write(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(context),
    };
    let deadline = Instant::now() + EXIT_WAIT_MAX;
    let mut shim = None;
    loop {
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file_lock())) {
            Ok(_) => break,
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(e) => return Err(e).context(context),
        }
        let mut holder: libc::flock = whole_file_lock();
        fcntl(&file, FcntlArg::F_GETLK(&mut holder)).context(context)?;
        let unlocked = i32::from(holder.l_type) == libc::F_UNLCK;
        // It holds the lock until it is as good as dead, so the number is still its own.
        if !unlocked && holder.l_pid > 0 {
            let pid = Pid::from_raw(holder.l_pid);
            shim = pidfd(pid).ok().or(shim);
            match kill(pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(e).context(|| format!("kill shim {pid}")),
            }
        }
        if Instant::now() > deadline {
            return Err(Errno::EAGAIN).context(context);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // A process that ends gives its locks up first, and leaves its cgroups later.
    if let Some(shim) = shim {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(shim.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context(|| "wait for a killed shim".to_owned()),
        }
    }
    Ok(Some(file))
}
