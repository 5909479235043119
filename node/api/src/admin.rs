//! The admin service: what an operator's program may ask of any node.
//!
//! Calls that change the cluster return once a majority has the change on disk. Reads are
//! linearizable unless they ask for [`Consistency::Stale`].

use std::net::Ipv4Addr;
use std::sync::Arc;

use model::{
    ActualLrp, Cell, CellId, DesiredLrp, DesiredLrpUpdate, Domain, DomainName, FeatureFlag,
    InstanceGuid, ProcessGuid, Task, TaskDefinition, TaskGuid,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every change acknowledged before the read began, by whichever node.
    #[default]
    Linearizable,
    /// What this node has applied; answered even when no leader can be reached.
    Stale,
}

/// A user of an image's registry. Shown to nobody: `Debug` hides the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUser {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for ImageUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageUser").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What an image says of itself, pinned by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMetadata {
    /// As a root file system's URL, with the tag that was asked for.
    pub rootfs: String,
    pub digest: model::Digest,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// As the image's `USER` has it; empty is root.
    pub user: String,
    /// Empty is `/`.
    pub working_dir: String,
    /// TCP ports, ascending.
    pub exposed_ports: Vec<u16>,
    /// It exposes UDP ports, and no TCP port.
    pub is_udp_only: bool,
    pub healthcheck: Option<ImageHealthcheck>,
    /// Of all layers, compressed, in bytes.
    pub size: u64,
}

/// An image that a task has told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedImage {
    pub metadata: ImageMetadata,
    pub task_guid: TaskGuid,
    /// Where the task ran, as far as the answering node has seen it.
    pub cell_id: Option<CellId>,
}

/// An image's own HEALTHCHECK: the container is healthy when this ends with status 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHealthcheck {
    /// A program of the image and its arguments; not empty.
    pub command: Vec<String>,
    /// Milliseconds that one check may take.
    pub timeout_ms: u64,
}

/// A cell with what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellStatus {
    pub cell: Arc<Cell>,
    pub memory_mb_used: u64,
    pub disk_mb_used: u64,
    pub lrps: u32,
    pub tasks: u32,
}

/// One member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node_id: u64,
    pub name: String,
    /// `HOST:PORT`, for Raft and the admin service.
    pub address: String,
    pub role: Role,
    /// The last entry that it has applied; unknown when it does not answer.
    pub applied_index: Option<u64>,
    /// What its turns found only by looking at everything, which is a mistake of ours; unknown
    /// when it does not answer.
    pub overlooked: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Leader,
    Voter,
    Learner,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// The node that waits at this `HOST:PORT` is let in, to follow and not to vote.
    Join(String),
    /// A member that does not run any more is taken off the record, for good.
    Leave(u64),
    /// A member votes from now on.
    Promote(u64),
    /// A member follows from now on, and does not vote.
    Demote(u64),
}

/// The cluster as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Of the node that answered.
    pub node_id: u64,
    pub term: u64,
    pub leader: Option<u64>,
    /// The last entry that this node has applied.
    pub applied_index: u64,
    /// The last entry in this node's log.
    pub last_log_index: u64,
    pub members: Vec<Member>,
    /// Of the node that answered.
    pub layers: LayerOrigins,
}

/// Where a cell's layers of images came from since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerOrigins {
    /// From a registry or a mirror.
    pub registries: u64,
    /// From another cell.
    pub cells: u64,
    /// To another cell.
    pub sent: u64,
}

/// What a node's router is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// An app's default route is its name under it.
    pub domain: String,
    /// Of the URLs that people are told.
    pub port: u16,
}

/// Which container's output is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSource {
    Lrp { process_guid: ProcessGuid, index: u32 },
    Task { task_guid: TaskGuid },
}

/// A place in one container's output. It is spoilt when the container is replaced: reading then
/// starts at the new one's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    pub container: String,
    pub position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch.
    pub at_ns: i64,
    pub is_stderr: bool,
    /// As of what it was written, for instance `APP/PROC/WEB`; empty for the container's own.
    pub source: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    pub lines: Vec<LogLine>,
    /// Where to read on.
    pub next: LogCursor,
}

/// Why something waits, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub reason: String,
    pub remedy: String,
}

/// What one container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the processor, just now, in thousandths of one core.
    pub cpu_millicores: u64,
    /// Processor time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Without the page cache that the kernel would give up first.
    pub memory_bytes: u64,
    /// What it has written; `None` where its cell does not count it.
    pub disk_bytes: Option<u64>,
    /// What it has made; `None` as for `disk_bytes`.
    pub inodes: Option<u64>,
    /// Tasks, the container's init included.
    pub pids: u64,
    /// Milliseconds since it was made; `None` once it has exited.
    pub age_ms: Option<u64>,
}

/// Why there are no figures of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown(pub String);

/// What one instance uses, where its cell has said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceUsage {
    pub instance_guid: InstanceGuid,
    pub usage: Result<Usage, Unknown>,
}

