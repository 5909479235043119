//! Sizes, waits and moments, as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Millis;

/// Reads a size in mebibytes: a whole number with `M`, `MB`, `G`, `GB`, `T` or `TB`, as Cloud
/// Foundry takes it.
///
/// # Errors
///
/// Says what a size looks like.
pub(crate) fn parse_mebibytes(text: &str) -> Result<i32, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale: i64 = match unit.to_ascii_uppercase().as_str() {
        "M" | "MB" | "MIB" => 1,
        "G" | "GB" | "GIB" => 1 << 10,
        "T" | "TB" | "TIB" => 1 << 20,
        _ => return Err("a size is a whole number with M, G or T, for instance 256M".to_owned()),
    };
    let number: i64 = number.parse().map_err(|_| "a size starts with a whole number".to_owned())?;
    let mebibytes = number.checked_mul(scale).and_then(|size| i32::try_from(size).ok());
    match mebibytes {
        Some(0) => Err("a size is at least 1M".to_owned()),
        Some(mebibytes) => Ok(mebibytes),
        None => Err("that is more than any machine has".to_owned()),
    }
}

/// Reads a wait: a whole number of seconds, or of `ms`, `s`, `m` or `h`.
///
/// # Errors
///
/// Says what a wait looks like.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let bad =
        || "a wait is a whole number of seconds, or with ms, s, m or h: 90, 90s, 2m".to_owned();
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(bad()),
    };
    // A hundred years: what is added to a clock must not pass its end.
    const LONGEST: u64 = 100 * 366 * 86_400_000;
    millis.filter(|millis| *millis <= LONGEST).map(Duration::from_millis).ok_or_else(bad)
}

/// `256M`, `1G`, `1.5G`; nothing is unlimited.
pub(crate) fn mebibytes(size: u64) -> String {
    match size {
        0 => "unlimited".to_owned(),
        1..1024 => format!("{size}M"),
        _ if size.is_multiple_of(1024) => format!("{}G", size / 1024),
        _ => format!("{}.{}G", size / 1024, size % 1024 * 10 / 1024),
    }
}

/// As [`mebibytes`], of what a definition says; negative sizes are refused before they get here.
pub(crate) fn defined_mebibytes(size: i32) -> String {
    mebibytes(u64::try_from(size).unwrap_or(0))
}

/// `812 B`, `3.2 KiB`, `41.0 MiB`.
pub(crate) fn bytes(size: u64) -> String {
    let tenths = |unit: u64| (size / unit, size % unit * 10 / unit);
    let (unit, (whole, tenth)) = match size {
        0..1024 => return format!("{size} B"),
        1024..0x10_0000 => ("KiB", tenths(1 << 10)),
        0x10_0000..0x4000_0000 => ("MiB", tenths(1 << 20)),
        _ => ("GiB", tenths(1 << 30)),
    };
    format!("{whole}.{tenth} {unit}")
}

/// The two largest units: `400ms`, `12s`, `5m 3s`, `2h 5m`, `3d 4h`.
pub(crate) fn duration(wait: Duration) -> String {
    let secs = wait.as_secs();
    let pair = |large: u64, name: &str, small: u64, small_name: &str| match secs % large / small {
        0 => format!("{}{name}", secs / large),
        rest => format!("{}{name} {rest}{small_name}", secs / large),
    };
    match secs {
        0 => format!("{}ms", wait.as_millis()),
        1..60 => format!("{secs}s"),
        60..3600 => pair(60, "m", 1, "s"),
        3600..86_400 => pair(3600, "h", 60, "m"),
        _ => pair(86_400, "d", 3600, "h"),
    }
}

/// How long ago a moment of the cluster's clock was; a clock that runs ahead counts as now.
pub(crate) fn ago(moment: Millis, now: Millis) -> String {
    let wait = Duration::from_millis((now - moment).0);
    if wait < Duration::from_secs(1) { "now".to_owned() } else { format!("{} ago", duration(wait)) }
}

/// This machine's clock.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as `cf logs` prints it, in UTC: `2026-11-23T10:51:24.56+0000`.
pub(crate) fn log_stamp(at_ns: i64) -> String {
    let seconds = at_ns.div_euclid(1_000_000_000);
    let hundredths = at_ns.rem_euclid(1_000_000_000) / 10_000_000;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{hundredths:02}+0000")
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // from 0000-03-01: the leap day ends the year
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [("256M", 256), ("1G", 1024), ("2gb", 2048), ("1T", 1 << 20)] {
            assert_eq!(parse_mebibytes(text), Ok(size), "{text}");
        }
        for text in ["", "M", "256", "1.5G", "-1M", "1K", "0M", "9999T", "99999999999999999999M"] {
            assert!(parse_mebibytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn waits_have_units() {
        for (text, millis) in [("90", 90_000), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "1d", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_two_units() {
        let table = [
            (400, "400ms"),
            (12_999, "12s"),
            (303_000, "5m 3s"),
            (300_000, "5m"),
            (7_500_000, "2h 5m"),
            (273_600_000, "3d 4h"),
        ];
        for (millis, text) in table {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(ago(Millis(5000), Millis(1000)), "now");
        assert_eq!(ago(Millis(5000), Millis(8000)), "3s ago");
        let sizes = [(0, "unlimited"), (256, "256M"), (1024, "1G"), (1536, "1.5G")];
        assert!(sizes.iter().all(|(size, text)| mebibytes(*size) == *text));
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(3_300_000), "3.1 MiB");
    }

    #[test]
    fn stamps_are_dates() {
        let secs = |secs: i64| log_stamp(secs * 1_000_000_000);
        assert_eq!(secs(0), "1970-01-01T00:00:00.00+0000");
        assert_eq!(secs(951_782_400), "2000-02-29T00:00:00.00+0000");
        assert_eq!(secs(4_107_542_399), "2100-02-28T23:59:59.00+0000");
        assert_eq!(secs(4_107_542_400), "2100-03-01T00:00:00.00+0000");
        assert_eq!(secs(-1), "1969-12-31T23:59:59.00+0000");
        assert_eq!(log_stamp(1_234_567_890_569_000_000), "2009-02-13T23:31:30.56+0000");
    }
}
