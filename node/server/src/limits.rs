//! Every bound of the real world, by name.

use std::time::Duration;

/// Connections open at once, of clients and of other nodes together.
pub const CONNECTIONS_MAX: usize = 4096;
/// Calls in progress at once on one client's connection; the next waits.
pub const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// A connection that has not said what it is by then is closed.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node goes on with its certificates before it looks whether their files have changed.
pub const TLS_LOOK: Duration = Duration::from_secs(1);
/// Largest message between nodes, in bytes: an append's entries, or a snapshot's chunk.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Requests of other nodes in progress at once on one connection; the next waits.
pub const PEER_CALLS_MAX: usize = 256;
/// Requests waiting to be sent to one other node; one more is refused.
pub const PEER_QUEUE_MAX: usize = 1024;
/// A connection to another node that does not come about in this time is given up.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between a container's SIGTERM and its SIGKILL. Diego: `graceful_shutdown_interval`.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Between the two for what a recipe leaves behind when it has ended: it had its time.
pub const STOP_NOW: Duration = Duration::ZERO;
/// Between SIGTERM and SIGKILL where the node ends its containers with itself.
pub const EXIT_GRACE: Duration = Duration::from_secs(5);
/// Inodes that one container may make. Diego: `inode_limit`.
pub const INODES_MAX: u64 = 200_000;
/// What is kept of one container's output on disk, in bytes.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// How often a follower of output that has ended looks whether its container was replaced.
pub const LOG_POLL: Duration = Duration::from_millis(250);

/// Between the two readings that tell how much of the processor a container uses: long enough for
/// a rate, short enough for a person who waits.
pub const USAGE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a cell may take to say what its containers use; its figures are left out then.
pub const USAGE_WAIT: Duration = Duration::from_secs(2);
/// Cells that are asked at a time what one app's instances use.
pub const USAGE_CELLS_AT_ONCE_MAX: usize = 32;

/// Redirections that a callback follows. Go's HTTP client, and so Diego's, follows 10.
pub const CALLBACK_REDIRECTS_MAX: usize = 10;
/// Longest result file of a task, in bytes; a longer one fails the task. Diego: the same, 50 KiB.
pub const RESULT_BYTES_MAX: usize = 51_200;
/// What a staging task takes of its cell, in mebibytes: an image's manifest and config, at 4 MiB
/// each at most, twice over.
pub const STAGING_MEMORY_MB: i32 = 16;
/// It writes nothing; 0 would be unlimited.
pub const STAGING_DISK_MB: i32 = 1;
/// Images that one cell asks registries about at once; one more waits.
pub const STAGINGS_AT_ONCE_MAX: usize = 16;
/// How long a registry may take to tell of an image, its retries among it: it may ask to be left
/// alone for a minute.
pub const STAGING_FETCH_MAX: Duration = Duration::from_secs(100);
/// Tasks of one staging: it only reads, so one whose cell was lost, or that found none, is tried
/// again.
pub const STAGING_ATTEMPTS_MAX: u32 = 3;
/// Between two of them.
pub const STAGING_PAUSE: Duration = Duration::from_secs(1);
/// How long before a client's patience ends it is told why nothing is staged.
pub const STAGING_FAREWELL: Duration = Duration::from_millis(500);
/// Unpacked layers of images that a cell keeps, in mebibytes, where its operator says nothing.
pub const IMAGES_MB_MAX: u32 = 20 << 10;
/// What another cell says of the layer that it wants: a password, and some hundred bytes.
pub const LAYER_ASK_BYTES_MAX: u32 = 32 << 10;
/// Layers that other cells are being sent at a time; one more waits.
pub const LAYERS_SENT_AT_ONCE_MAX: usize = 64;
/// How long a cell that is sent a layer may take none of it.
pub const LAYER_SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// Between two looks at which cells are present.
pub const NEIGHBOURS_LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Longest password of a registry, in bytes: clouds hand out tokens of some KiB.
pub const IMAGE_PASSWORD_BYTES_MAX: usize = 16 << 10;
/// Keys of one file, the old ones that still open among them.
pub const SEAL_KEYS_MAX: usize = 64;
/// What is kept of a process's output where it is not for the log, in bytes: a monitor's words, an
/// error's. Diego cuts the reason of a failure to 10,000 bytes.
pub const CAPTURED_BYTES_MAX: usize = 16 << 10;
/// How long the output of a process that has ended may be held open by its children.
pub const CAPTURE_WAIT_MAX: Duration = Duration::from_millis(500);

