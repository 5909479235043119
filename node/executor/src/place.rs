//! A step's place in its recipe: the key that its process and its notes go by, and where its
//! lines go.
//!
//! The key is what makes a recipe resumable: `action/1/0` is the first step of the second of the
//! action's, in this and in every later life of the node.

use std::sync::{Arc, Mutex};

use container::container::LogStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::limits::{KEY_BYTES_MAX, MONITOR_OUTPUT_BYTES_MAX};
use crate::sandbox::Sandbox;

/// Where a step stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) key: String,
    pub(crate) sink: Sink,
}

impl Place {
    /// The place of the step within this one, whose lines are of `source` unless that is empty.
    pub(crate) fn within(&self, index: usize, source: &str) -> Self {
        let mut key = format!("{}/{index}", self.key);
        if key.len() > KEY_BYTES_MAX {
            key = hex::encode(Sha256::digest(key));
        }
        Self { key, sink: self.sink.named(source) }
    }
}

/// Where a step's lines go.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// To the container's log, as of this source.
    Log { source: String },
    /// To whoever reports on the run of a monitor.
    Buffer { source: String, buffer: Buffer },
}

/// What the steps of one run of a monitor have written, the first of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// The same, but as of another source unless that is empty.
    pub(crate) fn named(&self, source: &str) -> Self {
        let mut named = self.clone();
        if !source.is_empty() {
            let (Self::Log { source: own } | Self::Buffer { source: own, .. }) = &mut named;
            source.clone_into(own);
        }
        named
    }

    pub(crate) fn source(&self) -> &str {
        let (Self::Log { source } | Self::Buffer { source, .. }) = self;
        source
    }

    /// Writes a text of one or more lines. Empty ones are left out.
    pub(crate) async fn write(&self, sandbox: &impl Sandbox, stream: LogStream, text: &str) {
        match self {
            Self::Log { source } => {
                for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
                    sandbox.log(stream, source, line).await;
                }
            }
            Self::Buffer { buffer, .. } => {
                buffer.append(text.as_bytes());
                buffer.append(b"\n");
            }
        }
    }
}

impl Buffer {
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut written = self.0.lock().expect("no holder of the lock panics");
        let room = MONITOR_OUTPUT_BYTES_MAX.saturating_sub(written.len());
        written.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What was written, without the blanks around it.
    pub(crate) fn text(&self) -> String {
        let written = self.0.lock().expect("no holder of the lock panics");
        String::from_utf8_lossy(&written).trim().to_owned()
    }
}

/// What a step has noted of itself for a later life of the node.
#[derive(Debug)]
pub(crate) struct Notes<'a, S> {
    sandbox: &'a S,
    key: &'a str,
    is_lasting: bool,
}

impl<'a, S: Sandbox> Notes<'a, S> {
    pub(crate) fn new(sandbox: &'a S, key: &'a str) -> Self {
        Self { sandbox, key, is_lasting: true }
    }

    /// Of a step that begins anew each time: it notes nothing.
    pub(crate) fn none(sandbox: &'a S, key: &'a str) -> Self {
        Self { sandbox, key, is_lasting: false }
    }

    /// What was noted under this name; none also where it cannot be read.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let value = self.is_lasting.then(|| self.sandbox.marked(&self.name(name))).flatten()?;
        match serde_json::from_str(&value) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(key = self.key, name, value, %error, "a note cannot be read");
                None
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.is_lasting && self.sandbox.marked(&self.name(name)).is_some()
    }

    pub(crate) async fn set<T: Serialize + Sync>(&self, name: &str, value: &T) {
        if self.is_lasting {
            let value = serde_json::to_string(value).expect("notes are plain data");
            self.sandbox.mark(&self.name(name), &value).await;
        }
    }

    /// Whether this is the first time that it is asked, in this and all former lives.
    pub(crate) async fn is_first(&self, name: &str) -> bool {
        let is_first = !self.has(name);
        if is_first {
            self.set(name, &()).await;
        }
        is_first
    }

    fn name(&self, name: &str) -> String {
        format!("{}:{name}", self.key)
    }
}
