//! Every bound of the router, by name.

use std::time::Duration;

/// Connections of clients at once, where the operator says nothing: one more waits in the kernel's
/// queue. nginx's `worker_connections` of Debian is 768 for each of its workers.
pub const CONNECTIONS_DEFAULT: usize = 4096;
/// Threads of a router, on however many cores: they share the node with containers.
pub const WORKERS_MAX: usize = 16;
/// Bytes of one request's header lines together; more is answered with 431. Go, and so Gorouter,
/// takes 1 MiB, which a thousand clients make into a gigabyte.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// How long the first request of a connection may take until its header is there.
pub const HEADER_MAX: Duration = Duration::from_secs(10);
/// How long a connection may lie idle until the next request's header is there. nginx:
/// `keepalive_timeout` 75 s, `client_header_timeout` 60 s.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// Between two pieces of a request's body, and how long a client may take none of an answer.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long an upgraded connection may be silent in either direction.
pub const UPGRADED_SILENCE_MAX: Duration = Duration::from_secs(3600);
/// How long an instance may take to accept a connection. Gorouter: `endpoint_dial_timeout` 5 s.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an instance may say nothing. Gorouter: `endpoint_timeout` 900 s.
pub const ANSWER_MAX: Duration = Duration::from_secs(900);
/// How long a connection to an instance is kept for the next request. Node.js closes its own after
/// 5 s, and a request that crosses that close is lost unless it may be repeated.
pub const KEPT_MAX: Duration = Duration::from_secs(4);
/// Connections to instances that are kept at once.
pub const KEPT_CONNECTIONS_MAX: usize = 1024;
/// Instances that one request is offered to. Gorouter: `max_attempts` 3.
pub const TRIES_MAX: usize = 3;
/// What is gathered of an answer before it is sent, in bytes: a header and a short body.
pub const WRITE_BUFFER_BYTES: usize = 4096;
/// Streams of one client's HTTP/2 connection at once. RFC 9113, 6.5.2: at least 100.
pub const H2_STREAMS_MAX: u32 = 128;
/// How long requests in progress may take when the node ends.
pub const END_MAX: Duration = Duration::from_secs(5);

/// Routes that were withdrawn and are said again to be, for routers that have missed it: as many
/// as a cell of 250 instances with 250 routes each has. One more is said once.
pub const WITHDRAWN_MAX: usize = 65_536;
