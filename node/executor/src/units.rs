//! Durations and sizes as Diego's log lines and reasons show them: the first as Go prints a
//! `time.Duration`, the second as Cloud Foundry's `bytefmt` does.

use std::time::Duration;

/// `0s`, `500ms`, `1m0.2s`, `1h0m0s`.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => {
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            let minutes = duration.as_secs() / 60;
            return match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            };
        }
    };
    format!("{}{name}", decimal(nanos, unit))
}

/// `nanos` in a unit, with as many decimals as it takes.
fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0digits$}").trim_end_matches('0'))
}

/// `0B`, `512B`, `1.5K`, `10M`: the largest unit that leaves at least 1, one decimal at most.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 60, "E"),
        (1 << 50, "P"),
        (1 << 40, "T"),
        (1 << 30, "G"),
        (1 << 20, "M"),
        (1 << 10, "K"),
    ];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let (tenths, rest) =
        (u128::from(bytes) * 10 / u128::from(unit), u128::from(bytes) * 10 % u128::from(unit));
    // To the nearest tenth, and from the middle to the even one, as Go's strconv does.
    let is_up = (rest * 2, tenths % 2) > (u128::from(unit), 0);
    let tenths = tenths + u128::from(is_up);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let table = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (10_000_000_000, "10s"),
            (60_000_000_000, "1m0s"),
            (60_200_000_000, "1m0.2s"),
            (245_000_000_000, "4m5s"),
            (3_600_000_000_000, "1h0m0s"),
            (18_367_001_000_000, "5h6m7.001s"),
        ];
        for (nanos, text) in table {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn sizes_are_written_as_bytefmt_writes_them() {
        let table = [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1280, "1.2K"),
            (1281, "1.3K"),
            (1382, "1.3K"),
            (1408, "1.4K"),
            (1536, "1.5K"),
            (1792, "1.8K"),
            (1_300_234, "1.2M"),
            (10 << 20, "10M"),
            (105_000_000, "100.1M"),
            (1 << 30, "1G"),
            (3 << 40, "3T"),
            (1 << 50, "1P"),
            (u64::MAX, "16E"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }
}
