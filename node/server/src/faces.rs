//! What people and programs speak to. A face only translates: a request in, a call of the
//! agent, an answer out.

pub(crate) mod admin;
pub(crate) mod attach;
pub(crate) mod bbs;
pub(crate) mod dns;
pub(crate) mod locket;
mod logs;
pub(crate) mod nats;
pub(crate) mod rep;
pub(crate) mod routing;
pub(crate) mod ssh;
mod staging;
mod usage;
mod whereabouts;

use crate::secrets::Owner;
use crate::world::NodeAgent;

/// What the cluster keeps of a password that a client has given. A client's word is sealed
/// whatever it looks like: nobody can have opened what he has not sealed.
///
/// # Errors
///
/// Why it cannot be kept.
fn seal(
    agent: &NodeAgent,
    owner: Owner<'_>,
    username: &str,
    password: &mut String,
) -> Result<(), String> {
    if !password.is_empty() {
        let secrets = agent.world().containers.secrets();
        *password = secrets.seal(owner, username, password).map_err(|error| error.to_string())?;
    }
    Ok(())
}
