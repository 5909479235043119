//! Where an instance's SSH daemon is, and who one is there: the text of `diego-ssh` in
//! `DesiredLRP.routes` (bbs-wire.md, "Routing data conventions").

use std::fmt;
use std::net::SocketAddrV4;

use model::{ActualLrp, ActualState, DesiredLrp, Presence};
use serde::Deserialize;

use crate::login::Login;

/// The router's name in `DesiredLRP.routes`.
pub const DIEGO_SSH: &str = "diego-ssh";

/// Who knows the instances.
pub trait Directory: Send + Sync + 'static {
    /// # Errors
    ///
    /// [`NotFound`]: nobody is let in there, and why.
    fn find(&self, login: &Login) -> Result<Target, NotFound>;
}

/// A daemon.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The cell's, at the host port.
    pub address: SocketAddrV4,
    /// Empty where any daemon will do.
    pub host_fingerprint: String,
    pub user: String,
    /// Empty where there is none; so is the key, in PEM.
    pub password: String,
    pub private_key: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why there is no way in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("there is no such app")]
    NoApp,
    #[error("there is no instance of this index that runs")]
    NoInstance,
    #[error("the app has no diego-ssh route")]
    NoRoute,
    #[error("the app's diego-ssh route cannot be read: {0}")]
    BadRoute(String),
    #[error("the instance has no port {0}, which its diego-ssh route names")]
    NoPort(u16),
}

/// The route as it is written.
#[derive(Deserialize)]
struct SshRoute {
    container_port: u16,
    #[serde(default)]
    host_fingerprint: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    private_key: String,
}

impl Target {
    /// Of an app and its instances of one index. Of several that run, the one that is to stay:
    /// Diego lets nobody in then.
    ///
    /// # Errors
    ///
    /// [`NotFound`].
    pub fn of<'a>(
        desired: Option<&DesiredLrp>,
        rows: impl Iterator<Item = &'a ActualLrp>,
    ) -> Result<Self, NotFound> {
        let desired = desired.ok_or(NotFound::NoApp)?;
        let text = desired.routes.get(DIEGO_SSH).ok_or(NotFound::NoRoute)?;
        let route: SshRoute =
            serde_json::from_str(text).map_err(|error| NotFound::BadRoute(error.to_string()))?;
        let running = rows.filter(|row| row.is_running());
        let row = running.min_by_key(|row| match row.presence {
            Presence::Ordinary => 0,
            Presence::Evacuating => 1,
            Presence::Suspect => 2,
        });
        let Some(ActualState::Running { net_info, .. }) = row.map(|row| &row.state) else {
            return Err(NotFound::NoInstance);
        };
        let port = net_info.ports.iter().find(|port| port.container_port == route.container_port);
        let port = port.ok_or(NotFound::NoPort(route.container_port))?;
        Ok(Self {
            address: SocketAddrV4::new(net_info.address, port.host_port),
            host_fingerprint: route.host_fingerprint,
            user: route.user,
            password: route.password,
            private_key: route.private_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn row(presence: &str, host_port: u16) -> ActualLrp {
        serde_json::from_value(json!({
            "key": {"process_guid": "a", "index": 0, "domain": "d"}, "presence": presence,
            "state": {"Running": {
                "instance": {"instance_guid": "ig", "cell_id": "c1"},
                "net_info": {
                    "address": "10.0.0.1", "instance_address": "10.88.0.7",
                    "ports": [
                        {"container_port": 8080, "host_port": 1},
                        {"container_port": 2222, "host_port": host_port},
                    ],
                },
            }},
            "crash_count": 0, "crash_reason": "", "since": 1, "memory_mb": 1, "disk_mb": 1,
            "modification_tag": {"epoch": "e", "index": 1}, "routable": true,
            "availability_zone": "z",
        }))
        .unwrap()
    }

    fn check(route: Option<&str>, rows: &[ActualLrp], expected: Expect) {
        let routes = route.map(|text| (DIEGO_SSH.to_owned(), text.to_owned()));
        let desired = DesiredLrp { routes: routes.into_iter().collect(), ..DesiredLrp::default() };
        let text = match Target::of(Some(&desired), rows.iter()) {
            Ok(Target { address, host_fingerprint, user, password, private_key }) => {
                format!("{address} {host_fingerprint:?} {user:?} {password:?} {private_key:?}")
            }
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_target_is_what_the_route_says_of_the_instance() {
        let all = r#"{"container_port":2222,"host_fingerprint":"f","user":"vcap","password":"p",
                      "private_key":"k"}"#;
        check(
            Some(all),
            &[row("ORDINARY", 61_001)],
            expect![[r#"10.0.0.1:61001 "f" "vcap" "p" "k""#]],
        );
        let least = r#"{"container_port":2222}"#;
        check(Some(least), &[row("ORDINARY", 61_001)], expect![[r#"10.0.0.1:61001 "" "" "" """#]]);
        let both = [row("EVACUATING", 61_001), row("ORDINARY", 61_002), row("SUSPECT", 61_003)];
        check(Some(least), &both, expect![[r#"10.0.0.1:61002 "" "" "" """#]]);
    }

    #[test]
    fn who_cannot_be_let_in_hears_why() {
        let rows = [row("ORDINARY", 61_001)];
        assert_eq!(Target::of(None, rows.iter()), Err(NotFound::NoApp));
        check(None, &rows, expect!["the app has no diego-ssh route"]);
        check(
            Some("{}"),
            &rows,
            expect![
                "the app's diego-ssh route cannot be read: missing field `container_port` at line 1 column 2"
            ],
        );
        check(
            Some(r#"{"container_port":22}"#),
            &rows,
            expect!["the instance has no port 22, which its diego-ssh route names"],
        );
        check(
            Some(r#"{"container_port":2222}"#),
            &[],
            expect!["there is no instance of this index that runs"],
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let route = r#"{"container_port":2222,"user":"u","password":"hunter2","private_key":"k"}"#;
        let routes = [(DIEGO_SSH.to_owned(), route.to_owned())].into();
        let desired = DesiredLrp { routes, ..DesiredLrp::default() };
        let target = Target::of(Some(&desired), [row("ORDINARY", 1)].iter()).unwrap();
        assert_eq!(format!("{target:?}"), "Target { address: 10.0.0.1:1, .. }");
    }
}
