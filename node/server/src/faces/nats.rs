//! Tells Gorouters over NATS of this cell's instances: Diego's route-emitter. What is said, and
//! when it changes, is the [feed](router::feed)'s; here it is said, and how often.
//!
//! A server that is lost holds nothing up: meanwhile nothing is kept but the feed itself, and when
//! the line is there again everything is told anew.

mod line;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use router::Feed;
use router::feed::{Audience, Telling};
use serde::Deserialize;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::line::Line;
use crate::config::RouteEmitterConfig;
use crate::limits::{
    NATS_FAREWELL_MAX, NATS_QUEUE_WAIT, ROUTES_GREETING_PAUSE, ROUTES_GREETINGS_MAX,
    ROUTES_REGISTER_INTERVAL, ROUTES_REGISTER_INTERVAL_MAX, ROUTES_REGISTER_INTERVAL_MIN,
    ROUTES_WITHDRAWAL_PAUSE, ROUTES_WITHDRAWALS_MAX,
};
use crate::records::News;

/// A feed that is followed in one place and told from another.
pub(crate) struct SharedFeed {
    feed: Mutex<Feed>,
    has_changed: Notify,
}

impl SharedFeed {
    pub(crate) fn new(feed: Feed) -> Arc<Self> {
        Arc::new(Self { feed: Mutex::new(feed), has_changed: Notify::new() })
    }

    pub(crate) fn follow(&self, news: &News<'_>) {
        match news {
            News::Events(events) => {
                let mut feed = self.lock();
                events.iter().for_each(|(_, event)| feed.apply(event));
            }
            News::Anew(state) => self.lock().sync(state),
        }
        self.has_changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often things are said. Tests are quicker.
#[derive(Clone, Copy, Debug)]
struct Pace {
    registration: Duration,
    greeting: Duration,
    withdrawal: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            registration: ROUTES_REGISTER_INTERVAL,
            greeting: ROUTES_GREETING_PAUSE,
            withdrawal: ROUTES_WITHDRAWAL_PAUSE,
        }
    }
}

/// What part of an interval registrations that many cells would send at once are spread over.
/// Diego: `jitter_factor`.
const JITTER: f64 = 0.2;

/// The task that speaks to NATS.
pub(crate) struct Emitter {
    end: oneshot::Sender<Last>,
    task: JoinHandle<()>,
}

/// What a node that ends says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// Nothing: its instances go on, and so do their routes until they are stale.
    Nothing,
    /// That its routes lead nowhere any more.
    Withdrawals,
}

impl Emitter {
    pub(crate) fn start(config: &RouteEmitterConfig, cell: &str, feed: Arc<SharedFeed>) -> Self {
        Self::at_pace(config, cell, feed, Pace::default())
    }

    fn at_pace(config: &RouteEmitterConfig, cell: &str, feed: Arc<SharedFeed>, pace: Pace) -> Self {
        let (end, ending) = oneshot::channel();
        let audiences = if config.internal_routes {
            vec![Audience::Routers, Audience::ServiceDiscovery]
        } else {
            vec![Audience::Routers]
        };
        let (config, cell) = (config.clone(), cell.to_owned());
        let task = tokio::spawn(async move {
            let (client, line) = match line::open(&config, &cell).await {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!(%error, "no router is told of routes: NATS cannot be used");
                    return;
                }
            };
            match Emission::begin(client, line, feed, audiences, pace).await {
                Ok(emission) => emission.run(ending).await,
                Err(error) => {
                    tracing::error!(%error, "no router is told of routes: NATS is not heard");
                }
            }
        });
        Self { end, task }
    }

    /// Ends, with last words if they can be said soon.
    pub(crate) async fn end(mut self, last: Last) {
        // Who has ended already says nothing.
        let _ = self.end.send(last);
        if timeout(NATS_FAREWELL_MAX, &mut self.task).await.is_err() {
            tracing::warn!("NATS takes no last words: the routes of this cell go stale");
            self.task.abort();
        }
    }
}

