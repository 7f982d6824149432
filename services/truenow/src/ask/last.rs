//! `--last 15m`: the time from so long ago until now.

use serde_json::Value;
use types::Timestamp;

use crate::failure::Failure;

/// Fills `start_time` and `end_time` of a question; the end is just after `now`, so that events of this moment count.
///
/// # Errors
/// The duration cannot be read, or the question says a time already.
pub(crate) fn fill(query: &mut Value, last: &str, now: Timestamp) -> Result<(), Failure> {
    let micros = micros(last)?;
    if query.get("start_time").is_some() || query.get("end_time").is_some() {
        return Err(Failure::new("--last and a start_time or end_time in the question contradict each other"));
    }
    query["start_time"] = now.saturating_add(-micros).0.into();
    query["end_time"] = now.saturating_add(1).0.into();
    Ok(())
}

fn micros(text: &str) -> Result<i64, Failure> {
    let wrong = || {
        Failure::new(format!("{text:?} is no duration")).hint("a number and a unit: ms, s, m, h or d, for example 15m")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit_us = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000_i64,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_none| wrong())?;
    number.checked_mul(unit_us).filter(|micros| *micros > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Goal: the range ends just after now and begins as long ago as was said; anything else is refused.
    #[test]
    fn last_becomes_a_range() {
        let mut query = json!({"namespace": "n"});
        fill(&mut query, "15m", Timestamp(1_000_000_000_000)).unwrap();
        assert_eq!(query["start_time"], 999_100_000_000_i64);
        assert_eq!(query["end_time"], 1_000_000_000_001_i64);
        assert!(fill(&mut query, "15m", Timestamp(0)).is_err(), "a time is there already");
        for wrong in ["", "m", "15", "15 m", "0s", "-1s", "1w", "99999999999999999d"] {
            assert!(fill(&mut json!({}), wrong, Timestamp(0)).is_err(), "{wrong}");
        }
    }
}
