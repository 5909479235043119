//! What people and programs speak to. A face only translates: a request in, a call of the
//! agent, an answer out.

pub(crate) mod admin;
pub(crate) mod attach;
pub(crate) mod dns;
mod logs;
pub(crate) mod routing;
mod usage;
mod whereabouts;
