//! The tarpc service and its types.
