//! Health checks that the cell makes itself, without a process in the container.

use serde::{Deserialize, Serialize};

/// Diego: `models.CheckDefinition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckDefinition {
    /// The instance runs once all have passed, and crashes when one fails.
    pub checks: Vec<Check>,
    pub log_source: String,
    /// The instance is routable while all pass.
    pub readiness_checks: Vec<Check>,
}

/// One of the two kinds; which of them is set is validated. Diego: `models.Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    pub tcp_check: Option<TcpCheck>,
    pub http_check: Option<HttpCheck>,
}

/// Passes when the port accepts a connection. Diego: `models.TCPCheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpCheck {
    /// A port of the container.
    pub port: u32,
    /// Milliseconds; 0 is the default.
    pub connect_timeout_ms: u64,
    /// Milliseconds between two checks; 0 is the default.
    pub interval_ms: u64,
}

/// Passes when a GET is answered with 200. Diego: `models.HTTPCheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpCheck {
    /// A port of the container.
    pub port: u32,
    /// Milliseconds; 0 is the default.
    pub request_timeout_ms: u64,
    pub path: String,
    /// Milliseconds between two checks; 0 is the default.
    pub interval_ms: u64,
}
