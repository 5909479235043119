//! The environment of a container's processes (executor.md section 9).

use std::net::Ipv4Addr;

use container::container::PortMapping;
use model::EnvironmentVariable;
use serde::Serialize;

/// Names and values; a later one of a name overrides.
pub(crate) type Variables = Vec<(String, String)>;

/// What an image says in its `NAME=value` form. What has no `=`, or no name, says
/// nothing: no process could be started with it.
pub(crate) fn of_image(env: &[String]) -> Variables {
    let pairs = env.iter().filter_map(|variable| variable.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a client has said.
pub(crate) fn of_client(env: &[EnvironmentVariable]) -> Variables {
    env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect()
}

/// What an LRP's instance is, by which its environment begins.
pub(crate) fn of_instance(guid: &str, index: u32) -> Variables {
    let index = index.to_string();
    owned([
        ("INSTANCE_GUID", guid),
        ("INSTANCE_INDEX", &index),
        ("CF_INSTANCE_GUID", guid),
        ("CF_INSTANCE_INDEX", &index),
    ])
}

/// Where the instance's own certificate and key lie, where it has them.
pub(crate) fn of_identity() -> Variables {
    owned([
        ("CF_INSTANCE_CERT", "/etc/cf-instance-credentials/instance.crt"),
        ("CF_INSTANCE_KEY", "/etc/cf-instance-credentials/instance.key"),
    ])
}

/// The addresses of a container, and the ports of its cell that lead to it.
pub(crate) fn of_network(
    external: Ipv4Addr,
    internal: Ipv4Addr,
    ports: &[PortMapping],
) -> Variables {
    #[derive(Serialize)]
    struct Port {
        #[serde(skip_serializing_if = "Option::is_none")]
        external: Option<u16>,
        internal: u16,
    }
    let host = |port: &PortMapping| Some(port.host).filter(|host| *host != 0);
    let json: Vec<Port> =
        ports.iter().map(|port| Port { external: host(port), internal: port.container }).collect();
    let json = serde_json::to_string(&json).expect("ports are plain data");
    let mut variables = owned([
        ("CF_INSTANCE_IP", &external.to_string()),
        ("CF_INSTANCE_INTERNAL_IP", &internal.to_string()),
    ]);
    match ports.first().map(host) {
        None => variables.extend(owned([("CF_INSTANCE_PORT", ""), ("CF_INSTANCE_ADDR", "")])),
        Some(None) => {}
        Some(Some(port)) => variables.extend(owned([
            ("CF_INSTANCE_PORT", &port.to_string()),
            ("CF_INSTANCE_ADDR", &format!("{external}:{port}")),
        ])),
    }
    variables.extend(owned([("CF_INSTANCE_PORTS", &json)]));
    variables
}

fn owned<const N: usize>(variables: [(&str, &str); N]) -> Variables {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(variables: &Variables) -> String {
        variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn network(ports: &[(u16, u16)]) -> String {
        let ports: Vec<_> =
            ports.iter().map(|&(container, host)| PortMapping { container, host }).collect();
        shown(&of_network([10, 0, 0, 1].into(), [10, 255, 0, 2].into(), &ports))
    }

    #[test]
    fn a_containers_network_is_told_in_variables() {
        expect_test::expect![[r#"
            CF_INSTANCE_IP=10.0.0.1
            CF_INSTANCE_INTERNAL_IP=10.255.0.2
            CF_INSTANCE_PORT=61001
            CF_INSTANCE_ADDR=10.0.0.1:61001
            CF_INSTANCE_PORTS=[{"external":61001,"internal":8080},{"external":61002,"internal":2222}]
        "#]]
        .assert_eq(&network(&[(8080, 61001), (2222, 61002)]));
        expect_test::expect![[r#"
            CF_INSTANCE_IP=10.0.0.1
            CF_INSTANCE_INTERNAL_IP=10.255.0.2
            CF_INSTANCE_PORT=
            CF_INSTANCE_ADDR=
            CF_INSTANCE_PORTS=[]
        "#]]
        .assert_eq(&network(&[]));
        expect_test::expect![[r#"
            CF_INSTANCE_IP=10.0.0.1
            CF_INSTANCE_INTERNAL_IP=10.255.0.2
            CF_INSTANCE_PORTS=[{"internal":8080}]
        "#]]
        .assert_eq(&network(&[(8080, 0)]));
    }

    #[test]
    fn an_image_may_say_anything() {
        let env = ["A=1", "B=x=y", "C=", "D", "", "=E"].map(str::to_owned);
        assert_eq!(shown(&of_image(&env)), "A=1\nB=x=y\nC=\n");
    }
}
