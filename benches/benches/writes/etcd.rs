//! Three members of Debian's `etcd-server` as it comes: synced, on a host of their own. The client
//! is tonic, with the two messages that a put needs.

use std::process::{Child, Stdio};
use std::time::Duration;

use http::uri::PathAndQuery;
use tests::eventually;
use tests::host::Host;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Target;

/// `etcdserverpb.PutRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

pub(super) struct Etcd {
    host: Host,
    leader: String,
    members: Vec<Child>,
}

pub(super) fn start() -> Etcd {
    let host = Host::new();
    let client = |member: u16| format!("http://127.0.0.1:{}", 23_790 + member);
    let peer = |member: u16| format!("http://127.0.0.1:{}", 23_890 + member);
    let members: Vec<String> =
        (1..=3).map(|member| format!("m{member}={}", peer(member))).collect();
    let members = members.join(",");
    let start = |member: u16| {
        host.command("etcd")
            .args(["--name", &format!("m{member}")])
            .arg("--data-dir")
            .arg(host.dir().join(format!("etcd-{member}")))
            .args(["--listen-client-urls", &client(member)])
            .args(["--advertise-client-urls", &client(member)])
            .args(["--listen-peer-urls", &peer(member)])
            .args(["--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &members, "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter (Debian: util-linux) starts")
    };
    let children = (1..=3).map(start).collect();
    let leader = eventually("etcd (Debian: etcd-server) leads", Duration::from_secs(60), || {
        let endpoints: Vec<String> = (1..=3).map(client).collect();
        let output = host
            .command("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["endpoint", "status", "--write-out", "json"])
            .args(["--endpoints", &endpoints.join(",")])
            .output()
            .expect("nsenter starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let statuses: Vec<serde_json::Value> =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let leads = statuses.iter().find(|one| {
            one["Status"]["leader"].is_u64()
                && one["Status"]["leader"] == one["Status"]["header"]["member_id"]
        });
        let leader = leads.and_then(|one| one["Endpoint"].as_str()).ok_or(text)?;
        if statuses.len() == 3 { Ok(leader.to_owned()) } else { Err("too few".to_owned()) }
    });
    Etcd { host, leader, members: children }
}

impl Target for Etcd {
    const NAME: &'static str = "etcd";
    type Connection = Grpc<Channel>;

    async fn connect(&self) -> Grpc<Channel> {
        let endpoint = Endpoint::from_shared(self.leader.clone()).expect("an address");
        Grpc::new(endpoint.tcp_nodelay(true).connect().await.expect("the leader answers"))
    }

    async fn write(connection: &mut Grpc<Channel>, client: usize, value: String) {
        connection.ready().await.expect("the leader answers");
        let request =
            PutRequest { key: format!("bench-{client:04}").into(), value: value.into_bytes() };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let done = connection.unary(tonic::Request::new(request), path, codec).await;
        done.expect("it is allowed");
    }

    fn host(&self) -> &Host {
        &self.host
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // The host ends them in any case.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
