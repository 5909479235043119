//! `[ssh_proxy]`: SSH to the daemons in instances' containers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// The node in the role of Diego's SSH proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshProxyConfig {
    /// `HOST:PORT`.
    pub listen: String,
    /// Of the users `diego:GUID/INDEX`. Diego: `diego_credentials`.
    pub password: Secret,
    /// The proxy's own key, in PEM; one is made and kept in `data_dir` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<PathBuf>,
    /// Connections at once.
    #[serde(default = "connections")]
    pub connections_max: u32,
}

fn connections() -> u32 {
    u32::try_from(ssh::limits::CONNECTIONS_MAX).expect("it is small")
}

/// Each connection has another to a daemon, and may have some MiB on their way: what a machine for
/// containers can spare.
const CONNECTIONS_MOST: u32 = 10_000;

impl SshProxyConfig {
    /// Why it cannot be used.
    pub(super) fn check(&self, is_ssh_allowed: bool) -> Result<(), String> {
        let port = self.listen.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(format!("listen = {:?} is not HOST:PORT", self.listen));
        }
        if self.password.reveal().is_empty() {
            return Err("password is empty: anybody would be let in".to_owned());
        }
        if !(1..=CONNECTIONS_MOST).contains(&self.connections_max) {
            return Err(format!("connections_max is not from 1 to {CONNECTIONS_MOST}"));
        }
        if !is_ssh_allowed {
            return Err("is there, and [cell] says allow_ssh = false: one of both".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, is_ssh_allowed: bool) -> Result<(), String> {
        let config = toml::from_str::<SshProxyConfig>(text).map_err(|error| error.to_string())?;
        config.check(is_ssh_allowed)
    }

    #[test]
    fn an_ssh_proxy_is_told_where_and_whom() {
        assert_eq!(check("listen = \"0.0.0.0:2222\"\npassword = \"p\"", true), Ok(()));
        let listen = check("listen = \"2222\"\npassword = \"p\"", true).unwrap_err();
        assert_eq!(listen, "listen = \"2222\" is not HOST:PORT");
        let open = check("listen = \"h:22\"\npassword = \"\"", true).unwrap_err();
        assert_eq!(open, "password is empty: anybody would be let in");
        let none = check("listen = \"h:22\"\npassword = \"p\"\nconnections_max = 0", true);
        assert_eq!(none.unwrap_err(), "connections_max is not from 1 to 10000");
        let both = check("listen = \"h:22\"\npassword = \"p\"", false).unwrap_err();
        assert_eq!(both, "is there, and [cell] says allow_ssh = false: one of both");
    }
}
