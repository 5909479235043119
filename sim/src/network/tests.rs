//! Calls over a network in fair and foul weather.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::rng::{PerMillion, Rng};
use crate::runtime::Clock;

type Net = Network<u64, u64>;

fn in_weather<F: Future>(weather: Weather, test: impl FnOnce(Net) -> F) -> F::Output {
    let network = Net::new(Links::new(weather, Rng::stream(1, "links")));
    SimRuntime::with_seed(1).block_on(test(network))
}

/// Attaches node `id`, which answers with the double and counts what it handles.
fn attach_doubler(network: &Net, id: NodeId) -> (Group, Arc<AtomicU64>) {
    let group = runtime::new_group(format!("node-{id}"), Clock::default());
    let handled = Arc::new(AtomicU64::new(0));
    let count = handled.clone();
    network.attach(
        id,
        group,
        Arc::new(move |_, n| {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { n * 2 })
        }),
    );
    (group, handled)
}

async fn call_within(network: &Net, wait: Duration) -> Option<Result<u64, CallError>> {
    SimRuntime::timeout(wait, network.call(1, 2, 21, Delivery::PerhapsTwice)).await.ok()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_call_is_answered() {
    in_weather(Weather::FAIR, async |network| {
        attach_doubler(&network, 2);
        assert_eq!(network.call(1, 2, 21, Delivery::PerhapsTwice).await, Ok(42));
        let there_and_back = runtime::true_time();
        assert!(there_and_back >= 2 * Weather::FAIR.delay_min);
        assert!(there_and_back <= 2 * Weather::FAIR.delay_max);
    });
}

#[test]
fn an_absent_node_resets_or_stays_silent() {
    in_weather(Weather::FAIR, async |network| {
        assert_eq!(call_within(&network, SECOND).await, Some(Err(CallError::Reset(2))));
        network.with_links(|links| {
            links.set_weather(Weather { reset: PerMillion::NEVER, ..Weather::FAIR });
        });
        assert_eq!(call_within(&network, SECOND).await, None);
    });
}

#[test]
fn a_cut_keeps_requests_or_answers_away() {
    in_weather(Weather::FAIR, async |network| {
        let (_, handled) = attach_doubler(&network, 2);
        network.with_links(|links| links.cut(1, 2));
        assert_eq!(call_within(&network, SECOND).await, Some(Err(CallError::Unreachable(2))));
        assert_eq!(handled.load(Ordering::Relaxed), 0);
        network.with_links(|links| {
            links.mend_all();
            links.cut(2, 1);
        });
        assert_eq!(call_within(&network, SECOND).await, Some(Err(CallError::Reset(2))));
        assert_eq!(handled.load(Ordering::Relaxed), 1, "the answer was lost, not the request");
    });
}

#[test]
fn a_doubled_request_is_handled_twice_and_answered_once() {
    let doubling = Weather { duplicate: PerMillion::ALWAYS, ..Weather::FAIR };
    in_weather(doubling, async |network| {
        let (_, handled) = attach_doubler(&network, 2);
        assert_eq!(network.call(1, 2, 21, Delivery::PerhapsTwice).await, Ok(42));
        SimRuntime::sleep(SECOND).await;
        assert_eq!(handled.load(Ordering::Relaxed), 2);
        assert_eq!(network.call(1, 2, 21, Delivery::Once).await, Ok(42));
        SimRuntime::sleep(SECOND).await;
        assert_eq!(handled.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_call_dies_with_the_node_called() {
    in_weather(Weather::FAIR, async |network| {
        let group = runtime::new_group("node-2", Clock::default());
        network.attach(2, group, Arc::new(|_, _| Box::pin(std::future::pending())));
        let caller = network.clone();
        let call =
            SimRuntime::spawn(async move { caller.call(1, 2, 21, Delivery::PerhapsTwice).await });
        SimRuntime::sleep(SECOND).await;
        assert_eq!(runtime::tasks_of(group), 1);
        network.detach(2);
        runtime::kill(group);
        assert_eq!(call.await.unwrap(), Err(CallError::Reset(2)));
    });
}
