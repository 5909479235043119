//! Streams of events, as server-sent events (bbs-wire.md section 3).

use std::convert::Infallible;
use std::future::{Ready, ready};

use api::bbs::messages as bbs;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prost::Message;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::Instant;

use super::BbsFace;
use super::hub::{Frame, Stream, Subscription};
use crate::limits::{SUBSCRIBER_PACE, SUBSCRIBER_PACE_MAX};

/// Bytes that one write to a subscriber gathers, of what waits for it.
const WRITE_BYTES: usize = 64 << 10;

/// The handler of a stream; a body would not be looked at.
pub(super) fn all(stream: Stream) -> impl Fn(State<BbsFace>) -> Ready<Response> + Clone {
    move |State(face)| ready(subscribe(&face, stream, ""))
}

/// The handler of a stream that is narrowed to one cell, where the request names it.
pub(super) fn of_cell(
    stream: Stream,
) -> impl Fn(State<BbsFace>, Result<Bytes, BytesRejection>) -> Ready<Response> + Clone {
    move |State(face), body| {
        let narrowed = match body {
            Ok(body) => bbs::EventsByCellId::decode(body).map_err(|error| error.to_string()),
            Err(error) => Err(error.body_text()),
        };
        ready(match narrowed {
            Ok(bbs::EventsByCellId { cell_id }) => subscribe(&face, stream, &cell_id),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
        })
    }
}

fn subscribe(face: &BbsFace, stream: Stream, cell_id: &str) -> Response {
    let subscriber = Subscriber::new(face.hub.subscribe(stream, cell_id));
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
    subscription: Subscription,
    /// Events that it was told: the number of the next.
    told: u64,
    /// Others are told before it is, until then.
    rests_until: Instant,
    /// The node ends; or it did not keep up, and what would come next is lost.
    is_over: bool,
}

impl Subscriber {
    fn new(subscription: Subscription) -> Self {
        Self { subscription, told: 0, rests_until: Instant::now(), is_over: false }
    }

    /// What waits for it, once something does. Nothing when the stream ends: the node does, or the
    /// subscriber did not keep up.
    ///
    /// What comes while many subscribers are told is gathered, so that telling them leaves the
    /// processor to others: see [`SUBSCRIBER_PACE`].
    async fn next(&mut self) -> Option<Bytes> {
        self.subscription.rest(self.rests_until).await;
        if self.is_over {
            return None;
        }
        let Ok(frame) = self.subscription.events.recv().await else {
            self.is_over = true;
            return None;
        };
        let waiting = self.subscription.events.len();
        let room = (waiting + 1) * (frame.len() + "id: 12345678\n".len());
        let mut text = Vec::with_capacity(room.min(WRITE_BYTES));
        self.write(&frame, &mut text);
        if self.gather(&mut text) {
            let pace = SUBSCRIBER_PACE * self.subscription.subscribers();
            self.rests_until = Instant::now() + pace.min(SUBSCRIBER_PACE_MAX);
        }
        Some(text.into())
    }

    /// What else is there already. Returns whether that was all.
    fn gather(&mut self, text: &mut Vec<u8>) -> bool {
        while text.len() < WRITE_BYTES {
            match self.subscription.events.try_recv() {
                Ok(frame) => self.write(&frame, text),
                Err(TryRecvError::Lagged(_)) => {
                    self.is_over = true;
                    return false;
                }
                // Whether it is at its end is told by the next look.
                Err(TryRecvError::Empty | TryRecvError::Closed) => return true,
            }
        }
        false
    }

    fn write(&mut self, frame: &Frame, text: &mut Vec<u8>) {
        text.extend(format!("id: {}\n", self.told).as_bytes());
        text.extend_from_slice(frame);
        self.told += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::bbs::event::About;

    use super::super::hub::{Hub, Of};
    use super::*;
    use crate::limits::SUBSCRIBER_EVENTS_MAX;

    const STREAM: Stream = Stream::new(Of::Instances);

    fn tell(hub: &Hub, number: usize, about: About) {
        hub.send(STREAM, &about, &format!("event: e\ndata: {number}\n\n").into());
    }

    #[tokio::test]
    async fn events_are_numbered_for_each_stream_and_gathered() {
        let hub = Hub::new();
        let mut subscriber = Subscriber::new(hub.subscribe(STREAM, "a"));
        for (number, cell) in ["a", "b", "a"].into_iter().enumerate() {
            tell(&hub, number, About::Cells([cell.into()].into()));
        }
        let text = subscriber.next().await.unwrap();
        let expected = "id: 0\nevent: e\ndata: 0\n\nid: 1\nevent: e\ndata: 2\n\n";
        assert_eq!(text, expected);
        hub.cut_off();
        assert_eq!(subscriber.next().await, None);
    }

    /// Whatever moment it falls behind at: what it was told is without a gap.
    #[tokio::test]
    async fn who_does_not_keep_up_is_cut_off() {
        for read_first in [0, 1, 2] {
            let hub = Hub::new();
            let mut subscriber = Subscriber::new(hub.subscribe(STREAM, ""));
            let mut told = 0;
            for number in 0..read_first {
                tell(&hub, number, About::Everyone);
                let text = subscriber.next().await.unwrap();
                assert!(text.starts_with(format!("id: {number}\n").as_bytes()));
                told += 1;
            }
            assert_eq!(told, read_first);
            for number in 0..SUBSCRIBER_EVENTS_MAX {
                tell(&hub, number, About::Everyone);
            }
            assert!(subscriber.next().await.is_some(), "so many may wait");
            for number in 0..=2 * SUBSCRIBER_EVENTS_MAX {
                tell(&hub, number, About::Everyone);
            }
            assert!(subscriber.next().await.is_none());
            assert!(subscriber.next().await.is_none(), "and stays so");
        }
    }

    /// Subscribers of a hub that many share.
    fn of_many(hub: &Hub, count: usize) -> (Subscriber, Vec<Subscription>) {
        let others = (1..count).map(|_| hub.subscribe(STREAM, "")).collect();
        (Subscriber::new(hub.subscribe(STREAM, "")), others)
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_many_is_told_at_once_and_then_at_their_pace() {
        let hub = Hub::new();
        let (mut subscriber, _others) = of_many(&hub, 1000);
        let begun = Instant::now();
        tell(&hub, 0, About::Everyone);
        assert!(subscriber.next().await.is_some());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tell(&hub, 1, About::Everyone);
        tell(&hub, 2, About::Everyone);
        let text = subscriber.next().await.unwrap();
        assert_eq!(text, "id: 1\nevent: e\ndata: 1\n\nid: 2\nevent: e\ndata: 2\n\n");
        let pace = begun.elapsed();
        assert!((SUBSCRIBER_PACE * 1000..SUBSCRIBER_PACE * 1010).contains(&pace), "{pace:?}");
    }

    #[test]
    fn the_pace_counts_subscribers_that_are_there() {
        let hub = Hub::new();
        let handles = [hub.clone(), hub];
        let one = handles[0].subscribe(STREAM, "");
        let other = handles[1].subscribe(STREAM, "a");
        assert_eq!(one.subscribers(), 2);
        drop(other);
        assert_eq!(one.subscribers(), 1);
    }
}
