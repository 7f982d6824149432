//! Whether work may come in, by how far behind its application is and by the memory that is left: first a warning, then a
//! refusal, so that who watches knows before senders do.

use std::time::Duration;

/// A measure's two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits<T> {
    /// Above this the service is degraded.
    pub degraded: T,
    /// Above this nothing new is taken.
    pub refused: T,
}

/// The limits of the lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagLimits {
    /// Of the bytes that wait.
    pub bytes: Limits<u64>,
    /// Of the age of what waits longest.
    pub age: Limits<Duration>,
}

/// What a look at a lag comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// All is well.
    Well,
    /// It is worth a warning.
    Degraded,
    /// Nothing new is taken.
    Refused,
}

impl<T: PartialOrd> Limits<T> {
    fn judge(&self, value: &T) -> Standing {
        if *value > self.refused {
            Standing::Refused
        } else if *value > self.degraded {
            Standing::Degraded
        } else {
            Standing::Well
        }
    }
}

impl LagLimits {
    /// The worse of what the two measures say.
    #[must_use]
    pub fn judge(&self, bytes: u64, age: Duration) -> Standing {
        self.bytes.judge(&bytes).max(self.age.judge(&age))
    }
}

/// When to come back after a refusal: `least` and up to twice as much again, spread evenly by `salt` (SplitMix64's
/// finaliser), so that those who were refused together do not come back together.
#[must_use]
pub fn spread(least: Duration, salt: u64) -> Duration {
    let mut bits = salt.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    least + least.mul_f64(2.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a limit is a value that still passes, the worse measure decides, and what is below both is well.
    #[test]
    fn the_worse_measure_decides() {
        let s = Duration::from_secs;
        let limits =
            LagLimits { bytes: Limits { degraded: 10, refused: 20 }, age: Limits { degraded: s(2), refused: s(10) } };
        for (bytes, age, standing) in [
            (0, s(0), Standing::Well),
            (10, s(2), Standing::Well),
            (11, s(0), Standing::Degraded),
            (0, s(3), Standing::Degraded),
            (20, s(10), Standing::Degraded),
            (21, s(0), Standing::Refused),
            (0, s(11), Standing::Refused),
            (11, s(11), Standing::Refused),
        ] {
            assert_eq!(limits.judge(bytes, age), standing, "{bytes} bytes, {age:?}");
        }
    }

    /// Goal: times to come back lie in their range and fill it evenly, also for salts that differ by one.
    #[test]
    fn times_are_spread() {
        let least = Duration::from_secs(1);
        let mut thirds = [0; 3];
        for salt in 0..3_000 {
            let after = spread(least, salt);
            assert!((least..least * 3).contains(&after), "{after:?}");
            thirds[((after - least).as_millis() * 3 / 2_000) as usize] += 1;
        }
        assert!(thirds.iter().all(|third| (900..1_100).contains(third)), "{thirds:?}");
    }
}
