//! Images: references, registries, and the content-addressed store of unpacked layers.
//!
//! Reading order: [`Reference`] names an image, [`Store::resolve`] asks its registry what the
//! name means today, [`Store::pull`] brings its layers to this machine's disk as directories that
//! overlayfs stacks; [`Store::import`] takes them from a file instead. [`layout`] makes images and [`serve`] offers them, for the sample app and
//! for tests.

mod config;
mod credentials;
mod digest;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gc;
mod import;
mod layer;
pub mod layout;
mod manifest;
mod progress;
mod proofs;
mod reference;
mod registry;
pub mod serve;
mod share;
mod steps;
mod store;
mod unpack;

pub use self::config::{Healthcheck, HealthcheckTest, ImageConfig};
pub use self::credentials::{Credentials, CredentialsError, CredentialsFile};
pub use self::digest::{Digest, InvalidDigest};
pub use self::error::{Error, LayerFault, Part};
pub use self::gc::Collected;
pub use self::progress::{Progress, Silent};
pub use self::proofs::ProofKey;
pub use self::reference::Reference;
pub use self::registry::{Patience, Registries, check_authority};
pub use self::share::{Home, Neighbours, Origins, Shared, Wanted};
pub use self::store::{Image, Resolved, Store};
pub use self::unpack::expand;
