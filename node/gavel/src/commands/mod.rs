//! The client commands, a file for each or for a family of them, and the arguments they share.

pub(crate) mod actual_lrps;
pub(crate) mod app;
pub(crate) mod apps;
pub(crate) mod cells;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod delete;
pub(crate) mod desired_lrps;
pub(crate) mod domains;
pub(crate) mod evacuate;
pub(crate) mod exec;
pub(crate) mod feature_flags;
pub(crate) mod logs;
pub(crate) mod members;
pub(crate) mod push;
pub(crate) mod scale;
pub(crate) mod shell;
pub(crate) mod ssh;
pub(crate) mod tasks;

use std::io::Read;

use api::admin::Consistency;
use clap::Args;
use model::ProcessGuid;
use model::limits::NAME_BYTES_MAX;

use crate::failure::Failure;

/// How fresh a command's answer must be.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Freshness {
    /// Takes what the answering node knows, even when no leader can be reached
    #[arg(long)]
    stale: bool,
}

impl Freshness {
    pub(crate) fn consistency(self) -> Consistency {
        if self.stale { Consistency::Stale } else { Consistency::Linearizable }
    }
}

/// Reads a guid, so that a misspelt one is wrong usage before anybody is asked.
///
/// # Errors
///
/// Says what a guid looks like.
pub(crate) fn parse_guid<T: From<String>>(text: &str) -> Result<T, String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(is_legal) {
        let must = "must be letters, digits, - and _";
        return Err(format!("{must}, {NAME_BYTES_MAX} at most"));
    }
    Ok(T::from(text.to_owned()))
}

/// One instance of an app: `APP/INDEX`, or `APP` for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) app: ProcessGuid,
    pub(crate) index: u32,
}

impl std::fmt::Display for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.app, self.index)
    }
}

/// # Errors
///
/// Says what an instance looks like.
pub(crate) fn parse_instance(text: &str) -> Result<Instance, String> {
    let (app, index) = text.split_once('/').unwrap_or((text, "0"));
    let index = index.parse().map_err(|_| "an instance is APP/INDEX, for instance hello/0")?;
    Ok(Instance { app: parse_guid(app)?, index })
}

/// A definition as `cfdot` takes it: the JSON itself, or `@FILE`, or `@-` for standard input.
pub(crate) fn definition(argument: &str) -> Result<String, Failure> {
    let Some(path) = argument.strip_prefix('@') else { return Ok(argument.to_owned()) };
    if path == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{path}: {error}")))
}

/// What is wrong with a definition, named by where it came from.
pub(crate) fn bad_definition(what: &str, argument: &str, error: &serde_json::Error) -> Failure {
    let place = argument.strip_prefix('@').map(|path| format!(" in {path}")).unwrap_or_default();
    Failure::Usage(format!("the {what}{place} cannot be read: {error}"))
}
