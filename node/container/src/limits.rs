//! Every bound of this crate, with the reason for its figure.

use std::time::Duration;

// --- containers -------------------------------------------------------------------------

/// Layers of one root file system.
/// Docker's images stop at 127; overlayfs takes 500.
pub const LAYERS_MAX: usize = 127;

/// Bytes of a container id: Diego's handles are `<process guid>-<instance guid>` cut to 63.
pub const CONTAINER_ID_BYTES_MAX: usize = 128;

/// Ports one container may publish.
pub const CONTAINER_PORTS_MAX: usize = 64;

/// Mounts of one container: volumes, cached dependencies, mounted files.
pub const MOUNTS_MAX: usize = 64;

/// Egress rules of one container, as the kernel has them: each destination with each port.
/// Cloud Foundry's foundations have some hundreds; the kernel takes 5,000 in 0.1 s.
pub const EGRESS_RULES_MAX: usize = 5_000;

/// Connections of one container that are told in the kernel's log each second, by egress rules
/// that ask for it: a container that opens more at once fills no disk.
pub const EGRESS_LOGS_PER_SECOND_MAX: u32 = 50;
/// As many as may come at once before [`EGRESS_LOGS_PER_SECOND_MAX`] counts.
pub const EGRESS_LOGS_AT_ONCE_MAX: u32 = 100;

/// How long to wait before looking again whether a deleted link is gone; measured: 1 to 7 ms.
pub const LINK_GONE_PAUSE: Duration = Duration::from_millis(1);

/// How long the network's tables, which somebody deleted, wait after a failure to be made anew.
pub const TABLES_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// State changes kept for a slow subscriber before it is told that it lagged.
pub const EVENTS_MAX: usize = 1024;

/// Words waiting for one shim: signals, notes of processes, lines for the log.
pub const SHIM_REQUESTS_MAX: usize = 16;

/// Connections to one shim at a time: of the owner, of a successor that overlaps it, and one for
/// each process that is being started; what is more waits.
pub const SHIM_CLIENTS_MAX: usize = 16;

/// Processes of one container that its shim remembers. A recipe has tens; a monitor's runs are
/// forgotten as soon as they are over.
pub const PROCESSES_MAX: usize = 1024;

/// Bytes of a process's name within its container: a place in a recipe of 64 levels.
pub const PROCESS_NAME_BYTES_MAX: usize = 256;

/// Bytes of one message between node, shim and init.
/// Linux caps a process's arguments and environment at 2 MiB by default; the larger part of
/// an honest environment is a few KiB, so 512 KiB is refused before the kernel would.
pub const SHIM_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// How long a shim may take to set a container up, or to start a process in it.
/// Measured: 10 ms; the rest is for a machine that swaps.
pub const SHIM_REPLY_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a killed container may take to be gone before its shim is killed as well.
pub const EXIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Tries to remove a cgroup whose last task is still being reaped, and the pause between two.
pub const CGROUP_REMOVE_TRIES_MAX: u32 = 400;
/// See [`CGROUP_REMOVE_TRIES_MAX`].
pub const CGROUP_REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// How long a runtime waits for its directory: what a killed node was just starting holds the
/// lock until it is executed.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// What part of the machine's process numbers a container without a limit can take: one that
/// takes all of its part leaves its neighbours, and the node, theirs.
pub const PIDS_DIVISOR: u64 = 4;

/// Tries to get a loop device that another program does not get first.
pub const LOOP_TRIES_MAX: u32 = 64;

/// Sizes of volumes whose templates are kept; each takes some hundred KiB.
/// A cell has as many as there are pairs of an image's size and a limit among its containers.
pub const VOLUME_TEMPLATES_MAX: usize = 64;

/// Bytes of one log line; a longer one is split.
/// Diego's streamer: `MAX_MESSAGE_SIZE`, 61440.
pub const LOG_LINE_BYTES_MAX: usize = 61_440;

/// Files that one container's log is spread over; the oldest is dropped as a whole.
pub const LOG_SEGMENTS_MAX: u64 = 4;

/// Bytes read from a log at a time.
pub const LOG_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Bytes read of the image's `/etc/passwd` or `/etc/group`.
pub const USER_DATABASE_BYTES_MAX: u64 = 1024 * 1024;

/// Groups of one process: the kernel's NGROUPS_MAX is 65536; nobody needs so many.
pub const GROUPS_MAX: usize = 1024;

/// Containers torn down or adopted at the same time when a runtime opens.
pub const RECOVER_AT_ONCE_MAX: usize = 8;

// --- images: what a registry may make this machine read, keep and wait for ---------------

