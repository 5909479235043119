//! Diego's SSH proxy: who logs in as `diego:GUID/INDEX` with the operator's password is led to the
//! SSH daemon in that instance's container, and everything between the two is passed on: shells,
//! commands, scp and sftp, forwarded ports.
//!
//! - [`target`] reads the LRP's `diego-ssh` route, and says where the daemon is, and who one is
//!   there;
//! - [`fingerprint`] tells whether a daemon is the one that the route means;
//! - [`host_key`] is the proxy's own;
//! - [`proxy`] accepts connections, and bounds them.
//!
//! Whole SSH connections, of which none knows of another: what is encrypted ends here. Deliberately absent: the agent. Whoever has the records is the [`Directory`].

mod activity;
mod daemon;
pub mod fingerprint;
pub mod host_key;
pub mod limits;
mod load;
pub mod login;
pub mod proxy;
mod relay;
mod signer;
pub mod target;
mod visitor;

pub use host_key::HostKey;
pub use login::Login;
pub use proxy::{Proxy, Settings};
pub use target::{Directory, NotFound, Target};
