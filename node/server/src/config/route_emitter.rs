//! `[route_emitter]`: Gorouters that are told of this cell's instances.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// The node in the role of Diego's route-emitter, for its own cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEmitterConfig {
    /// `HOST:PORT` of NATS servers; one of them is spoken to at a time.
    pub nats: Vec<String>,
    /// With a password, or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The authorities, in PEM, that vouch for the servers: with them it is TLS or nothing. Read
    /// anew with each connection, as the two that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// With a key, or neither: whom this node is to the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Whether service discovery is told of internal routes. Diego: `internal_routes.enabled`.
    #[serde(default)]
    pub internal_routes: bool,
    /// Whether routers reach containers at their own addresses and ports. Diego:
    /// `register_direct_instance_routes`.
    #[serde(default)]
    pub direct_instance_routes: bool,
}

impl RouteEmitterConfig {
    /// Why it cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.nats.is_empty() {
            return Err("nats names no server".to_owned());
        }
        for address in &self.nats {
            let is_fine = address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains(['/', '@', ' '])
                    && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            if !is_fine {
                return Err(format!("nats: {address:?} is not HOST:PORT"));
            }
        }
        if self.user.is_some() != self.password.is_some() {
            return Err("user and password go together".to_owned());
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("cert and key go together".to_owned());
        }
        if self.cert.is_some() && self.ca.is_none() {
            return Err("cert and key need ca: they are for TLS".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<RouteEmitterConfig>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn a_route_emitter_is_told_whom_to_tell() {
        assert_eq!(check("nats = [\"10.0.0.5:4222\", \"nats.lan:4222\"]"), Ok(()));
        let all = "nats = [\"[::1]:4222\"]\nuser = \"u\"\npassword = \"p\"\nca = \"c\"\n\
                   cert = \"c\"\nkey = \"k\"\ninternal_routes = true\ndirect_instance_routes = true";
        assert_eq!(check(all), Ok(()));
        assert_eq!(check("nats = []").unwrap_err(), "nats names no server");
        for address in ["nats://h:1", "h", ":4222", "h:0", "u@h:1"] {
            let error = check(&format!("nats = [{address:?}]")).unwrap_err();
            assert_eq!(error, format!("nats: {address:?} is not HOST:PORT"));
        }
        let with = |rest: &str| check(&format!("nats = [\"h:1\"]\n{rest}")).unwrap_err();
        assert_eq!(with("user = \"u\""), "user and password go together");
        assert_eq!(with("ca = \"c\"\nkey = \"k\""), "cert and key go together");
        assert_eq!(with("cert = \"c\"\nkey = \"k\""), "cert and key need ca: they are for TLS");
    }
}
