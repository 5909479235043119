//! Routes as people write and read them: `HOST[/PATH][=PORT]`, and the URL of one.

use api::admin::Routing;
use model::DesiredLrp;
use router::route::{CF_ROUTER, CfRoute, routes, to_text};

/// A route that is wished for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteWish {
    /// `HOST` or `HOST/PATH`.
    pub(crate) name: String,
    /// The container's; the app's first where absent.
    pub(crate) port: Option<u16>,
    pub(crate) is_http2: bool,
}

/// # Errors
///
/// Says what a route looks like, and what this one has that is none.
pub(crate) fn parse_route(text: &str) -> Result<RouteWish, String> {
    let (name, port) = match text.rsplit_once('=') {
        None => (text, None),
        Some((name, port)) => {
            let port: Option<u16> = port.parse().ok().filter(|port| *port > 0);
            (name, Some(port.ok_or("what follows = is a port of the container, 1 to 65535")?))
        }
    };
    let (host, path) = match name.find('/') {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    if host.contains(':') {
        return Err(
            "a route has no port of its own: routers listen on one port; for another port \
                    of the container say HOST=PORT"
                .to_owned(),
        );
    }
    let host = host.to_ascii_lowercase();
    let labels = host.strip_prefix("*.").unwrap_or(&host);
    let is_label = |label: &str| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(is_fine)
    };
    if host.len() > 253 || !labels.split('.').all(is_label) {
        return Err(format!(
            "{host:?} is no host; a route is HOST[/PATH][=PORT], for instance www.example.com/api"
        ));
    }
    if path.contains(['?', '#', ' ']) {
        return Err("a route's path has no ?, # or blank".to_owned());
    }
    let path = path.trim_end_matches('/');
    Ok(RouteWish { name: format!("{host}{path}"), port, is_http2: false })
}

/// The default route of an app: its name as a host under the domain, without what no host has.
#[must_use]
pub(crate) fn default_route(name: &str, domain: &str) -> Option<RouteWish> {
    let label = name.to_ascii_lowercase().replace('_', "-");
    let label = label.trim_matches('-');
    let is_fine = !label.is_empty() && label.len() <= 63;
    is_fine.then(|| RouteWish { name: format!("{label}.{domain}"), ..RouteWish::default() })
}

/// The text of `cf-router` for these, with an entry for each port and protocol.
#[must_use]
pub(crate) fn to_cf_router(wishes: &[RouteWish], port: u16) -> String {
    let mut entries: Vec<CfRoute> = Vec::new();
    for wish in wishes {
        let port = wish.port.unwrap_or(port);
        let protocol = if wish.is_http2 { "http2" } else { "" };
        let same = |entry: &&mut CfRoute| entry.port == port && entry.protocol == protocol;
        match entries.iter_mut().find(same) {
            Some(entry) => entry.hostnames.push(wish.name.clone()),
            None => entries.push(CfRoute {
                hostnames: vec![wish.name.clone()],
                port,
                protocol: protocol.to_owned(),
                ..CfRoute::default()
            }),
        }
    }
    to_text(&entries)
}

/// Where a browser finds an app, if a router is told of it.
#[must_use]
pub(crate) fn urls(lrp: &DesiredLrp, routing: Option<&Routing>) -> Vec<String> {
    if !lrp.routes.contains_key(CF_ROUTER) {
        return Vec::new();
    }
    let Some(Routing { port, .. }) = routing else { return Vec::new() };
    let port = if *port == 80 { String::new() } else { format!(":{port}") };
    routes(lrp).iter().map(|route| format!("{}{port}{}", route.host, route.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_host_path_and_port() {
        let of = |text: &str| parse_route(text).map(|route| (route.name, route.port));
        let ok = |name: &str, port| Ok((name.to_owned(), port));
        assert_eq!(of("A.example.com"), ok("a.example.com", None));
        assert_eq!(of("a.example.com/V1/"), ok("a.example.com/V1", None));
        assert_eq!(of("*.example.com=9090"), ok("*.example.com", Some(9090)));
        for wrong in ["", "a..b", "a.b:80", "a=0", "a=x", "http://a", "a.*.b", "a/x?y"] {
            assert!(parse_route(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_default_route_is_the_name_under_the_domain() {
        let of = |name| default_route(name, "localhost").map(|route| route.name);
        assert_eq!(of("My_App").as_deref(), Some("my-app.localhost"));
        assert_eq!(of("_"), None);
        assert_eq!(of(&"a".repeat(64)), None);
    }

    #[test]
    fn routes_are_written_by_port_and_protocol() {
        let mut wishes: Vec<_> =
            ["a", "b=9090", "c", "d"].iter().map(|text| parse_route(text).unwrap()).collect();
        wishes[3].is_http2 = true;
        assert_eq!(
            to_cf_router(&wishes, 8080),
            r#"[{"hostnames":["a","c"],"port":8080},{"hostnames":["b"],"port":9090},{"hostnames":["d"],"port":8080,"protocol":"http2"}]"#
        );
        assert_eq!(to_cf_router(&[], 1), "[]");
    }
}
