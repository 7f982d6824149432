//! Heavy hitters: the items that came most often, with what their counts can be too low by.
//!
//! A Misra-Gries summary in the mergeable form of Agarwal, Cormode, Huang, Phillips, Wei and Yi ("Mergeable summaries",
//! 2012), pruned in batches.
//!
//! 1. Up to 2,048 items have a counter. Where one more comes, the 1,025th largest count is taken off all of them, and those
//!    that had no more are dropped: at most 1,024 stay.
//! 2. What was taken off adds up to `undercount`. A true count lies between the counter (0 for an item without one) and
//!    `undercount` more. Each pruning takes at least 1,025 times its share off the counters, so `undercount` is at most
//!    1/1025 of all that came, and 0 while there were at most 2,048 items.
//! 3. What stays depends on the counts alone, never on how a table orders its items: the same calls in the same order give
//!    the same summary.

use hashbrown::HashMap;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, Reader, Writer, checked_rows},
};

/// How many items stay when the summary is pruned.
const KEPT_MAX: usize = 1_024;
/// How many items have a counter at most.
const ITEMS_MAX: usize = 2 * KEPT_MAX;

/// The items that came most often; see the module's rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeavyHitters {
    counts: HashMap<Box<str>, u64>,
    /// Bytes of all items.
    item_bytes: usize,
    undercount: u64,
    total: u64,
}

/// An item that came often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hitter<'a> {
    /// The item.
    pub item: &'a str,
    /// It came at least this often, and at most [`HeavyHitters::undercount`] times more.
    pub count: u64,
}

impl HeavyHitters {
    /// Counts an item `count` times.
    pub fn add(&mut self, item: &str, count: u64) {
        self.total += count;
        self.add_counter(item, count);
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.undercount += other.undercount;
        // Pruning depends on which items came before: they come in the order of their bytes.
        for (item, count) in other.sorted() {
            self.add_counter(item, count);
        }
    }

    /// The `k` items with the largest counters: by count descending, then by the bytes of the item. Any item that is not
    /// listed came at most [`Self::undercount`] times more than the last one listed.
    #[must_use]
    pub fn top(&self, k: usize) -> Vec<Hitter<'_>> {
        let mut hitters: Vec<Hitter<'_>> = self.counts.iter().map(|(item, &count)| Hitter { item, count }).collect();
        let order = |a: &Hitter<'_>, b: &Hitter<'_>| b.count.cmp(&a.count).then_with(|| a.item.cmp(b.item));
        if k < hitters.len() {
            hitters.select_nth_unstable_by(k, order);
            hitters.truncate(k);
        }
        hitters.sort_unstable_by(order);
        hitters
    }

    /// The counter of an item: it came at least this often, and at most [`Self::undercount`] times more.
    #[must_use]
    pub fn count(&self, item: &str) -> u64 {
        self.counts.get(item).copied().unwrap_or(0)
    }

    /// How much the counters can be too low by.
    #[must_use]
    pub fn undercount(&self) -> u64 {
        self.undercount
    }

    /// How much came in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether all counters are exact.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.undercount == 0
    }

    /// [`Self::undercount`] as a share of all that came, guaranteed.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound::absolute(self.undercount as f64 / self.total.max(1) as f64, 1.0)
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.counts.allocation_size() + self.item_bytes
    }

    /// The summary as bytes: equal summaries have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::HeavyHitters, 16 + self.item_bytes + self.counts.len() * 4);
        writer.varint(self.total);
        writer.varint(self.undercount);
        for (item, count) in self.sorted() {
            writer.varint(count);
            writer.varint(item.len() as u64);
            writer.slice(item.as_bytes());
        }
        writer.finish()
    }

    /// The summary that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No summary is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Kind::HeavyHitters, bytes)?;
        let total = checked_rows(0, reader.varint()?)?;
        let undercount = checked_rows(0, reader.varint()?)?;
        let (mut summary, mut counted, mut last) = (Self { total, undercount, ..Self::default() }, 0, None);
        while reader.remaining() > 0 {
            let count = reader.varint()?;
            let len = usize::try_from(reader.varint()?).map_err(|_| DecodeError::Truncated)?;
            let item = std::str::from_utf8(reader.slice(len)?);
            let item = item.map_err(|_| DecodeError::Invalid("an item is not UTF-8"))?;
            if last.is_some_and(|last| item <= last) || count == 0 {
                return Err(DecodeError::Invalid("an item is out of order or never came"));
            }
            if summary.counts.len() == ITEMS_MAX {
                return Err(DecodeError::Invalid("more items than a summary counts"));
            }
            last = Some(item);
            counted = checked_rows(counted, count)?;
            summary.add_counter(item, count);
        }
        // Rule 2: what is missing from the counters pays for the undercount.
        let missing = total.checked_sub(counted).ok_or(DecodeError::Invalid("the counters exceed their sum"))?;
        if undercount > missing / (KEPT_MAX as u64 + 1) || undercount == 0 && missing > 0 {
            return Err(DecodeError::Invalid("the counters do not explain their error"));
        }
        Ok(summary)
    }

    fn sorted(&self) -> Vec<(&str, u64)> {
        let mut items: Vec<(&str, u64)> = self.counts.iter().map(|(item, &count)| (item.as_ref(), count)).collect();
        items.sort_unstable();
        items
    }

    fn add_counter(&mut self, item: &str, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(counter) = self.counts.get_mut(item) {
            *counter += count;
            return;
        }
        self.item_bytes += item.len();
        self.counts.insert(item.into(), count);
        if self.counts.len() > ITEMS_MAX {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let (_, &mut taken, _) = counts.select_nth_unstable_by(KEPT_MAX, |a, b| b.cmp(a));
        let item_bytes = &mut self.item_bytes;
        self.counts.retain(|item, count| {
            *count = count.saturating_sub(taken);
            if *count == 0 {
                *item_bytes -= item.len();
            }
            *count > 0
        });
        self.undercount += taken;
    }
}

#[cfg(test)]
mod tests {
    use super::{HeavyHitters, ITEMS_MAX};

    /// Goal: a pruning takes off what makes room for as many items as may stay, not more: those that came often stay, with
    /// nearly all of their counts.
    #[test]
    fn pruning_takes_no_more_than_it_must() {
        let mut summary = HeavyHitters::default();
        for item in 0..600 {
            summary.add(&format!("often {item}"), 100);
        }
        for item in 0..=ITEMS_MAX - 600 {
            assert!(summary.is_exact());
            summary.add(&format!("seldom {item}"), 1);
        }
        assert_eq!((summary.undercount(), summary.top(1_000).len()), (1, 600));
        assert!(summary.top(600).iter().all(|hitter| hitter.count == 99));
    }
}
