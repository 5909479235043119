//! Waits until a cluster takes work: every node answers, all follow one leader, every cell has
//! registered, and Docker images are allowed.

use api::admin::{CellStatus, ClusterStatus, Consistency};
use api::wire::Dialer;
use model::FeatureFlag;
use server::Config;

use crate::client::Client;
use crate::failure::Failure;
use crate::limits::{DEV_READY_MAX, LOOK_AGAIN, PING_TIMEOUT};
use crate::output::Progress;

/// Returns when the cluster is ready.
///
/// # Errors
///
/// What was still awaited after [`DEV_READY_MAX`].
pub(super) async fn until_ready(configs: &[Config], progress: &mut Progress) -> Result<(), String> {
    let address = |config: &Config| config.advertised().to_owned();
    let client = |addresses| Client::new(addresses, Dialer::default(), PING_TIMEOUT);
    // Each node is asked by itself: the cell of one that has not come up would take no work,
    // whatever the cluster remembers of it.
    let mut each: Vec<Client> =
        configs.iter().map(|config| client(vec![address(config)])).collect();
    let mut any = client(configs.iter().map(address).collect());
    let mut waiting = String::new();
    let look = async {
        loop {
            match look(configs, &mut each, &mut any).await {
                Ok(()) => return,
                Err(reason) => waiting = reason,
            }
            progress.say(&waiting);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let outcome = tokio::time::timeout(DEV_READY_MAX, look).await;
    outcome.map_err(|_| waiting)
}

/// What is still awaited, if anything is.
async fn look(configs: &[Config], each: &mut [Client], any: &mut Client) -> Result<(), String> {
    let mut leader = None;
    for (config, client) in configs.iter().zip(each) {
        let name = &config.name;
        let status: ClusterStatus = client
            .read(async |admin, context| admin.cluster_status(context).await)
            .await
            .map_err(|failure| {
                if matches!(failure, Failure::Unreachable(_)) {
                    format!("waiting for {name} to answer")
                } else {
                    format!("waiting for {name}: {failure}")
                }
            })?;
        match (status.leader, leader) {
            (None, _) => return Err("waiting for a leader".to_owned()),
            (Some(theirs), Some(leader)) if theirs != leader => {
                return Err("waiting for all nodes to follow one leader".to_owned());
            }
            (Some(theirs), _) => leader = Some(theirs),
        }
    }
    let cells: Vec<CellStatus> = any
        .read(async |admin, context| admin.cells(context, Consistency::Linearizable).await)
        .await
        .map_err(|failure| format!("waiting for the cells: {failure}"))?;
    for config in configs {
        let is_it = |status: &CellStatus| {
            status.cell.cell_id.as_str() == config.name && status.cell.is_present()
        };
        if !cells.iter().any(is_it) {
            return Err(format!("waiting for {} to register as a cell", config.name));
        }
    }
    any.change("gavel feature-flags", async |admin, context| {
        admin.set_feature_flag(context, FeatureFlag::DiegoDocker, true).await
    })
    .await
    .map_err(|failure| format!("waiting to allow Docker images: {failure}"))
}