/// Sessions in this node's containers at once: processes and forwarded connections.
pub const SESSIONS_MAX: usize = 512;
/// Sessions in one container at once. A browser opens tens of connections through one forwarded
/// port; the container remembers 1024 processes.
pub const SESSIONS_PER_CONTAINER_MAX: usize = 64;
/// Frames of one session that wait to be sent to its client, of 32 KiB at most each; wishes of a
/// client that wait to be fulfilled. Then whoever writes waits.
pub const SESSION_FRAMES_MAX: usize = 4;
/// Between the hang-up or SIGTERM of a process whose client has gone, and its SIGKILL.
pub const SESSION_GRACE: Duration = Duration::from_secs(5);
/// How long a killed process is waited for.
pub const SESSION_KILL_MAX: Duration = Duration::from_secs(5);
/// How long a node that ends waits for its sessions: a grace, a kill, and time to say so.
pub const SESSION_END_MAX: Duration = Duration::from_secs(12);
/// How long a client may take to hear why it is refused.
pub const SESSION_FAREWELL_MAX: Duration = Duration::from_secs(5);
/// Silence after which the output of a process that has ended is over, although a child of its
/// holds it open.
pub const SESSION_OUTPUT_LINGER: Duration = Duration::from_millis(200);
/// What is sent of output after a process has ended, in bytes: more than its pipes can hold, 64 KiB
/// each (pipe(7)), so that only a child of its that writes on is cut off.
pub const SESSION_OUTPUT_BYTES_AFTER_END_MAX: usize = 1 << 20;
/// Characters of a command that the logs tell.
pub const SESSION_COMMAND_CHARS_MAX: usize = 256;
/// A port in a container that does not answer in this time is given up.
pub const FORWARD_CONNECT_MAX: Duration = Duration::from_secs(10);

/// Addresses in one answer about a name of the cluster's: with a name of ordinary length they fit
/// the 512 bytes that every client takes.
pub const DNS_ANSWERS_MAX: usize = 20;
/// How long a container may remember an answer: as long as an instance that has ended is asked.
pub const DNS_TTL_SECONDS: u32 = 1;
/// Bytes of one question, longer than any that is one: a name has 255.
pub const DNS_MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of one datagram with our own answer, for clients that take more than 512. What passes
/// every link in one piece: RFC 9715, 3.1.
pub const DNS_DATAGRAM_BYTES_MAX: u16 = 1232;
/// Questions that other resolvers are asked at a time; one more is not heard.
pub const DNS_FORWARDS_MAX: usize = 512;
/// Of these, one container's: more than an honest one has, and it takes many to hold up others.
pub const DNS_FORWARDS_OF_CONTAINER_MAX: usize = 32;
/// Connections at a time; one more is closed.
pub const DNS_CONNECTIONS_MAX: usize = 256;
/// Of these, one container's.
pub const DNS_CONNECTIONS_OF_CONTAINER_MAX: usize = 8;
/// A connection on which nothing is said for this long is closed. RFC 7766, 6.2.3: some seconds.
pub const DNS_IDLE_MAX: Duration = Duration::from_secs(10);
/// How long one resolver may take before the next is asked; clients ask again after five seconds
/// (resolv.conf(5)).
pub const DNS_UPSTREAM_WAIT: Duration = Duration::from_secs(2);
/// Resolvers that are asked; resolv.conf(5) has three.
pub const DNS_UPSTREAMS_MAX: usize = 3;
/// How long the host's resolvers are remembered before they are looked up again.
pub const DNS_REREAD_PAUSE: Duration = Duration::from_secs(5);
/// Events that are followed in one step, before more are taken.
pub const DNS_EVENTS_AT_ONCE_MAX: usize = 1024;

/// Events that the router's table follows in one step, before requests look at it again.
pub const ROUTER_EVENTS_AT_ONCE_MAX: usize = 256;

