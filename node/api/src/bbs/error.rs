//! Refusals and failures in Diego's words (lifecycle.md section 7).

use model::Refusal;
use model::action::{Action, ManyActions};

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
pub(crate) struct Complaints {
    sentences: Vec<String>,
    has_empty_action: bool,
}

impl Complaints {
    /// One field, where it is bad.
    pub(crate) fn field(&mut self, name: &str, is_bad: bool) {
        if is_bad {
            self.sentences.push(Malformed::field(name).0);
        }
    }

    /// An action of no kind, and what stands for it in the model: a list with nothing in it, which
    /// no message can say and the model complains of at its place.
    pub(crate) fn empty_action(&mut self) -> Action {
        self.has_empty_action = true;
        Action::Parallel(ManyActions { actions: vec![None], ..ManyActions::default() })
    }

    /// What the model has found wrong, before everything that is here.
    pub(crate) fn after(&mut self, sentences: Option<String>) {
        let of_empty = || Malformed::field("inner-action").0;
        let in_words = |text: String| match self.has_empty_action {
            true => text.replace(&Malformed::field("action at index 0").0, &of_empty()),
            false => text,
        };
        self.sentences.splice(0..0, sentences.map(in_words));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sentences.is_empty() && !self.has_empty_action
    }

    /// # Errors
    ///
    /// [`Malformed`]: there is something.
    pub(crate) fn refuse(self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed(self.sentences.join(", "))) }
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
