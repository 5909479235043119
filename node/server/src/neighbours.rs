//! Layers of images between the cells of a cluster: by the one listener, in mutual TLS, after a
//! greeting of their own. Each layer has one home among the present cells, by the greatest digest
//! of cell and layer (rendezvous hashing), so that cells agree on it without asking.
//! [ADR 11](../../../docs/adr/0011-layers-have-homes.md) says why.
//!
//! Who asks says what he wants in one frame: its length in four bytes, then [`Ask`] in postcard.
//! The layer's bytes follow, and nothing else; a stream that ends early is a failure.

use std::io;
use std::sync::Arc;

use api::admin::ImageUser;
use api::wire::{IMAGE_GREETING, Stream};
use container::image::{Credentials, Digest, Home, Neighbours, Reference, Store, Wanted};
use futures_util::future::BoxFuture;
use model::CellHealth;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::limits::{
    GREETING_TIMEOUT, LAYER_ASK_BYTES_MAX, LAYER_SEND_STALL_MAX, NEIGHBOURS_LOOK_PAUSE,
};
use crate::security::SharedSecurity;
use crate::world::NodeAgent;

/// What a cell wants of another.
#[derive(Serialize, Deserialize)]
struct Ask {
    /// As a root file system's URL.
    image: String,
    layer: String,
    bytes: u64,
    user: Option<ImageUser>,
}

/// The cells that are present, and how they are reached.
pub(crate) type Cells = Arc<Vec<(String, String)>>;

/// The other cells, as this one's store sees them.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    own: String,
    security: SharedSecurity,
    cells: watch::Receiver<Cells>,
}

impl Neighbourhood {
    pub(crate) fn new(
        own: String,
        security: SharedSecurity,
        cells: watch::Receiver<Cells>,
    ) -> Self {
        Self { own, security, cells }
    }
}

impl Neighbours for Neighbourhood {
    fn home(&self, wanted: &Wanted) -> Home {
        // No password goes in plain over a wire.
        if wanted.user.is_some() && !self.security.dialer().has_tls() {
            return Home::Nobody;
        }
        match home(&self.cells.borrow(), wanted.layer) {
            Some(name) if name == self.own => Home::Here,
            Some(name) => Home::There(name.to_owned()),
            None => Home::Nobody,
        }
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        let cells = Arc::clone(&self.cells.borrow());
        Box::pin(async move {
            let address = cells.iter().find(|(cell, _)| cell == name).map(|(_, address)| address);
            let address = address.ok_or_else(|| io::Error::other("it is gone"))?;
            let mut stream = self.security.dialer().dial(address, IMAGE_GREETING).await?;
            let user = wanted.user.clone();
            let ask = Ask {
                image: wanted.image.to_rootfs(),
                layer: wanted.layer.to_string(),
                bytes: wanted.bytes,
                user: user
                    .map(|Credentials { username, password }| ImageUser { username, password }),
            };
            let ask = postcard::to_stdvec(&ask).map_err(io::Error::other)?;
            stream.write_u32(u32::try_from(ask.len()).map_err(io::Error::other)?).await?;
            stream.write_all(&ask).await?;
            stream.flush().await?;
            Ok(Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>)
        })
    }
}

/// A layer's home; nobody where a cell is alone.
fn home(cells: &[(String, String)], layer: Digest) -> Option<&str> {
    if cells.len() < 2 {
        return None;
    }
    let weight = |name: &str| Digest::of(format!("{name}\0{layer}").as_bytes());
    cells.iter().map(|(name, _)| name.as_str()).max_by_key(|name| weight(name))
}

/// Sends a cell the layer that it asks for.
pub(crate) async fn serve(mut stream: Stream, images: &Store) -> io::Result<()> {
    let wanted = tokio::time::timeout(GREETING_TIMEOUT, receive(&mut stream)).await??;
    let mut shared = images.share(&wanted).map_err(io::Error::other)?;
    while let Some(chunk) = shared.next().await? {
        let sent = tokio::time::timeout(LAYER_SEND_STALL_MAX, stream.write_all(&chunk)).await;
        sent.map_err(|_| io::ErrorKind::TimedOut)??;
    }
    stream.shutdown().await
}

async fn receive(stream: &mut Stream) -> io::Result<Wanted> {
    let malformed = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let length = stream.read_u32().await?;
    if length > LAYER_ASK_BYTES_MAX {
        return Err(malformed(format!("it asks for a layer in {length} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    // postcard's own words tell of no content.
    let ask: Ask = postcard::from_bytes(&bytes).map_err(|error| malformed(error.to_string()))?;
    let image = Reference::from_rootfs(&ask.image).map_err(|error| malformed(error.to_string()))?;
    let layer = ask.layer.parse().map_err(|_| malformed("a layer is named by a digest".into()))?;
    let user = ask.user.map(|ImageUser { username, password }| Credentials { username, password });
    Ok(Wanted { image, layer, bytes: ask.bytes, user })
}

/// Tells which cells are present, as long as it is polled.
pub(crate) async fn follow(agent: NodeAgent, tell: watch::Sender<Cells>) {
    let mut watcher = agent.replica().watch();
    loop {
        let cells = present(&agent);
        tell.send_if_modified(|known| {
            let is_new = **known != cells;
            if is_new {
                *known = Arc::new(cells);
            }
            is_new
        });
        if watcher.changed().await.is_none() {
            return;
        }
        tokio::time::sleep(NEIGHBOURS_LOOK_PAUSE).await;
    }
}

fn present(agent: &NodeAgent) -> Vec<(String, String)> {
    let members = agent.replica().status().members;
    let state = agent.read_stale().state;
    let cells = state.cells().filter(|cell| cell.health == CellHealth::Present);
    cells
        .filter_map(|cell| {
            let member = members.iter().find(|member| member.id == cell.node_id)?;
            Some((cell.cell_id.to_string(), member.node.address.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), String::new())).collect()
    }

    #[test]
    fn homes_are_spread_and_few_move_when_a_cell_goes() {
        let layers: Vec<_> = (0..900_u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let (three, two) = (cells(&["a", "b", "c"]), cells(&["b", "a"]));
        for name in ["a", "b", "c"] {
            let count = layers.iter().filter(|it| home(&three, **it) == Some(name)).count();
            assert!((250..350).contains(&count), "{name}: {count}");
        }
        for layer in layers {
            let before = home(&three, layer).unwrap();
            assert!(before == "c" || home(&two, layer) == Some(before));
        }
        assert_eq!(home(&cells(&["a"]), Digest::of(b"")), None);
    }
}
