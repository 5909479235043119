//! Streams of events, as server-sent events (bbs-wire.md section 3).

use std::convert::Infallible;
use std::sync::Arc;

use api::bbs::event::Form;
use api::bbs::messages as bbs;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prost::Message;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{Receiver, Sender, WeakSender};
use tokio::time::Instant;

use super::BbsFace;
use super::hub::{Frame, Of, Stream};
use crate::limits::{SUBSCRIBER_PACE, SUBSCRIBER_PACE_MAX};

/// Bytes that one write to a subscriber gathers, of what waits for it.
const WRITE_BYTES: usize = 64 << 10;

pub(super) async fn instances(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream { of: Of::Instances, form: Form::Current }, body)
}

pub(super) async fn groups(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream { of: Of::Groups, form: Form::Current }, body)
}

pub(super) async fn tasks(State(face): State<BbsFace>) -> Response {
    subscribe(&face, Stream { of: Of::Tasks, form: Form::Current }, String::new())
}

/// For clients that know no image layers.
pub(super) async fn instances_r0(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream { of: Of::Instances, form: Form::WithoutLayers }, body)
}

/// For clients that know no image layers.
pub(super) async fn groups_r0(
    State(face): State<BbsFace>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    of_cell(&face, Stream { of: Of::Groups, form: Form::WithoutLayers }, body)
}

/// For clients that know no image layers.
pub(super) async fn tasks_r0(State(face): State<BbsFace>) -> Response {
    subscribe(&face, Stream { of: Of::Tasks, form: Form::WithoutLayers }, String::new())
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
    let subscriber = Subscriber::new(&face.hub.stream(stream), cell_id);
    let body = stream::unfold(subscriber, async |mut subscriber| {
        let text = subscriber.next().await?;
        Some((Ok::<Bytes, Infallible>(text), subscriber))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        // HTTP/2 has no such header, and hyper leaves it out there.
        (header::CONNECTION, "keep-alive"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

struct Subscriber {
    events: Receiver<Arc<Frame>>,
    stream: WeakSender<Arc<Frame>>,
    /// Empty for all.
    cell_id: String,
    /// Events that it was told: the number of the next.
    told: u64,
    told_at: Instant,
    /// The node ends; or it did not keep up, and what would come next is lost.
    is_over: bool,
}

impl Subscriber {
    fn new(stream: &Sender<Arc<Frame>>, cell_id: String) -> Self {
        let (events, stream) = (stream.subscribe(), stream.downgrade());
        Self { events, stream, cell_id, told: 0, told_at: Instant::now(), is_over: false }
    }

    /// What waits for it, once something does. Nothing when the stream ends: the node does, or the
    /// subscriber did not keep up.
    ///
    /// What comes while many subscribers are told is gathered, so that telling them leaves the
    /// processor to others: see [`SUBSCRIBER_PACE`].
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = Vec::new();
        let subscribers = self.stream.upgrade().map_or(0, |stream| stream.receiver_count());
        let pace = SUBSCRIBER_PACE * u32::try_from(subscribers).unwrap_or(u32::MAX);
        tokio::time::sleep_until(self.told_at + pace.min(SUBSCRIBER_PACE_MAX)).await;
        while text.is_empty() {
            if self.is_over {
                return None;
            }
            let Ok(frame) = self.events.recv().await else {
                self.is_over = true;
                return None;
            };
            self.write(&frame, &mut text);
            self.gather(&mut text);
        }
        self.told_at = Instant::now();
        Some(text.into())
    }

    /// What else is there already.
    fn gather(&mut self, text: &mut Vec<u8>) {
        while text.len() < WRITE_BYTES {
            match self.events.try_recv() {
                Ok(frame) => self.write(&frame, text),
                Err(TryRecvError::Lagged(_)) => {
                    self.is_over = true;
                    return;
                }
                // Whether it is at its end is told by the next look.
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn write(&mut self, frame: &Frame, text: &mut Vec<u8>) {
        if frame.about.concerns(&self.cell_id) {
            text.extend(format!("id: {}\n", self.told).as_bytes());
            text.extend_from_slice(&frame.text);
            self.told += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use api::bbs::event::About;
    use tokio::sync::broadcast;

    use super::*;
    use crate::limits::SUBSCRIBER_EVENTS_MAX;

    fn frame(number: usize, about: About) -> Arc<Frame> {
        let text = format!("event: e\ndata: {number}\n\n").into();
        Arc::new(Frame { about, text })
    }

    #[tokio::test]
    async fn events_are_numbered_for_each_stream_and_gathered() {
        let (sender, _) = broadcast::channel(SUBSCRIBER_EVENTS_MAX);
        let mut subscriber = Subscriber::new(&sender, "a".to_owned());
        for (number, cell) in ["a", "b", "a"].into_iter().enumerate() {
            sender.send(frame(number, About::Cells(vec![cell.into()]))).unwrap();
        }
        let text = subscriber.next().await.unwrap();
        let expected = "id: 0\nevent: e\ndata: 0\n\nid: 1\nevent: e\ndata: 2\n\n";
        assert_eq!(text, expected);
        drop(sender);
        assert_eq!(subscriber.next().await, None);
    }

    /// Whatever moment it falls behind at: what it was told is without a gap.
    #[tokio::test]
    async fn who_does_not_keep_up_is_cut_off() {
        for read_first in [0, 1, 2] {
            let (sender, _) = broadcast::channel(SUBSCRIBER_EVENTS_MAX);
            let mut subscriber = Subscriber::new(&sender, String::new());
            let mut told = 0;
            for number in 0..read_first {
                sender.send(frame(number, About::Everyone)).unwrap();
                let text = subscriber.next().await.unwrap();
                assert!(text.starts_with(format!("id: {number}\n").as_bytes()));
                told += 1;
            }
            assert_eq!(told, read_first);
            for number in 0..SUBSCRIBER_EVENTS_MAX {
                sender.send(frame(number, About::Everyone)).unwrap();
            }
            assert!(subscriber.next().await.is_some(), "so many may wait");
            for number in 0..=2 * SUBSCRIBER_EVENTS_MAX {
                sender.send(frame(number, About::Everyone)).unwrap();
            }
            assert!(subscriber.next().await.is_none());
            assert!(subscriber.next().await.is_none(), "and stays so");
        }
    }
}
