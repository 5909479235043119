//! The links between nodes: which are cut, and what the weather does to one message. Pure: it
//! decides, somebody else carries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::rng::{PerMillion, Rng, nanos};

/// A node's number.
pub type NodeId = u64;

/// How messages fare on links that are not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The least that a message takes.
    pub delay_min: Duration,
    /// The most that an ordinary message takes.
    pub delay_max: Duration,
    /// How many messages are slow.
    pub slow: PerMillion,
    /// The most that a slow message takes.
    pub slow_max: Duration,
    /// How many messages are lost.
    pub loss: PerMillion,
    /// How many messages arrive twice, each time with a delay of its own.
    pub duplicate: PerMillion,
    /// Of the calls that cannot be answered any more, how many tell the caller at once, as a
    /// reset connection does. The others leave it waiting.
    pub reset: PerMillion,
    /// Whether a message may overtake an earlier one on the same link.
    pub reorder: bool,
}

impl Weather {
    /// A network with nothing wrong, half a millisecond away.
    pub const FAIR: Weather = Weather {
        delay_min: Duration::from_micros(100),
        delay_max: Duration::from_micros(500),
        slow: PerMillion::NEVER,
        slow_max: Duration::from_micros(500),
        loss: PerMillion::NEVER,
        duplicate: PerMillion::NEVER,
        reset: PerMillion::ALWAYS,
        reorder: false,
    };

    /// A mix of its own for each run: any of the faults may be absent, mild or heavy.
    pub fn draw(rng: &mut Rng) -> Self {
        let delay_max = *rng.pick(&[1, 2, 5, 20]);
        let slow_max = *rng.pick(&[50, 200, 1_000, 3_000]);
        Self {
            delay_min: Duration::from_micros(rng.below(200)),
            delay_max: Duration::from_millis(delay_max),
            slow: PerMillion(*rng.pick(&[0, 5_000, 20_000, 50_000])),
            slow_max: Duration::from_millis(slow_max),
            loss: PerMillion(*rng.pick(&[0, 1_000, 10_000, 30_000, 100_000])),
            duplicate: PerMillion(*rng.pick(&[0, 0, 5_000, 30_000])),
            reset: PerMillion(*rng.pick(&[0, 500_000, 1_000_000])),
            reorder: rng.chance(PerMillion(500_000)),
        }
    }
}

/// What becomes of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The link is cut.
    Cut,
    /// It is lost on the way.
    Lost,
    /// It arrives after this long.
    Once(Duration),
    /// It arrives after this long, and again after that long.
    Twice(Duration, Duration),
}

/// All links of a cluster.
#[derive(Debug)]
pub struct Links {
    weather: Weather,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// When the last message of a link arrives, in nanoseconds, where order is kept.
    last_arrival_ns: BTreeMap<(NodeId, NodeId), u64>,
    rng: Rng,
}

impl Links {
    /// Whole links in this weather.
    pub fn new(weather: Weather, rng: Rng) -> Self {
        Self { weather, cut: BTreeSet::new(), last_arrival_ns: BTreeMap::new(), rng }
    }

    /// Changes the weather for messages sent from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Cuts one direction: what `from` sends does not reach `to`.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Mends one direction.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    /// Mends every cut.
    pub fn mend_all(&mut self) {
        self.cut.clear();
    }

    /// Whether what `from` sends cannot reach `to`.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether a caller is told that its call is over.
    pub fn tells_reset(&mut self) -> bool {
        self.rng.chance(self.weather.reset)
    }

    /// Decides what becomes of a message sent now, which arrives at most once if `once`.
    pub fn send(&mut self, from: NodeId, to: NodeId, now: Duration, once: bool) -> Fate {
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        if self.rng.chance(self.weather.loss) {
            return Fate::Lost;
        }
        let first = self.delay(from, to, now);
        if self.rng.chance(self.weather.duplicate) && !once {
            let second = self.delay(from, to, now);
            return Fate::Twice(first, second);
        }
        Fate::Once(first)
    }

    fn delay(&mut self, from: NodeId, to: NodeId, now: Duration) -> Duration {
        let Weather { delay_min, delay_max, slow, slow_max, reorder, .. } = self.weather;
        let most = if self.rng.chance(slow) { slow_max } else { delay_max };
        let delay = self.rng.between(delay_min, most.max(delay_min));
        if reorder {
            return delay;
        }
        let last = self.last_arrival_ns.entry((from, to)).or_default();
        let arrival = nanos(now + delay).max(*last + 1);
        *last = arrival;
        Duration::from_nanos(arrival) - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORM: Weather = Weather {
        delay_min: Duration::from_micros(10),
        delay_max: Duration::from_millis(2),
        slow: PerMillion(100_000),
        slow_max: Duration::from_secs(1),
        loss: PerMillion(200_000),
        duplicate: PerMillion(100_000),
        reset: PerMillion::NEVER,
        reorder: true,
    };

    fn fates(weather: Weather, n: u64) -> Vec<Fate> {
        let mut links = Links::new(weather, Rng::stream(1, "links"));
        (0..n).map(|us| links.send(1, 2, Duration::from_micros(us), false)).collect()
    }

    #[test]
    fn fair_weather_loses_nothing_and_keeps_order() {
        let mut before = Duration::ZERO;
        for (sent_us, fate) in (0..).zip(fates(Weather::FAIR, 1000)) {
            let Fate::Once(delay) = fate else { panic!("{fate:?} in fair weather") };
            let arrival = Duration::from_micros(sent_us) + delay;
            assert!(arrival > before, "a message overtook another");
            before = arrival;
        }
    }

    #[test]
    fn a_storm_loses_doubles_delays_and_reorders() {
        let fates = fates(STORM, 10_000);
        let share = |which: fn(&Fate) -> bool| fates.iter().filter(|fate| which(fate)).count();
        assert!((1_800..2_200).contains(&share(|fate| *fate == Fate::Lost)));
        assert!((700..900).contains(&share(|fate| matches!(fate, Fate::Twice(..)))));
        let delays: Vec<Duration> = fates
            .iter()
            .filter_map(|fate| if let Fate::Once(delay) = fate { Some(*delay) } else { None })
            .collect();
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(500)));
        assert!(delays.iter().all(|delay| *delay >= STORM.delay_min && *delay <= STORM.slow_max));
        assert!(delays.windows(2).any(|pair| pair[1] + Duration::from_micros(1) < pair[0]));
    }

    #[test]
    fn a_cut_has_one_direction() {
        let mut links = Links::new(Weather::FAIR, Rng::stream(1, "links"));
        links.cut(1, 2);
        assert_eq!(links.send(1, 2, Duration::ZERO, false), Fate::Cut);
        assert!(matches!(links.send(2, 1, Duration::ZERO, false), Fate::Once(_)));
        links.mend_all();
        assert!(matches!(links.send(1, 2, Duration::ZERO, false), Fate::Once(_)));
    }

    #[test]
    fn every_kind_of_weather_is_drawn() {
        let drawn: Vec<Weather> =
            (0..200).map(|seed| Weather::draw(&mut Rng::stream(seed, "weather"))).collect();
        assert!(drawn.iter().any(|w| w.loss == PerMillion::NEVER));
        assert!(drawn.iter().any(|w| w.loss == PerMillion(100_000)));
        assert!(drawn.iter().any(|w| w.reorder) && drawn.iter().any(|w| !w.reorder));
        assert!(drawn.iter().any(|w| w.duplicate > PerMillion::NEVER));
        assert!(drawn.iter().all(|w| w.delay_min <= w.delay_max));
    }
}
