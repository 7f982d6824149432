//! The buckets of all tenants, in shards without locks, and the sweep that forgets the idle ones.
//!
//! 1. A bucket that is not in the map is a full one; only full ones leave.
//! 2. A bucket leaves in two steps: its word becomes "swept" by compare-and-swap, which fails if somebody takes from it
//!    meanwhile; then its entry is removed, by the sweep or by whoever meets it. So no cost is ever taken from a bucket
//!    that others no longer see.

use std::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;
use types::TenantId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    bucket::{Bucket, Take},
    cost::Cost,
    rate::Rate,
    share::Share,
};

/// Shards of the tenants.
pub const SHARDS: usize = 32;

const _: () = assert!(SHARDS.is_power_of_two());

type Shard = papaya::HashMap<TenantId, Bucket, KeyedHash>;

/// What one step of the sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Buckets that it looked at.
    pub examined: usize,
    /// Buckets that it forgot.
    pub evicted: usize,
}

pub(crate) struct Tenants {
    shards: Vec<CachePadded<Shard>>,
    hash: KeyedHash,
    /// What a bucket that is not there has of its budget.
    share: Share,
    /// The shard that the next step of the sweep looks at.
    next_swept: AtomicUsize,
}

impl Tenants {
    /// No buckets; those that come begin with `share` of their budgets.
    pub(crate) fn new(key: u64, share: Share) -> Self {
        let hash = KeyedHash { key };
        let shard = || CachePadded::new(papaya::HashMap::builder().hasher(hash).build());
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hash, share, next_swept: AtomicUsize::new(0) }
    }

    /// Takes `cost` from the tenant's bucket, then asks `confirm`; if that refuses, gives it back. `Err`: the refusal.
    pub(crate) fn take<E>(
        &self,
        tenant: TenantId,
        (rate, cost, now): (Rate, Cost, u64),
        refuse: impl FnOnce(u64) -> E,
        confirm: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let shard = self.shard(tenant).pin();
        loop {
            let bucket = match shard.get(&tenant) {
                Some(bucket) => bucket,
                None => shard.get_or_insert_with(tenant, || Bucket::new(self.share)),
            };
            match bucket.take(rate, cost, now) {
                Take::Taken(receipt) => return confirm().inspect_err(|_| bucket.give_back(receipt)),
                Take::Wait { ticks } => return Err(refuse(ticks)),
                // Helps the sweep, so that the next look finds no entry or a new one: no thread waits for another.
                Take::Swept => drop(shard.remove_if(&tenant, |_, bucket| bucket.is_swept())),
            }
        }
    }

    pub(crate) fn wait(&self, tenant: TenantId, rate: Rate, cost: Cost, now: u64) -> u64 {
        self.shard(tenant).pin().get(&tenant).map_or(0, |bucket| bucket.wait(rate, cost, now))
    }

    pub(crate) fn remaining(&self, tenant: TenantId, rate: Rate, now: u64) -> u64 {
        let full = || self.share.of(rate.burst());
        self.shard(tenant).pin().get(&tenant).map_or_else(full, |bucket| bucket.remaining(rate, now))
    }

    /// What `look` says of the tenant's bucket, which is made if it is not there. One that leaves meanwhile was full.
    pub(crate) fn with<T>(&self, tenant: TenantId, look: impl FnOnce(&Bucket) -> T) -> T {
        let shard = self.shard(tenant).pin();
        match shard.get(&tenant) {
            Some(bucket) => look(bucket),
            None => look(shard.get_or_insert_with(tenant, || Bucket::new(self.share))),
        }
    }

    /// What a tenant has of its budget.
    pub(crate) fn share(&self, tenant: TenantId) -> Share {
        self.shard(tenant).pin().get(&tenant).map_or(self.share, Bucket::share)
    }

    /// Shows all buckets.
    pub(crate) fn each(&self, mut show: impl FnMut(TenantId, &Bucket)) {
        for shard in &self.shards {
            for (tenant, bucket) in &shard.pin() {
                show(*tenant, bucket);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Sweeps the next shard. A bucket with another share than new ones have stays.
    pub(crate) fn sweep(&self, now: u64) -> Swept {
        // Relaxed: two sweeps at once may do the same shard, which is harmless.
        let shard = self.shards[self.next_swept.fetch_add(1, Relaxed) % SHARDS].pin();
        let mut swept = Swept { examined: 0, evicted: 0 };
        for (tenant, bucket) in &shard {
            swept.examined += 1;
            if bucket.share() == self.share
                && bucket.sweep(now)
                && matches!(shard.remove_if(tenant, |_, bucket| bucket.is_swept()), Ok(Some(_)))
            {
                swept.evicted += 1;
            }
        }
        swept
    }

    fn shard(&self, tenant: TenantId) -> &Shard {
        &self.shards[shard_of(self.hash.value(tenant.0))]
    }
}

/// FNV-1a over the keyed value. FNV alone would let anybody compute ids that share a shard.
fn shard_of(keyed: u64) -> usize {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash =
        keyed.to_le_bytes().iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    // The low bits of FNV see only the low bits of each byte; folding brings all of them in.
    usize::try_from((hash ^ (hash >> 32)) & (SHARDS as u64 - 1)).expect("a number below SHARDS")
}

/// Hashes tenant ids by a key of this process, for the choice of a shard and for the maps.
#[derive(Debug, Clone, Copy)]
struct KeyedHash {
    key: u64,
}

impl KeyedHash {
    fn value(self, id: u64) -> u64 {
        xxh3_64_with_seed(&id.to_le_bytes(), self.key)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { hash: *self, state: 0 }
    }
}

/// One id at a time, as [`TenantId`] hashes itself.
pub(crate) struct KeyedHasher {
    hash: KeyedHash,
    state: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state = xxh3_64_with_seed(bytes, self.hash.key ^ self.state);
    }

    fn write_u64(&mut self, id: u64) {
        self.state = self.hash.value(id ^ self.state);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ids that share a shard under one key are spread under another, and all shards are used evenly.
    #[test]
    fn a_key_spreads_ids_that_another_gathers() {
        let gathered: Vec<u64> =
            (0..).filter(|id| shard_of(KeyedHash { key: 1 }.value(*id)) == 0).take(32_000).collect();
        let mut counts = [0_usize; SHARDS];
        for id in &gathered {
            counts[shard_of(KeyedHash { key: 2 }.value(*id))] += 1;
        }
        // 1,000 a shard; 10 standard deviations of a binomial are about 310.
        assert!(counts.iter().all(|count| (690..1_310).contains(count)), "{counts:?}");
    }

    /// Goal: who meets a bucket between the two steps of its leaving takes from a new one, which all others see.
    #[test]
    fn a_leaving_bucket_is_replaced() {
        let (tenants, tenant) = (Tenants::new(1, Share::WHOLE), TenantId(5));
        let rate = Rate::new(1_000, 10).unwrap();
        let cost = Cost::new(4).unwrap();
        assert!(tenants.shard(tenant).pin().get_or_insert_with(tenant, || Bucket::new(Share::WHOLE)).sweep(0));
        assert_eq!(tenants.take(tenant, (rate, cost, 0), |ticks| ticks, || Ok(())), Ok(()));
        assert_eq!(tenants.remaining(tenant, rate, 0), 6);
        assert_eq!(tenants.len(), 1);
        // What the second bucket refuses is given back.
        assert_eq!(tenants.take(tenant, (rate, cost, 0), |ticks| ticks, || Err(7)), Err(7));
        assert_eq!(tenants.remaining(tenant, rate, 0), 6);
    }
}
