//! An LRP's routes as Diego writes them for Gorouter: the text of `cf-router` in
//! `DesiredLRP.routes` (bbs-wire.md, "Routing data conventions").

use model::DesiredLrp;
use serde::{Deserialize, Serialize};

/// The router's name in `DesiredLRP.routes`.
pub const CF_ROUTER: &str = "cf-router";

/// One entry of the text. Fields that are not for this router are carried over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CfRoute {
    /// `HOST` or `HOST/PATH`; a host may begin with `*.`.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The container's port.
    #[serde(default)]
    pub port: u16,
    /// `http1`, which is meant where there is nothing, or `http2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// A service that must see each request first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route_service_url: String,
    /// Which of several groups of routers serve it; all where there is nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation_segment: String,
    /// Gorouter's own, such as how it balances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<serde_json::Value>,
}

/// The entries of an LRP's text, none where it is none of ours: it is opaque to the cluster.
#[must_use]
pub fn entries(lrp: &DesiredLrp) -> Vec<CfRoute> {
    let text = lrp.routes.get(CF_ROUTER);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What a request must ask for, and where it is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// In lower case, without a port.
    pub host: String,
    /// Empty, or `/` and segments without a `/` at the end.
    pub path: String,
    pub target: Target,
}

/// A port of each of an app's instances, and what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The container's.
    pub port: u16,
    pub is_http2: bool,
}

/// The routes of an LRP that this router serves.
///
/// A route with a route service is left out: to pass its requests by that service would be worse
/// than not to pass them.
#[must_use]
pub fn routes(lrp: &DesiredLrp) -> Vec<Route> {
    let mut routes = Vec::new();
    for entry in entries(lrp).iter().filter(|entry| entry.route_service_url.is_empty()) {
        let target = Target { port: entry.port, is_http2: entry.protocol == "http2" };
        for name in &entry.hostnames {
            let (host, path) = split(name);
            if !host.is_empty() {
                routes.push(Route { host, path, target });
            }
        }
    }
    routes
}

/// Host and path of `HOST/PATH`.
fn split(name: &str) -> (String, String) {
    let (host, path) = match name.find('/') {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    (host_of(host), path.trim_end_matches('/').to_owned())
}

/// A host as it is compared: in lower case, without its port or the root's dot.
#[must_use]
pub fn host_of(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        // An address of IPv6 has its colons in brackets.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The text for routes of one port each.
#[must_use]
pub fn to_text(routes: &[CfRoute]) -> String {
    serde_json::to_string(routes).expect("plain fields")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let routes = [(CF_ROUTER.to_owned(), text.to_owned())].into();
        let lrp = DesiredLrp { routes, ..DesiredLrp::default() };
        let lines: String = super::routes(&lrp)
            .iter()
            .map(|Route { host, path, target: Target { port, is_http2 } }| {
                format!("{host} {path:?} {port}{}\n", if *is_http2 { " h2" } else { "" })
            })
            .collect();
        expected.assert_eq(&lines);
    }

    #[test]
    fn routes_are_read_as_diego_writes_them() {
        check(
            r#"[{"hostnames":["A.example.com","b.example.com/v1/"],"port":8080},
                {"hostnames":["*.example.com"],"port":9090,"protocol":"http2","options":{}}]"#,
            expect![[r#"
                a.example.com "" 8080
                b.example.com "/v1" 8080
                *.example.com "" 9090 h2
            "#]],
        );
    }

    #[test]
    fn what_is_not_for_this_router_is_left_out() {
        check("no JSON", expect![[""]]);
        check(r#"[{"hostnames":["", "/x"],"port":1}]"#, expect![[""]]);
        check(
            r#"[{"hostnames":["a"],"port":1,"route_service_url":"https://rs.example"}]"#,
            expect![[""]],
        );
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_dot() {
        for (given, host) in
            [("A.b:80", "a.b"), ("a.b.", "a.b"), ("a.b.:80", "a.b"), ("[::1]:80", "[::1]")]
        {
            assert_eq!(host_of(given), host);
        }
        assert_eq!(host_of("[::1]"), "[::1]");
    }
}
