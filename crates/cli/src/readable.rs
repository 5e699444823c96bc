//! Sizes, durations and counts as people read them.

use std::fmt::Display;
use std::time::Duration;

/// Writes a duration with its two greatest units: `230ms`, `4.2s`, `3m 20s`, `2h 5m`, `12d 3h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let of_two = |great: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{great}{unit}"),
        _ => format!("{great}{unit} {small}{sub}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 if duration.subsec_millis() >= 100 => format!("{seconds}.{}s", duration.subsec_millis() / 100),
        1..60 => format!("{seconds}s"),
        60..3600 => of_two(minutes, "m", seconds % 60, "s"),
        3600..86_400 => of_two(hours, "h", minutes % 60, "m"),
        _ => of_two(days, "d", hours % 24, "h"),
    }
}

/// Writes a size in binary units: `512 B`, `48.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, in whole numbers: no float has to be trusted with a byte count.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Writes a count with its noun: `1 worker`, `4 workers`.
pub(crate) fn count<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Numbers, one after another.
pub(crate) fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, count, duration};

    #[test]
    fn durations_have_two_units() {
        for (millis, text) in [
            (0, "0ms"),
            (230, "230ms"),
            (1000, "1s"),
            (4250, "4.2s"),
            (59_999, "59s"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
            (7_200_000, "2h"),
            (1_047_600_000, "12d 3h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn sizes_have_one_decimal() {
        for (size, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (50_541_363, "48.1 MiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!((count(1, "line"), count(2, "line")), ("1 line".into(), "2 lines".into()));
    }
}
