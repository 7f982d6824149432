//! The pace of work, from looks at a total that only rises.

use std::time::Duration;

use crate::Monotonic;

/// Looks that count.
const LOOKS: usize = 8;
/// Looks that follow each other sooner are one: a pace over less would be that of chance.
const BETWEEN_LEAST: Duration = Duration::from_millis(100);

/// How fast a total rises: the greatest pace between two looks, of the last eight.
///
/// The greatest, because work that comes in groups ends in jumps, and because a pause in which nobody sent says nothing of how
/// fast work can be done. A pace that is no more reached is forgotten after eight looks.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<(Monotonic, u64)>,
    per_second: [f64; LOOKS],
    next: usize,
}

impl Pace {
    /// Takes in what the total is at a time.
    pub fn look(&mut self, total: u64, at: Monotonic) {
        let Some((before, known)) = self.last else {
            self.last = Some((at, total));
            return;
        };
        let between = at.since(before);
        if between < BETWEEN_LEAST {
            return;
        }
        self.per_second[self.next] = total.saturating_sub(known) as f64 / between.as_secs_f64();
        self.next = (self.next + 1) % LOOKS;
        self.last = Some((at, total));
    }

    /// How much is done within a time.
    #[must_use]
    pub fn within(&self, time: Duration) -> u64 {
        // Saturates, as a cast does.
        (self.per_second.iter().copied().fold(0.0, f64::max) * time.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_elapsed(Duration::from_millis(millis))
    }

    /// Goal: the pace is the greatest of eight looks, over the time that really passed, and what was before them counts no more.
    #[test]
    fn the_greatest_of_the_last_looks_counts() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert_eq!(pace.within(second), 0);
        pace.look(5_000, at(0));
        assert_eq!(pace.within(second), 0, "what was before the first look has no pace");
        pace.look(5_250, at(250));
        assert_eq!((pace.within(second), pace.within(second / 2)), (1_000, 500));
        pace.look(5_750, at(1_250));
        pace.look(9_999, at(1_300));
        assert_eq!(pace.within(second), 1_000, "neither a late look nor one that came too soon counts for more");
        pace.look(9_750, at(1_750));
        assert_eq!(pace.within(second), 8_000);
        for n in 1..LOOKS as u64 {
            pace.look(9_750 + n, at(1_750 + n * 250));
        }
        assert_eq!(pace.within(second), 8_000);
        pace.look(9_758, at(3_750));
        assert_eq!(pace.within(second), 4);
    }
}
