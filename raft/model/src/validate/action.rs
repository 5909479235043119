//! Actions: what each kind must say.

use super::BadFields;
use super::dependency::checksum;
use crate::action::{Action, Nested};

/// An action that must be there, named by its field.
pub(super) fn required(bad: &mut BadFields, name: &str, action: Option<&Action>) {
    match action {
        None => bad.sentence("invalid action type", true),
        Some(_) => optional(bad, name, action),
    }
}

/// An action that may be absent.
pub(super) fn optional(bad: &mut BadFields, name: &str, action: Option<&Action>) {
    if let Some(action) = action {
        bad.part(name, bad_fields(action));
    }
}

fn bad_fields(action: &Action) -> BadFields {
    let mut bad = BadFields::default();
    match action {
        Action::Run(run) => {
            bad.field("path", run.path.is_empty());
            bad.field("user", run.user.is_empty());
        }
        Action::Download(download) => {
            bad.field("from", download.from.is_empty());
            bad.field("to", download.to.is_empty());
            bad.field("user", download.user.is_empty());
            checksum(&mut bad, &download.checksum_algorithm, &download.checksum_value);
        }
        Action::Upload(upload) => {
            bad.field("to", upload.to.is_empty());
            bad.field("from", upload.from.is_empty());
            bad.field("user", upload.user.is_empty());
        }
        Action::Timeout(timeout) => {
            inner(&mut bad, timeout.action.as_ref());
            bad.field("timeout_ms", timeout.timeout_ms <= 0);
        }
        Action::EmitProgress(emit) => inner(&mut bad, emit.action.as_ref()),
        Action::Try(attempt) => inner(&mut bad, attempt.action.as_ref()),
        Action::Parallel(many) | Action::Serial(many) | Action::Codependent(many) => {
            bad.field("actions", many.actions.is_empty());
            for (at, action) in many.actions.iter().enumerate() {
                match action {
                    None => bad.field(&format!("action at index {at}"), true),
                    Some(Nested(action)) => bad.0.extend(bad_fields(action).0),
                }
            }
        }
    }
    bad
}

/// Only the outermost action is named before what is wrong within it.
fn inner(bad: &mut BadFields, action: Option<&Nested>) {
    match action {
        None => bad.field("action", true),
        Some(Nested(action)) => bad.0.extend(bad_fields(action).0),
    }
}
