//! One registration as Diego's route-emitter writes it and Gorouter reads it: `RegistryMessage` in
//! both. What has Go's `omitempty` there is left out here where it is empty.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use model::{ActualLrp, ActualState, DesiredLrp, InstanceKey, NetInfo, PortMapping, metric_tag};
use serde::{Deserialize, Serialize};

use super::{Audience, Key, Settings};
use crate::route::{CfRoute, entries};

/// The router's name in `DesiredLRP.routes` that is for names inside the cluster.
const INTERNAL_ROUTER: &str = "internal-router";
/// Who speaks, in the tags of every message.
const COMPONENT: &str = "route-emitter";

/// Where requests for some URIs may be sent. Its fields are in Diego's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub host: Ipv4Addr,
    /// 0 for service discovery, which tells addresses only.
    pub port: u16,
    pub uris: Vec<String>,
    /// `http1` or `http2`; Gorouter takes nothing for `http1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The LRP's log guid, which for Cloud Foundry is the app's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_service_url: String,
    /// The instance guid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_instance_id: String,
    pub private_instance_index: String,
    /// Whom the instance's certificate names: its guid. Without a TLS port nobody asks for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_cert_domain_san: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation_segment: String,
    /// When the instance began to run, in nanoseconds since 1970; only where it is new, so that
    /// routers measure how late they hear of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub endpoint_updated_at_ns: u64,
    pub tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub availability_zone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Message {
    /// As JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields")
    }

    /// As it is told when the instance is no news.
    #[must_use]
    pub(super) fn without_age(&self) -> Self {
        Self { endpoint_updated_at_ns: 0, ..self.clone() }
    }
}

#[derive(Deserialize)]
struct InternalRoute {
    #[serde(default)]
    hostname: String,
}

/// All that is to be told of an instance that runs.
pub(super) fn messages(
    desired: &DesiredLrp,
    lrp: &ActualLrp,
    settings: Settings,
) -> Vec<(Key, Arc<Message>)> {
    let ActualState::Running { instance, net_info } = &lrp.state else { return Vec::new() };
    let place = Place { desired, lrp, instance, net_info };
    let mut messages = Vec::new();
    for route in entries(desired) {
        let port = net_info.ports.iter().find(|port| port.container_port == route.port);
        let Some(port) = port else { continue };
        for uri in &route.hostnames {
            messages.push(place.route(&route, uri, *port, settings.has_direct_routes));
        }
    }
    if settings.has_internal_routes {
        let text = desired.routes.get(INTERNAL_ROUTER);
        let routes: Vec<InternalRoute> =
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        messages.extend(routes.iter().map(|route| place.internal_route(&route.hostname)));
    }
    messages
}

/// An instance, and where it is.
struct Place<'a> {
    desired: &'a DesiredLrp,
    lrp: &'a ActualLrp,
    instance: &'a InstanceKey,
    net_info: &'a NetInfo,
}

impl Place<'_> {
    fn route(
        &self,
        route: &CfRoute,
        uri: &str,
        port: PortMapping,
        is_direct: bool,
    ) -> (Key, Arc<Message>) {
        let (host, port) = if is_direct {
            (self.net_info.instance_address, port.container_port)
        } else {
            (self.net_info.address, port.host_port)
        };
        let mut tags = metric_tag::resolve(&self.desired.metric_tags, self.lrp);
        tags.insert("component".to_owned(), COMPONENT.to_owned());
        let guid = self.instance.instance_guid.to_string();
        let message = Message {
            protocol: route.protocol.clone(),
            route_service_url: route.route_service_url.clone(),
            private_instance_id: guid.clone(),
            server_cert_domain_san: guid,
            isolation_segment: route.isolation_segment.clone(),
            tags,
            availability_zone: self.lrp.availability_zone.to_string(),
            // Where routers reach containers, Diego leaves them out; Gorouter takes them for all.
            options: route.options.clone(),
            ..self.message(host, port, vec![uri.to_owned()])
        };
        let key = Key { audience: Audience::Routers, uri: uri.to_owned(), host, port };
        (key, Arc::new(message))
    }

    fn internal_route(&self, hostname: &str) -> (Key, Arc<Message>) {
        let host = self.net_info.instance_address;
        let uris = vec![hostname.to_owned(), format!("{}.{hostname}", self.lrp.key.index)];
        let key =
            Key { audience: Audience::ServiceDiscovery, uri: hostname.to_owned(), host, port: 0 };
        (key, Arc::new(self.message(host, 0, uris)))
    }

    /// What both kinds have.
    fn message(&self, host: Ipv4Addr, port: u16, uris: Vec<String>) -> Message {
        Message {
            host,
            port,
            uris,
            protocol: String::new(),
            app: self.desired.log_guid.clone(),
            route_service_url: String::new(),
            private_instance_id: String::new(),
            private_instance_index: self.lrp.key.index.to_string(),
            server_cert_domain_san: String::new(),
            isolation_segment: String::new(),
            endpoint_updated_at_ns: self.lrp.since.0.saturating_mul(1_000_000),
            tags: [("component".to_owned(), COMPONENT.to_owned())].into(),
            availability_zone: String::new(),
            options: None,
        }
    }
}