/// What a router says of itself when it starts, and when it is greeted (Gorouter: `RouterStart`).
#[derive(Deserialize)]
struct Start {
    #[serde(rename = "minimumRegisterIntervalInSeconds")]
    interval_seconds: u64,
}

/// When one audience is told next.
#[derive(Debug)]
struct Schedule {
    audience: Audience,
    /// Where its answers to greetings go.
    inbox: String,
    interval: Duration,
    next_registration: Instant,
    next_greeting: Option<Instant>,
    greetings: u32,
}

/// Which schedule a message is about, and whether it answers a greeting.
#[derive(Clone, Copy)]
struct Channel {
    schedule: usize,
    is_answer: bool,
}

struct Emission {
    client: Client,
    line: watch::Receiver<Line>,
    feed: Arc<SharedFeed>,
    pace: Pace,
    schedules: Vec<Schedule>,
    next_withdrawal: Instant,
    heard: SelectAll<futures_util::stream::BoxStream<'static, (Channel, Message)>>,
}

impl Emission {
    async fn begin(
        client: Client,
        line: watch::Receiver<Line>,
        feed: Arc<SharedFeed>,
        audiences: Vec<Audience>,
        pace: Pace,
    ) -> Result<Self, async_nats::SubscribeError> {
        let now = Instant::now();
        let mut schedules = Vec::new();
        let mut heard = Vec::new();
        for (schedule, audience) in audiences.into_iter().enumerate() {
            let inbox = client.new_inbox();
            let starts = client.subscribe(format!("{}.start", audience.name())).await?;
            let answers = client.subscribe(inbox.clone()).await?;
            let on = |subscriber: Subscriber, is_answer| {
                let channel = Channel { schedule, is_answer };
                subscriber.map(move |message| (channel, message)).boxed()
            };
            heard.extend([on(starts, false), on(answers, true)]);
            schedules.push(Schedule {
                audience,
                inbox,
                interval: pace.registration,
                next_registration: now + pace.registration,
                next_greeting: Some(now),
                greetings: 0,
            });
        }
        let (next_withdrawal, heard) = (now + pace.withdrawal, select_all(heard));
        Ok(Self { client, line, feed, pace, schedules, next_withdrawal, heard })
    }

