//! Event times as files write them, to microseconds since the epoch. What has no zone is UTC.

use jiff::{civil, fmt::strtime, tz};
use types::Timestamp;

use crate::failure::Failure;

/// How a column writes times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// Units since the epoch, with decimals if any.
    Epoch {
        /// Decimal digits of a microsecond in a unit: 6 for seconds.
        digits: usize,
    },
    /// RFC 3339, also with a space for the `T` and without a zone.
    Rfc3339,
    /// strptime's letters.
    Strptime(String),
}

impl TimeForm {
    /// A form as the command line names it.
    ///
    /// # Errors
    /// It is none, or its letters cannot make a time.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "s" => Ok(Self::Epoch { digits: 6 }),
            "ms" => Ok(Self::Epoch { digits: 3 }),
            "us" => Ok(Self::Epoch { digits: 0 }),
            "rfc3339" => Ok(Self::Rfc3339),
            format if format.contains('%') => Ok(Self::Strptime(format.to_owned())),
            other => Err(Failure::new(format!("{other:?} is no form of time"))
                .hint("s, ms, us, rfc3339, or strptime's letters such as %Y-%m-%d %H:%M:%S")),
        }
    }

    /// A time.
    ///
    /// # Errors
    /// What is wrong with the text and what would be right.
    pub(crate) fn read(&self, text: &str) -> Result<Timestamp, String> {
        match self {
            Self::Epoch { digits } => epoch(text, *digits),
            Self::Rfc3339 => rfc3339(text),
            Self::Strptime(format) => strptime(format, text),
        }
    }
}

/// Exact, without a detour by floats; digits beyond the microsecond are cut.
fn epoch(text: &str, digits: usize) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no number of time");
    let (negative, number) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(wrong());
    }
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(digits).collect();
    let micros: i64 = format!("{whole}{fraction}").parse().map_err(|_too_large| wrong())?;
    Ok(Timestamp(if negative { -micros } else { micros }))
}

fn rfc3339(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(time.as_microsecond()));
    }
    let civil: civil::DateTime = text.parse().map_err(|_neither| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{text:?} is a bare number: say its unit, --time COLUMN:s, :ms or :us")
        } else {
            format!("{text:?} is no RFC 3339 time such as 2026-01-31T12:00:00Z")
        }
    })?;
    utc(civil)
}

fn strptime(format: &str, text: &str) -> Result<Timestamp, String> {
    let parts =
        strtime::parse(format, text).map_err(|error| format!("{text:?} does not follow {format:?}: {error}"))?;
    if parts.offset().is_some() || parts.timestamp().is_some() {
        let time = parts.to_timestamp().map_err(|error| format!("{text:?} is no time: {error}"))?;
        return Ok(Timestamp(time.as_microsecond()));
    }
    let civil = parts
        .to_datetime()
        .or_else(|_no_time_of_day| parts.to_date().map(civil::DateTime::from))
        .map_err(|error| format!("{text:?} is no time: {error}"))?;
    utc(civil)
}

fn utc(civil: civil::DateTime) -> Result<Timestamp, String> {
    let time = tz::Offset::UTC.to_timestamp(civil).map_err(|error| format!("{civil} is out of range: {error}"))?;
    Ok(Timestamp(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each form gives the exact microsecond, before the epoch too, and UTC where no zone is said.
    #[test]
    fn times_are_exact() {
        for (form, text, want) in [
            ("s", "807249601", 807_249_601_000_000),
            ("s", "1700000000.123456789", 1_700_000_000_123_456),
            ("s", "-0.5", -500_000),
            ("ms", "1659304800025", 1_659_304_800_025_000),
            ("ms", "1.5", 1_500),
            ("us", "42", 42),
            ("rfc3339", "2015-09-12T00:47:35.776Z", 1_442_018_855_776_000),
            ("rfc3339", "2015-09-12T02:47:35.776+02:00", 1_442_018_855_776_000),
            ("rfc3339", "2010-12-01 08:26:00", 1_291_191_960_000_000),
            ("%d/%b/%Y:%H:%M:%S %z", "17/May/2015:10:05:03 +0000", 1_431_857_103_000_000),
            ("%d/%b/%Y:%H:%M:%S %z", "17/May/2015:12:05:03 +0200", 1_431_857_103_000_000),
            ("%m/%d/%Y %H:%M", "12/01/2010 08:26", 1_291_191_960_000_000),
            ("%Y-%m-%d", "2010-12-01", 1_291_161_600_000_000),
            ("%s", "807249601", 807_249_601_000_000),
        ] {
            assert_eq!(TimeForm::parse(form).unwrap().read(text), Ok(Timestamp(want)), "{form} {text}");
        }
    }

    /// Goal: what is no time is refused with a word on what would be right.
    #[test]
    fn bad_times_are_refused() {
        for (form, text) in [
            ("s", ""),
            ("s", "1e9"),
            ("s", "1.2.3"),
            ("us", "99999999999999999999"),
            ("rfc3339", "yesterday"),
            ("%Y", "2010"),
            ("%Y-%m-%d", "2010-02-30"),
        ] {
            assert!(TimeForm::parse(form).unwrap().read(text).is_err(), "{form} {text:?}");
        }
        let bare = TimeForm::Rfc3339.read("807249601").unwrap_err();
        assert!(bare.contains(":ms"), "{bare}");
        assert!(TimeForm::parse("seconds").is_err());
    }
}