/// Connections of Diego's clients at a time; one more waits in the kernel's queue.
pub const DIEGO_CONNECTIONS_MAX: usize = 4096;
/// Bytes of one request's body: a desired LRP of a mebibyte of mounted files, its routes and its
/// environment, several times over.
pub const DIEGO_REQUEST_BYTES_MAX: usize = 8 << 20;
/// How long a client may take for a request's head before its connection is closed.
pub const DIEGO_HEAD_MAX: Duration = Duration::from_secs(30);
/// Events that wait for one subscriber. One more, and its stream ends. Diego: the hub's
/// `MAX_PENDING_SUBSCRIBER_EVENTS`.
pub const SUBSCRIBER_EVENTS_MAX: usize = 1024;
/// Between two writes to one subscriber, for each subscriber that there is. A write takes some 20 us
/// to 40 us, of what many others were told too (benches/RESULTS.md), so that all of them together
/// take less than a tenth of one processor, however many they are, and more only where what is told
/// does not fit. One is told at once, a thousand twice a second.
pub const SUBSCRIBER_PACE: Duration = Duration::from_micros(500);
/// At most so long, however many there are.
pub const SUBSCRIBER_PACE_MAX: Duration = Duration::from_millis(500);
/// So many events wait for a subscriber that it is told before its turn, and that what comes next
/// waits for it.
pub const SUBSCRIBER_EVENTS_MANY: usize = SUBSCRIBER_EVENTS_MAX / 4;
/// Changes that are told to subscribers in one step; some are two events. One operation can have
/// many more, and what waits before it is added to that: together they are to fit.
pub const HUB_EVENTS_AT_ONCE_MAX: usize = SUBSCRIBER_EVENTS_MAX / 8;
/// How long a step waits at most for those for whom many events wait. Who reads fewer than 2,560 a
/// second while more happens is lost in the end.
pub const HUB_PATIENCE: Duration = Duration::from_millis(50);
/// How often it looks at them.
pub const HUB_LOOK: Duration = Duration::from_millis(2);
/// Log entries that have been applied and are not told yet, at which nobody is waited for any
/// more: a quarter of the events that are kept.
pub const HUB_ENTRIES_BEHIND_MAX: u64 = 4096;
/// Characters of a trace id; a UUID has 36.
pub const TRACE_ID_CHARS_MAX: usize = 64;
/// How often a cell's routes are registered anew until a router says otherwise, and how long they
/// may go unsaid: Gorouter's `start_response_delay_interval` is 5 s, its `droplet_stale_threshold`
/// 120 s.
pub const ROUTES_REGISTER_INTERVAL: Duration = Duration::from_secs(20);
/// What a router may ask for in its place.
pub const ROUTES_REGISTER_INTERVAL_MIN: Duration = Duration::from_secs(1);
pub const ROUTES_REGISTER_INTERVAL_MAX: Duration = Duration::from_secs(600);
/// Between two greetings while no router has answered. Diego: the same.
pub const ROUTES_GREETING_PAUSE: Duration = Duration::from_secs(1);
/// Greetings after which the pause is that of registrations. Diego gives up after as many.
pub const ROUTES_GREETINGS_MAX: u32 = 30;
/// Between two repetitions of what was withdrawn. Diego: `unregistration_interval`.
pub const ROUTES_WITHDRAWAL_PAUSE: Duration = Duration::from_secs(30);
/// How often it is repeated. Diego: `unregistration_send_count`.
pub const ROUTES_WITHDRAWALS_MAX: u32 = 20;
/// Messages that wait for NATS; then whoever tells waits.
pub const NATS_QUEUE_MAX: usize = 2048;
/// How long one may wait for its place; then the rest is left to the next registration.
pub const NATS_QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Messages of routers that wait to be read; the next is lost.
pub const NATS_HEARD_MAX: usize = 64;
/// Between two signs of life. Diego: the same.
pub const NATS_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long one server may take to be connected to.
pub const NATS_CONNECT_MAX: Duration = Duration::from_secs(5);
/// Between two tries: the first, which doubles, and the last. Diego: always the first.
pub const NATS_RECONNECT_PAUSE: Duration = Duration::from_millis(500);
pub const NATS_RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long a node that ends may take to say its last.
pub const NATS_FAREWELL_MAX: Duration = Duration::from_secs(2);