/// A manifest or an index. The distribution specification asks registries to take at least
/// 4 MiB; real manifests stay below 100 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// An image's config. Histories of long Dockerfiles reach tens of KiB.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// What is read of an answer that tells of an error.
pub const ERROR_BODY_BYTES_MAX: u64 = 16 << 10;
/// Layers of one image. Docker stops at 127; overlayfs takes 500 lower directories.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Entries of a file with an image. Docker's older ones have four a layer; this is for twenty
/// images of the most layers.
pub const IMPORT_ENTRIES_MAX: usize = 10_000;
/// Links in such a file from a layer's name to its bytes. Docker makes one.
pub const IMPORT_LINKS_MAX: usize = 8;
/// Bytes of a layer that a file's reader hands on at a time.
pub const IMPORT_CHUNK_BYTES: usize = 128 << 10;
/// Volumes of one image; real ones have one or two.
pub const IMAGE_VOLUMES_MAX: usize = 128;
/// Exposed ports of one image: as many as there are.
pub const IMAGE_PORTS_MAX: usize = 65_536;
/// Unpacked bytes of one layer, counted as the tar declares them: the stop for a
/// decompression bomb. The largest public layers (machine learning) unpack to about 10 GiB.
pub const LAYER_UNPACKED_BYTES_MAX: u64 = 32 << 30;
/// Entries of one layer: the stop for a bomb of empty files, which take inodes, not bytes.
pub const LAYER_ENTRIES_MAX: u64 = 1_000_000;
/// Names of one layer's directories together: they are remembered until the end, when modes and
/// times are set.
pub const LAYER_DIRECTORY_NAMES_BYTES_MAX: usize = 64 << 20;
/// Directories between a layer's root and an entry, after symlinks are resolved. Keeps whatever
/// walks the tree later (removal holds one descriptor a level) within its means.
pub const LAYER_DEPTH_MAX: usize = 256;
/// A path or a link's target: the kernel's PATH_MAX.
pub const LAYER_PATH_BYTES_MAX: usize = 4096;
/// One extension record of a tar (PAX or GNU long name). PAX carries xattrs, 64 KiB at most each
/// on Linux (XATTR_SIZE_MAX).
pub const LAYER_EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Pieces of one sparse file.
pub const LAYER_SPARSE_PIECES_MAX: usize = 65_536;
/// Symlinks followed to make one missing parent directory: the kernel's own bound.
pub const LAYER_SYMLINKS_MAX: usize = 40;
/// Layers that one store downloads and unpacks at a time: Docker's default.
pub const LAYERS_AT_ONCE_MAX: usize = 3;
/// Pieces of body waiting between the network and the unpacking thread of one layer. A piece is
/// what the HTTP library read at once, a few hundred KiB at most.
pub const LAYER_CHUNKS_WAITING_MAX: usize = 16;
/// Entries of an image index that are looked at.
pub const INDEX_ENTRIES_MAX: usize = 1024;

/// To a TCP connection with TLS agreed.
pub const REGISTRY_CONNECT_MAX: Duration = Duration::from_secs(10);
/// Silence while a body is awaited.
pub const REGISTRY_STALL_MAX: Duration = Duration::from_secs(30);
/// A whole small exchange: a ping, a token, a manifest, a config.
pub const REGISTRY_EXCHANGE_MAX: Duration = Duration::from_secs(60);
/// A whole layer, with its retries: the stop for a registry that drips.
pub const LAYER_FETCH_MAX: Duration = Duration::from_secs(3600);
/// Tries of one request, and of one layer without progress between them: Diego's cells use 3.
pub const REGISTRY_TRIES_MAX: u32 = 3;
/// A layer that got this much further after a cut is not counted as a failed try.
pub const LAYER_PROGRESS_BYTES_MIN: u64 = 1 << 20;
/// The pause before the second try; doubled for each further one.
pub const REGISTRY_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// How old a container is when its shim leaves the node's group of version 2: if a service manager
/// ends the node's group before that, it ends the container.
pub const SHIM_MOVE_AFTER: Duration = Duration::from_millis(200);
/// The longest pause that we choose.
pub const REGISTRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause that a registry may ask for with Retry-After; past it the pull fails with
/// the time named, for whoever asked to decide.
pub const REGISTRY_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Layers that one store brings home for others at a time, besides its own.
pub const PACKS_AT_ONCE_MAX: usize = 6;
/// What is read of a shared layer at a time.
pub const LAYER_SHARED_CHUNK_BYTES: u64 = 256 << 10;
/// What a store keeps of layers as the registry has them, for other stores, where nothing else is
/// said: some tens of images.
pub const LAYERS_SHARED_BYTES_MAX: u64 = 4 << 30;
/// Silence of another store after which the registry is asked instead. It may be waiting for the
/// registry itself.
pub const NEIGHBOUR_STALL_MAX: Duration = Duration::from_secs(15);
/// What another store may take for any layer, and bytes a second that it must send besides: a slow
/// one costs no more than this.
pub const NEIGHBOUR_PATIENCE_MAX: Duration = Duration::from_secs(30);
/// See [`NEIGHBOUR_PATIENCE_MAX`].
pub const NEIGHBOUR_RATE_MIN: u64 = 1 << 20;

/// The operator's file of credentials; Docker's hold some KiB.
pub const CREDENTIALS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Users that are known to have been given one document, and registries to have sent one layer: an
/// image's users by far, and what is forgotten is asked for again.
pub const PROOFS_MAX: usize = 256;

/// Connections to a registry that we serve, at a time.
pub const SERVE_CONNECTIONS_MAX: usize = 64;
/// Until a request's headers are there; an idle connection is closed after it.
pub const SERVE_HEADER_MAX: Duration = Duration::from_secs(60);
