//! A token bucket in one word: the time at which it will be full again (the generic cell rate algorithm).
//!
//! 1. The word says when the bucket is full. A word in the past means that it is full now; each admitted cost moves the
//!    word up by the time in which the rate brings that cost.
//! 2. A cost is admitted if the word stays within the bucket's depth above now; a cost larger than the depth is admitted
//!    only by a full bucket, and leaves it in debt, which later time pays off before anything else is admitted.
//! 3. [`SWEPT`] is final: a bucket with this word has left its map and admits nothing; who meets it takes a new one.
//! 4. Where several processes share a budget, a bucket has a share of it. A share changes rate and burst alike, so the ticks in
//!    which an empty bucket fills stay the same: one whose share falls loses the same part of what it held, and one whose share
//!    grows is moved so that it holds no more events than before.
//!
//! Every access is `Relaxed`: the word is all there is, nothing else is published through it, and a read-modify-write
//! always sees the newest value. What must not be lost is that each admission moves the word, which the
//! compare-and-swap holds under any ordering. A share that is seen late, or with the word of the one before, prices the
//! requests of that moment by the other of the two.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::{
    cost::Cost,
    rate::Rate,
    share::{Share, scaled_down, scaled_up},
};

/// The word of a bucket that was swept away. No sum reaches it (asserted in `rate`).
const SWEPT: u64 = u64::MAX;

/// A bucket; new ones are full.
#[derive(Debug)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
    /// Events that were asked for since [`Bucket::take_asked`], admitted or not.
    asked: AtomicU64,
    /// Millionths of the budget.
    share: AtomicU32,
    /// The events of the last request, which stand for those of one that is refused unread.
    last: AtomicU32,
}

/// What a bucket says to a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Taken.
    Taken(Receipt),
    /// Not now; after so many ticks, if nobody else takes meanwhile.
    Wait { ticks: u64 },
    /// The bucket has left its map.
    Swept,
}

/// What was taken, to give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    before: u64,
    after: u64,
}

impl Bucket {
    /// A full bucket with a share of its budget.
    pub(crate) fn new(share: Share) -> Self {
        Self {
            full_at: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            share: AtomicU32::new(share.millionths()),
            last: AtomicU32::new(1),
        }
    }

    /// Its part of the budget.
    pub(crate) fn share(&self) -> Share {
        Share::of_millionths(self.share.load(Relaxed).into())
    }

    /// Sets its part of the budget. What is new of it brings no events for the time before; `full`: it does, for nobody has used
    /// the budget for as long as it takes to fill. Called by one thread at a time.
    pub(crate) fn set_share(&self, share: Share, full: bool, rate: Rate, now: u64) {
        let old = self.share();
        let (from, to, depth) = (old.millionths(), share.millionths(), rate.depth());
        let change = |full_at: u64| {
            let above = full_at.saturating_sub(now);
            match above.checked_sub(depth) {
                _ if full_at == SWEPT => None,
                // Its debt is of events, and lasts longer at a smaller rate.
                Some(debt) if from > 0 && to > 0 => Some(now + depth + scaled_up(debt, from, to)),
                None if full => Some(now),
                None if to > from => Some(now + depth - scaled_down(depth - above, from, to)),
                _ => None,
            }
        };
        if share != old {
            // Fails where there is nothing to change.
            let _ = self.full_at.fetch_update(Relaxed, Relaxed, change);
            self.share.store(to, Relaxed);
        }
    }

    /// Notes that `cost` is asked for.
    pub(crate) fn ask(&self, cost: Cost) {
        self.asked.fetch_add(cost.events(), Relaxed);
        self.last.store(cost.events() as u32, Relaxed);
    }

    /// Notes that something is asked for of which nothing is known yet: as much as the last time.
    pub(crate) fn ask_as_before(&self) {
        self.asked.fetch_add(self.last.load(Relaxed).into(), Relaxed);
    }

    /// The events that were asked for since the last call.
    pub(crate) fn take_asked(&self) -> u64 {
        self.asked.swap(0, Relaxed)
    }

