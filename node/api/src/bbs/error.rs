//! Refusals and failures in Diego's words (lifecycle.md section 7).

use model::Refusal;

use crate::bbs::messages::{Error, error::Type};

/// A request that Diego refuses before it asks anything else, and the text that it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// The text of a bad field.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self(format!("Invalid field: {name}"))
    }

    /// Within a part of the request, which is named first.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        Self(format!("Invalid field: {part}, {}", self.0))
    }

    /// Both parts of a request, or what is wrong with them: all of it, in their order.
    ///
    /// # Errors
    ///
    /// One of them is malformed, or both are.
    pub fn both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self(format!("{one}, {other}"))),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }
}

impl From<Malformed> for Error {
    fn from(Malformed(message): Malformed) -> Self {
        Self { r#type: Type::InvalidRequest.into(), message }
    }
}

/// What is wrong with a request, all of it: Diego says it at once.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<String>);

impl Complaints {
    /// One field, where it is bad.
    pub(crate) fn field(&mut self, name: &str, is_bad: bool) {
        if is_bad {
            self.0.push(Malformed::field(name).0);
        }
    }

    /// What is wrong within a part, which is named first; nothing where nothing is.
    pub(crate) fn part(&mut self, name: &str, part: Self) {
        self.field(name, !part.0.is_empty());
        self.0.extend(part.0);
    }

    /// What was found wrong by somebody else, before everything that is here.
    pub(crate) fn after(&mut self, sentences: Option<String>) {
        self.0.splice(0..0, sentences);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    ///
    /// [`Malformed`]: there is something.
    pub(crate) fn refuse(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed(self.0.join(", "))) }
    }
}

/// A body that is no message of its route's.
#[must_use]
pub fn undecodable() -> Error {
    Malformed("the request received is invalid".to_owned()).into()
}

/// What was asked for is not there.
#[must_use]
pub fn not_found() -> Error {
    of_type(Type::ResourceNotFound, "the requested resource could not be found")
}

/// Nothing was decided: nobody leads, or the node ends. Diego has no type for it.
#[must_use]
pub fn unavailable(reason: &str) -> Error {
    of_type(Type::UnknownError, reason)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = Type::from_str_name(refusal.diego_type())
            .expect("a refusal's type is one of Diego's names");
        let message = match kind {
            Type::ResourceExists => "the requested resource already exists".to_owned(),
            Type::ResourceNotFound => return not_found(),
            Type::ActualLrpCannotBeClaimed => "cannot claim actual LRP".to_owned(),
            Type::ActualLrpCannotBeStarted => "cannot start actual LRP".to_owned(),
            Type::ActualLrpCannotBeCrashed => "cannot crash actual LRP".to_owned(),
            Type::ActualLrpCannotBeFailed => "cannot fail actual LRP".to_owned(),
            Type::ActualLrpCannotBeRemoved => "cannot remove actual LRP".to_owned(),
            Type::ActualLrpCannotBeUnclaimed => "cannot unclaim actual LRP".to_owned(),
            Type::UnknownError
            | Type::InvalidRecord
            | Type::InvalidRequest
            | Type::InvalidResponse
            | Type::InvalidProtobufMessage
            | Type::InvalidJson
            | Type::FailedToOpenEnvelope
            | Type::InvalidStateTransition
            | Type::ResourceConflict
            | Type::RouterError
            | Type::RunningOnDifferentCell
            | Type::GuidGeneration
            | Type::Deserialize
            | Type::Deadlock
            | Type::Unrecoverable
            | Type::LockCollision
            | Type::Timeout => refusal.to_string(),
        };
        Self { r#type: kind.into(), message }
    }
}

fn of_type(kind: Type, message: &str) -> Error {
    Error { r#type: kind.into(), message: message.to_owned() }
}
