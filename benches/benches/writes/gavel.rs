//! Three nodes, as `gavel dev` starts them. A write is a new annotation of a desired LRP of no
//! instances: a command like any other, and a row of about 700 bytes that changes with it.

use std::collections::BTreeMap;

use api::AdminClient;
use benches::app;
use model::{DesiredLrpUpdate, ProcessGuid};
use tests::cluster::Cluster;
use tests::host::Host;

use super::{CLIENTS, Target};

pub(super) struct Gavel {
    cluster: Cluster,
    leader: String,
}

pub(super) fn start() -> Gavel {
    let cluster = Cluster::start();
    let leader = cluster.endpoint(&cluster.leader());
    let gavel = Gavel { cluster, leader };
    let clients = CLIENTS.into_iter().max().expect("there are some");
    gavel.cluster.host().in_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let admin = gavel.connect().await;
            for client in 0..clients {
                let mut desired_lrp = app(u32::try_from(client).expect("few"), 0);
                desired_lrp.process_guid = guid(client);
                desired_lrp.routes = BTreeMap::new();
                // No registry is to be asked.
                desired_lrp.rootfs = "preloaded:bench".to_owned();
                let done = admin.desire_lrp(tarpc::context::current(), Box::new(desired_lrp)).await;
                done.expect("the leader answers").expect("it is allowed");
            }
        });
    });
    gavel
}

fn guid(client: usize) -> ProcessGuid {
    format!("bench-{client:04}").as_str().into()
}

impl Target for Gavel {
    const NAME: &'static str = "gavel";
    type Connection = AdminClient;

    async fn connect(&self) -> AdminClient {
        api::wire::connect(&self.leader).await.expect("the leader answers")
    }

    async fn write(connection: &mut AdminClient, client: usize, value: String) {
        let annotation = Some(value);
        let update = Box::new(DesiredLrpUpdate { annotation, ..DesiredLrpUpdate::default() });
        let done =
            connection.update_desired_lrp(tarpc::context::current(), guid(client), update).await;
        done.expect("the leader answers").expect("it is allowed");
    }

    fn host(&self) -> &Host {
        self.cluster.host()
    }
}