    /// Takes `cost` at `now` (ticks), or says how long to wait.
    pub(crate) fn take(&self, rate: Rate, cost: Cost, now: u64) -> Take {
        let share = self.share();
        let mut before = self.full_at.load(Relaxed);
        loop {
            if before == SWEPT {
                return Take::Swept;
            }
            let after = match next(before, (rate, share), cost, now) {
                Ok(after) => after,
                Err(ticks) => return Take::Wait { ticks },
            };
            match self.full_at.compare_exchange_weak(before, after, Relaxed, Relaxed) {
                Ok(_) => return Take::Taken(Receipt { before, after }),
                Err(changed) => before = changed,
            }
        }
    }

    /// How long `cost` would have to wait at `now`, ticks; 0: it would be admitted. Changes nothing.
    pub(crate) fn wait(&self, rate: Rate, cost: Cost, now: u64) -> u64 {
        match self.full_at.load(Relaxed) {
            SWEPT => 0,
            full_at => next(full_at, (rate, self.share()), cost, now).err().unwrap_or_default(),
        }
    }

    /// Gives back what was taken, if nobody has taken since. Else it stays taken: part of it may have been brought by
    /// time already, and to give that back as well would admit more than the rate.
    pub(crate) fn give_back(&self, receipt: Receipt) {
        // Failure needs no second try: see above.
        let _ = self.full_at.compare_exchange(receipt.after, receipt.before, Relaxed, Relaxed);
    }

    /// The events that would be admitted at once at `now`.
    pub(crate) fn remaining(&self, rate: Rate, now: u64) -> u64 {
        match self.full_at.load(Relaxed) {
            SWEPT => self.share().of(rate.burst()),
            full_at if full_at <= now => self.share().of(rate.burst()),
            full_at => rate.events_in(rate.depth().saturating_sub(full_at - now), self.share()),
        }
    }

    /// Marks a full bucket as swept; whether it is marked now.
    pub(crate) fn sweep(&self, now: u64) -> bool {
        let full_at = self.full_at.load(Relaxed);
        full_at == SWEPT || (full_at <= now && self.full_at.compare_exchange(full_at, SWEPT, Relaxed, Relaxed).is_ok())
    }

    pub(crate) fn is_swept(&self) -> bool {
        self.full_at.load(Relaxed) == SWEPT
    }
}

/// The word after `cost` is taken at `now`; `Err`: the ticks to wait until it could be.
fn next(full_at: u64, (rate, share): (Rate, Share), cost: Cost, now: u64) -> Result<u64, u64> {
    let (price, depth) = (share.price(rate.price(cost))?, rate.depth());
    // An empty bucket is `depth` above now; a larger cost than the depth needs a full one.
    let highest = now + depth.saturating_sub(price);
    if full_at > highest { Err(full_at - highest) } else { Ok(full_at.max(now) + price) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is given back is there again, unless another took meanwhile; then nothing is, rather than too much.
    #[test]
    fn only_an_untouched_share_goes_back() {
        let rate = Rate::new(1_000_000_000, 10).unwrap();
        let cost = |events| Cost::new(events).unwrap();
        let bucket = Bucket::new(Share::WHOLE);
        let Take::Taken(first) = bucket.take(rate, cost(4), 1_000) else { panic!("a new bucket is full") };
        assert_eq!(bucket.remaining(rate, 1_000), 6);
        bucket.give_back(first);
        assert_eq!(bucket.remaining(rate, 1_000), 10);

        let Take::Taken(first) = bucket.take(rate, cost(4), 1_000) else { panic!("it is full again") };
        assert!(matches!(bucket.take(rate, cost(1), 1_000), Take::Taken(_)));
        bucket.give_back(first);
        assert_eq!(bucket.remaining(rate, 1_000), 5);
    }

    /// Goal: a swept bucket gives nothing and is never a working one again; one that is not full is not swept.
    #[test]
    fn swept_is_final() {
        let rate = Rate::new(1_000_000_000, 10).unwrap();
        let cost = Cost::new(1).unwrap();
        let bucket = Bucket::new(Share::WHOLE);
        let Take::Taken(receipt) = bucket.take(rate, cost, 1_000) else { panic!("a new bucket is full") };
        assert!(!bucket.sweep(1_015));
        assert!(bucket.sweep(1_016));
        bucket.give_back(receipt);
        assert_eq!(bucket.take(rate, cost, 1_000_000), Take::Swept);
    }
}
