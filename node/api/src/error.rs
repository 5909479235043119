//! What a call can fail with.

use model::Refusal;
use serde::{Deserialize, Serialize};

/// Closed, and append-only: it is part of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// The cluster said no; nothing has changed.
    #[error("{0}")]
    Refused(Refusal),
    /// The request itself is wrong; nothing has changed.
    #[error("{0}")]
    Invalid(String),
    /// An image could not be resolved; nothing has changed.
    #[error("{0}")]
    Image(String),
    /// The node cannot serve this now; nothing has changed, and another try may do.
    #[error("{0}")]
    Unavailable(String),
    /// The change was sent, and the answer was lost: it may have happened or not.
    #[error("{0}; the outcome is unknown")]
    Unknown(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is not allowed here.
    #[error("{0}")]
    Forbidden(String),
}

impl Error {
    /// The name of Diego's error type (`models.Error_Type`) that clients know this by.
    #[must_use]
    pub fn diego_type(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.diego_type(),
            Self::Invalid(_) | Self::Image(_) | Self::Forbidden(_) => "InvalidRequest",
            Self::Unavailable(_) | Self::Unknown(_) => "UnknownError",
            Self::NotFound(_) => "ResourceNotFound",
        }
    }

    /// Whether a change may have happened in spite of the error.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