    async fn run(mut self, mut ending: oneshot::Receiver<Last>) {
        let mut told: u64 = 0;
        loop {
            let due = self.due();
            tokio::select! {
                last = &mut ending => {
                    self.part(last.unwrap_or(Last::Nothing)).await;
                    return;
                }
                changed = self.line.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let line = *self.line.borrow_and_update();
                    if line.is_up && line.times != told {
                        self.greet_anew(told == 0);
                        told = line.times;
                    }
                }
                () = self.feed.has_changed.notified() => self.tell_changes().await,
                Some((channel, message)) = self.heard.next() => self.hear(channel, &message),
                () = sleep_until(due) => self.tell_what_is_due().await,
            }
        }
    }

    fn is_up(&self) -> bool {
        self.line.borrow().is_up
    }

    /// A line that is there again: everything is told, as nobody knows what was heard. Not by all
    /// cells at once, where one server had them all.
    fn greet_anew(&mut self, is_first: bool) {
        let now = Instant::now();
        for schedule in &mut self.schedules {
            let pause = if is_first { Duration::ZERO } else { jitter(schedule.interval) };
            schedule.next_registration = now + pause;
            schedule.next_greeting = Some(now);
            schedule.greetings = 0;
        }
        self.next_withdrawal = now;
    }

    fn due(&self) -> Instant {
        let schedules = self.schedules.iter();
        let each = schedules.flat_map(|schedule| {
            [Some(schedule.next_registration), schedule.next_greeting].into_iter().flatten()
        });
        each.chain([self.next_withdrawal]).min().expect("withdrawals are always due some time")
    }

    async fn tell_what_is_due(&mut self) {
        let now = Instant::now();
        for at in 0..self.schedules.len() {
            let schedule = &self.schedules[at];
            let audience = schedule.audience;
            if schedule.next_greeting.is_some_and(|due| due <= now) {
                self.greet(at).await;
            }
            if self.schedules[at].next_registration <= now {
                let registrations = self.feed.lock().registrations(audience);
                tracing::debug!(
                    to = audience.name(),
                    count = registrations.len(),
                    "routes are told"
                );
                self.tell(registrations).await;
                let schedule = &mut self.schedules[at];
                schedule.next_registration = Instant::now() + schedule.interval;
            }
        }
        if self.next_withdrawal <= now {
            if self.is_up() {
                let withdrawals = self.feed.lock().repeat_withdrawals(ROUTES_WITHDRAWALS_MAX);
                self.tell(withdrawals).await;
            }
            self.next_withdrawal = Instant::now() + self.pace.withdrawal;
        }
    }

    async fn greet(&mut self, at: usize) {
        let pause = self.pace;
        let is_up = self.is_up();
        let schedule = &mut self.schedules[at];
        let is_patient = schedule.greetings >= ROUTES_GREETINGS_MAX;
        schedule.next_greeting =
            Some(Instant::now() + if is_patient { schedule.interval } else { pause.greeting });
        if !is_up {
            return;
        }
        schedule.greetings = schedule.greetings.saturating_add(1);
        let (subject, inbox) =
            (format!("{}.greet", schedule.audience.name()), schedule.inbox.clone());
        let greeting = self.client.publish_with_reply(subject, inbox, Vec::new().into());
        if !matches!(timeout(NATS_QUEUE_WAIT, greeting).await, Ok(Ok(()))) {
            tracing::debug!("a greeting of routers is not taken by NATS");
        }
    }

    async fn tell_changes(&mut self) {
        // Without a line they are forgotten: with the next one everything is told.
        let changes = self.feed.lock().take_changes();
        self.tell(changes).await;
    }

    async fn tell(&mut self, tellings: Vec<Telling>) {
        if !self.is_up() {
            return;
        }
        for telling in tellings {
            let payload = telling.message.to_bytes().into();
            let told = self.client.publish(telling.subject(), payload);
            match timeout(NATS_QUEUE_WAIT, told).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let uris = &telling.message.uris;
                    tracing::warn!(%error, ?uris, "routers cannot be told of a route");
                }
                Err(_) => {
                    tracing::warn!(
                        "NATS takes no more messages; the rest is told with the next registrations"
                    );
                    return;
                }
            }
        }
    }

    fn hear(&mut self, channel: Channel, message: &Message) {
        let schedule = &mut self.schedules[channel.schedule];
        let to = schedule.audience.name();
        let Ok(Start { interval_seconds }) = serde_json::from_slice(&message.payload) else {
            tracing::warn!(subject = %message.subject, "a router's start cannot be read");
            return;
        };
        let asked = Duration::from_secs(interval_seconds);
        let interval = asked.clamp(ROUTES_REGISTER_INTERVAL_MIN, ROUTES_REGISTER_INTERVAL_MAX);
        let is_first = schedule.next_greeting.take().is_some();
        if is_first || interval != schedule.interval {
            let seconds = interval.as_secs();
            tracing::info!(
                to,
                seconds,
                "routes are registered anew at the interval that is asked for"
            );
        }
        schedule.interval = interval;
        let now = Instant::now();
        if channel.is_answer {
            schedule.next_registration = schedule.next_registration.min(now + interval);
        } else {
            // One that has just started knows nothing.
            schedule.next_registration = now + jitter(interval);
        }
    }

    async fn part(&mut self, last: Last) {
        if last == Last::Withdrawals {
            self.feed.lock().withdraw_all();
        }
        self.tell_changes().await;
        if self.is_up()
            && let Err(error) = self.client.flush().await
        {
            tracing::debug!(%error, "NATS did not take the last words");
        }
    }
}

/// Some part of the first of an interval.
fn jitter(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.0..JITTER))
}
