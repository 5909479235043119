//! Streams of events, as server-sent events (bbs-wire.md section 3).

use std::convert::Infallible;
use std::sync::Arc;

use api::bbs::messages as bbs;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prost::Message;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::BbsFace;
use super::hub::{Frame, Stream};

/// Bytes that one write to a subscriber gathers, of what waits for it.
const WRITE_BYTES: usize = 64 << 10;

pub(super) async fn instances(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream::Instances, body)
}

pub(super) async fn groups(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream::Groups, body)
}

pub(super) async fn tasks(State(face): State<BbsFace>) -> Response {
    subscribe(&face, Stream::Tasks, String::new())
}

/// Narrowed to one cell, where the request names it.
fn of_cell(face: &BbsFace, stream: Stream, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.body_text()).into_response();
        }
    };
    match bbs::EventsByCellId::decode(body) {
        Ok(bbs::EventsByCellId { cell_id }) => subscribe(face, stream, cell_id),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn subscribe(face: &BbsFace, stream: Stream, cell_id: String) -> Response {
    let subscriber = Subscriber { events: face.hub.subscribe(stream), cell_id, told: 0 };
    let body = stream::unfold(subscriber, async |mut subscriber| {
        let text = subscriber.next().await?;
        Some((Ok::<Bytes, Infallible>(text), subscriber))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

struct Subscriber {
    events: Receiver<Arc<Frame>>,
    /// Empty for all.
    cell_id: String,
    /// Events that it was told: the number of the next.
    told: u64,
}

impl Subscriber {
    /// What waits for it, once something does. Nothing when the stream ends: the node does, or the
    /// subscriber did not keep up.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = Vec::new();
        while text.is_empty() {
            let frame = self.events.recv().await.ok()?;
            self.write(&frame, &mut text);
        }
        while text.len() < WRITE_BYTES {
            match self.events.try_recv() {
                Ok(frame) => self.write(&frame, &mut text),
                // The next call sees why.
                Err(TryRecvError::Empty | TryRecvError::Closed | TryRecvError::Lagged(_)) => break,
            }
        }
        Some(text.into())
    }

    fn write(&mut self, frame: &Frame, text: &mut Vec<u8>) {
        if frame.about.concerns(&self.cell_id) {
            text.extend(format!("id: {}\n", self.told).as_bytes());
            text.extend_from_slice(&frame.text);
            self.told += 1;
        }
    }
}
