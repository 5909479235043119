//! Every bound of the SSH proxy, by name.

use std::time::Duration;

/// Connections at once; one more is closed.
pub const CONNECTIONS_MAX: usize = 512;
/// Of these, those that nobody has logged in on. OpenSSH's `MaxStartups` refuses all beyond 100.
pub const STARTUPS_MAX: usize = 64;
/// How long a client may take to log in. OpenSSH: `LoginGraceTime` 120 s.
pub const LOGIN_MAX: Duration = Duration::from_secs(120);
/// Tries at a password on one connection. OpenSSH: `MaxAuthTries` 6.
pub const TRIES_MAX: usize = 6;
/// How long a refusal takes, so that passwords are not tried fast.
pub const REFUSAL: Duration = Duration::from_secs(1);
/// Silence of the client's connection, in both directions, after which it is closed. Diego:
/// `idle_connection_timeout_in_seconds`.
pub const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long the daemon may take to be connected to, and to let the proxy in.
pub const DAEMON_MAX: Duration = Duration::from_secs(15);
/// How long the daemon may take to answer one request.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Channels of one connection: shells, commands, forwarded connections. A browser opens tens.
pub const CHANNELS_MAX: usize = 128;
/// Connections of one visitor's to his daemon that are kept for the next channel.
pub const LINES_SPARE_MAX: usize = 4;
/// Answers of the daemon to a channel's requests that nobody has read yet; one is ever awaited.
pub const ANSWERS_MAX: usize = 4;
/// Messages of one channel that wait, of 32 KiB at most; then its whole connection waits.
pub const MESSAGES_MAX: usize = 100;
/// How long the end of a command may be said after the end of its output, to be told before it.
/// OpenSSH's daemon says both at once, and a command that goes on without output is rare.
pub const EXIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of one channel on their way to its client beyond which its daemon is not read from, unless the client
/// itself waits for the daemon: see `load`.
pub const QUEUED_BYTES_HIGH: usize = 8 << 20;
/// Bytes of one channel on their way to its client beyond which the connection is given up.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Bytes of one user name; process guids have 255 at most.
pub const LOGIN_BYTES_MAX: usize = 300;
/// How long a proxy that ends waits for its clients to hear so.
pub const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How long a client may take what its daemon has said before it hung up.
pub const LAST_WORDS_MAX: Duration = Duration::from_secs(30);
