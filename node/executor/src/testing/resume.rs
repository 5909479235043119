//! The node's death at every point of a recipe, and what becomes of the recipe in its next life.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::World;
use crate::Outcome;

/// Kills the node before and after each thing that a recipe does, in some lives soon again, and
/// lets the recipe be executed again. However often the node dies: each process is started at most
/// once, but for a monitor's, the outcome is the same, and no line is told twice; missing are at
/// most those that it was about to tell.
pub(crate) async fn resumes(world: impl Fn() -> World, stop_after: Option<u64>) {
    let whole = world();
    let (expected, lines) = live(&whole, stop_after).await;
    let points = whole.sandbox.points();
    assert!(points > 0);
    for first in 1..=points {
        // A second death soon after the first, in the first things that it does again; and a life
        // that begins at once, or after a while, in which nobody is told to stop.
        let long_ms = if stop_after.is_some() { 30 } else { 7000 };
        let deaths =
            [(None, 0), (None, long_ms), (Some(1), 0), (Some(2), 0), (Some(5), 10), (Some(8), 0)];
        for (second, dead_ms) in deaths {
            let world = world();
            let death = Death { first, second, dead_ms };
            let (outcome, seen) = die(&world, death, stop_after).await;
            let story = world.sandbox.story();
            let context = format!("{death:?}:\n{story}");
            assert_eq!(outcome, expected, "{context}");
            let starts = world.sandbox.state().starts.clone();
            for (key, starts) in counted(&starts) {
                let is_monitors = key.starts_with("monitor");
                assert!(starts == 1 || is_monitors, "{key} was started again; {context}");
            }
            let deaths = 1 + usize::from(second.is_some());
            let mut missing = 0;
            let (wanted, seen) = (counted(&lines), counted(&seen));
            for (line, times) in &seen {
                assert!(wanted.get(line).is_some_and(|most| times <= most), "{line}; {context}");
            }
            for (line, times) in &wanted {
                missing += times - seen.get(line).unwrap_or(&0);
            }
            // Nobody tells of what would have begun while the node was dead.
            assert!(missing <= deaths || dead_ms > 0, "{missing} lines are missing; {context}");
        }
    }
}

async fn live(world: &World, stop_after: Option<u64>) -> (Outcome, Vec<String>) {
    let outcome = run(world, stop_after).await.expect("nothing kills it");
    let again = world.execute(CancellationToken::new()).await;
    assert_eq!(again, outcome, "an outcome that is known is told again");
    (outcome, world.sandbox.state().lines.clone())
}

#[derive(Clone, Copy, Debug)]
struct Death {
    /// The point at which it dies.
    first: usize,
    /// How many points further it dies again.
    second: Option<usize>,
    /// How long it is dead, each time.
    dead_ms: u64,
}

async fn die(world: &World, death: Death, stop_after: Option<u64>) -> (Outcome, Vec<String>) {
    let deaths = [Some(death.first), death.second.map(|second| death.first + second), None];
    for dies_at in deaths.into_iter().skip_while(Option::is_none) {
        world.sandbox.state().dies_at = dies_at;
        if let Some(outcome) = run(world, stop_after).await {
            return (outcome, world.sandbox.state().lines.clone());
        }
        world.sandbox.tell("the node has died");
        tokio::time::sleep(Duration::from_millis(death.dead_ms)).await;
    }
    unreachable!("nothing kills its last life");
}

/// One life of the node; none where it dies.
async fn run(world: &World, stop_after: Option<u64>) -> Option<Outcome> {
    let stop = CancellationToken::new();
    let stopping = async {
        if let Some(millis) = stop_after {
            world.sandbox.at(millis).await;
            stop.cancel();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = world.sandbox.killed() => None,
        outcome = world.execute(stop.clone()) => Some(outcome),
        () = stopping => None,
    }
}

fn counted(texts: &[String]) -> BTreeMap<&String, usize> {
    let mut counted = BTreeMap::new();
    for text in texts {
        *counted.entry(text).or_default() += 1;
    }
    counted
}