#[tarpc::service]
pub trait Admin {
    // Boxed where it is large: every call's future has room for the largest request.
    async fn desire_lrp(desired_lrp: Box<DesiredLrp>) -> Result<(), Error>;
    async fn update_desired_lrp(
        guid: ProcessGuid,
        update: Box<DesiredLrpUpdate>,
    ) -> Result<(), Error>;
    async fn remove_desired_lrp(guid: ProcessGuid) -> Result<(), Error>;
    async fn desired_lrps(consistency: Consistency) -> Result<Vec<Arc<DesiredLrp>>, Error>;
    async fn desired_lrp(
        guid: ProcessGuid,
        consistency: Consistency,
    ) -> Result<Arc<DesiredLrp>, Error>;
    /// All, or those of one process; by process, index and presence.
    async fn actual_lrps(
        of: Option<ProcessGuid>,
        consistency: Consistency,
    ) -> Result<Vec<Arc<ActualLrp>>, Error>;
    async fn retire_actual_lrp(guid: ProcessGuid, index: u32) -> Result<(), Error>;
    /// Why the unplaced instances of a process wait, by index, as the leader's last turn saw it.
    async fn waiting_lrps(guid: ProcessGuid) -> Result<Vec<(u32, Waiting)>, Error>;

    async fn desire_task(
        guid: TaskGuid,
        domain: DomainName,
        definition: Box<TaskDefinition>,
    ) -> Result<(), Error>;
    async fn tasks(consistency: Consistency) -> Result<Vec<Arc<Task>>, Error>;
    async fn task(guid: TaskGuid, consistency: Consistency) -> Result<Arc<Task>, Error>;
    async fn cancel_task(guid: TaskGuid) -> Result<(), Error>;
    async fn resolving_task(guid: TaskGuid) -> Result<(), Error>;
    async fn delete_task(guid: TaskGuid) -> Result<(), Error>;
    async fn waiting_task(guid: TaskGuid) -> Result<Option<Waiting>, Error>;

    async fn domains(consistency: Consistency) -> Result<Vec<Arc<Domain>>, Error>;
    async fn upsert_domain(domain: DomainName, ttl_secs: u64) -> Result<(), Error>;
    async fn feature_flags(consistency: Consistency) -> Result<Vec<(FeatureFlag, bool)>, Error>;
    async fn set_feature_flag(flag: FeatureFlag, enabled: bool) -> Result<(), Error>;
    async fn cells(consistency: Consistency) -> Result<Vec<CellStatus>, Error>;
    /// Gives a cell no more work, and moves what is there elsewhere; what is left after
    /// `timeout_ms` ends. Asked again, it moves that time.
    async fn evacuate_cell(cell_id: CellId, timeout_ms: u64) -> Result<(), Error>;
    /// Gives a cell work again, whether its evacuation is over or not.
    async fn open_cell(cell_id: CellId) -> Result<(), Error>;

    /// Has a cell fetch an image's metadata, of its platform, by a task, which is gone afterwards.
    /// `image` is a Docker name (`user/app:v2`) or a root file system's URL (`docker:///user/app#v2`).
    /// Without a user of the recipe's own, the cell asks as whom its operator says. Takes up to
    /// [`crate::limits::STAGING_MAX`], or as long as the call may.
    async fn stage_image(
        app: ProcessGuid,
        image: String,
        user: Option<ImageUser>,
    ) -> Result<StagedImage, Error>;
    /// What a container has said, from `from` on, or from the oldest line kept. With `follow` and
    /// nothing to tell, waits up to [`crate::limits::WAIT_MAX`].
    async fn logs(
        source: LogSource,
        from: Option<LogCursor>,
        follow: bool,
    ) -> Result<LogChunk, Error>;
    /// As [`Admin::logs`], answered only by the node that is the cell `on`.
    async fn cell_logs(
        on: CellId,
        container: String,
        position: u64,
        follow: bool,
    ) -> Result<LogChunk, Error>;
    /// Waits until this node has applied an entry after `index`, or for
    /// [`crate::limits::WAIT_MAX`]; returns the last index it has applied.
    async fn wait_applied(index: u64) -> Result<u64, Error>;
    async fn cluster_status() -> Result<ClusterStatus, Error>;
    async fn transfer_leadership(to: u64) -> Result<(), Error>;
    /// Returns the number of the member concerned once the change is agreed.
    async fn change_members(change: MemberChange) -> Result<u64, Error>;
    /// Where the answering cell's host ports are reached.
    async fn external_address() -> Result<Ipv4Addr, Error>;
    /// What the instances of a process use that have a container. Takes two readings, and so about
    /// a quarter of a second; a cell that does not answer in two seconds fails nothing, and its
    /// instances say why there are no figures.
    async fn lrp_usage(guid: ProcessGuid) -> Result<Vec<InstanceUsage>, Error>;
    /// As [`Admin::lrp_usage`] for containers, [`crate::limits::USAGE_CONTAINERS_MAX`] at most,
    /// answered only by the node that is the cell `on`; `None` where there is no such container.
    async fn cell_usage(on: CellId, containers: Vec<String>) -> Result<Vec<Option<Usage>>, Error>;
    /// Where the answering node routes HTTP; none where it is told to be no router.
    async fn routing() -> Result<Option<Routing>, Error>;
}
