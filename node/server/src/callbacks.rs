//! Requests to clients whose tasks have ended.

use agent::world::CallbackError;
use model::Task;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;

use crate::limits::CALLBACK_REDIRECTS_MAX;

/// The HTTP client of all callbacks.
#[derive(Debug)]
pub(crate) struct Callbacks(reqwest::Client);

impl Callbacks {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        // Fails if the process has chosen another provider, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(Policy::limited(CALLBACK_REDIRECTS_MAX))
            .no_proxy()
            .build()?;
        Ok(Self(client))
    }

    /// One request. The answer's body is not read.
    pub(crate) async fn post(&self, task: &Task) -> Result<u16, CallbackError> {
        let body = api::json::task_callback(task).to_string();
        let request = self
            .0
            .post(&task.definition.completion_callback_url)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        match request.send().await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => Err(CallbackError(deepest(&error))),
        }
    }
}

/// The innermost reason, which says what went wrong: those around it say only where.
fn deepest(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
