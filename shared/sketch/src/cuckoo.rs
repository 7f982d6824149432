//! A cuckoo filter: a set that says "certainly not" or "perhaps".
//!
//! 1. An item that was inserted is always found again. There are no deletes.
//! 2. An item is in one of two buckets of four fingerprints. The second follows from the first and the fingerprint, and
//!    the first from the second, so that a fingerprint can move without its item: `first + second = spread(fingerprint)`
//!    modulo the number of buckets, which may be any.
//! 3. A fingerprint has 18 bits, 0 being an empty place. At a load of 75 % a lookup of something else compares with six of
//!    them on average: it is taken for a member in one of 43,690 lookups, at 24 bits per item.
//! 4. The filter is full at 75 %, or where an item finds no place after [`KICKS_MAX`] moves. Then it is unchanged, and the
//!    caller makes another, larger one.
//!
//! 5. The places of a bucket fill in order and never empty. An item is in its second bucket only if the first was full when
//!    it came or was moved; so where the first one has an empty place, there is no need to look at the second.
//!
//! A bucket is nine bytes: the low 16 bits of its four fingerprints, then the two high bits of each. A batch of lookups
//! asks for the memory of all of them before it looks at the first.

use kernels::{LargeTable, prefetch};

/// How full a filter gets.
pub const LOAD_PERCENT_MAX: usize = 75;

const BUCKET_BYTES: usize = 9;
const BUCKET_PLACES: usize = 4;
const FINGERPRINT_BITS: u32 = 18;
const FINGERPRINT_MAX: u32 = (1 << FINGERPRINT_BITS) - 1;
/// Items between asking for the memory of one and inserting it.
const AHEAD: usize = 32;
/// Moves before an insert gives up. At 75 % it is practically never near.
const KICKS_MAX: usize = 500;
/// Each 16-bit lane's lowest bit, and each one's highest.
const LANES_LOW: u64 = 0x0001_0001_0001_0001;
const LANES_HIGH: u64 = 0x8000_8000_8000_8000;

/// A set of hashed items; see the module's rules.
#[derive(Debug, Clone)]
pub struct CuckooFilter {
    bytes: LargeTable<u8>,
    buckets: u32,
    len: usize,
    capacity: usize,
}

/// What a look at an item's first bucket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It was certainly not inserted.
    Absent,
    /// It may have been inserted.
    Perhaps,
    /// The second bucket knows; see [`CuckooFilter::look_again`].
    Open,
}

/// Where an item may lie, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    bucket: u32,
    fingerprint: u32,
}

impl CuckooFilter {
    /// An empty filter for `capacity` items (at least one, at most 2^33).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let places = capacity.max(1).saturating_mul(100).div_ceil(LOAD_PERCENT_MAX);
        let buckets = u32::try_from(places.div_ceil(BUCKET_PLACES)).unwrap_or(u32::MAX);
        let bytes = LargeTable::zeroed(buckets as usize * BUCKET_BYTES);
        let capacity = buckets as usize * BUCKET_PLACES * LOAD_PERCENT_MAX / 100;
        Self { bytes, buckets, len: 0, capacity }
    }

    /// Bytes of a filter for `capacity` items.
    #[must_use]
    pub fn bytes_for(capacity: usize) -> usize {
        let places = capacity.max(1).saturating_mul(100).div_ceil(LOAD_PERCENT_MAX);
        places.div_ceil(BUCKET_PLACES) * BUCKET_BYTES
    }

    /// How many items were inserted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items it takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Starts to load what [`CuckooFilter::look`] for `item` will look at.
    #[inline]
    pub fn prefetch(&self, item: u64) {
        self.prefetch_bucket(self.place(item).bucket);
    }

    /// Starts to load a bucket: one in seven lies in two lines of the cache.
    #[inline]
    fn prefetch_bucket(&self, bucket: u32) {
        let at = bucket as usize * BUCKET_BYTES;
        prefetch(&self.bytes, at);
        prefetch(&self.bytes, at + BUCKET_BYTES - 1);
    }

    /// Looks for `item` in its first bucket. Where that leaves the second one open, starts to load it.
    #[inline]
    pub fn look(&self, item: u64) -> Look {
        let place = self.place(item);
        if self.holds(place) {
            return Look::Perhaps;
        }
        if !self.is_full(place.bucket) {
            return Look::Absent;
        }
        self.prefetch_bucket(self.other(place).bucket);
        Look::Open
    }

    /// Whether `item` may be in its second bucket.
    #[must_use]
    #[inline]
    pub fn look_again(&self, item: u64) -> bool {
        self.holds(self.other(self.place(item)))
    }

    /// Whether `item` may have been inserted; `false` is certain.
    #[must_use]
    #[inline]
    pub fn contains(&self, item: u64) -> bool {
        match self.look(item) {
            Look::Absent => false,
            Look::Perhaps => true,
            Look::Open => self.look_again(item),
        }
    }

    /// Inserts `item`; again if it is there already. Items that come in ascending order touch memory in order.
    ///
    /// # Errors
    /// The filter is full, and unchanged.
    #[inline]
    pub fn insert(&mut self, item: u64) -> Result<(), Full> {
        if self.len >= self.capacity {
            return Err(Full);
        }
        let place = self.place(item);
        if !self.put(place) && !self.put(self.other(place)) {
            self.make_place(place)?;
        }
        self.len += 1;
        Ok(())
    }

    /// Inserts items, in order, until one is refused as the filter is full; how many were inserted. Memory is asked for before
    /// it is looked at, so that items in any order do not wait for it one by one.
    #[must_use]
    pub fn insert_all(&mut self, items: &[u64]) -> usize {
        items.iter().take(AHEAD).for_each(|item| self.prefetch(*item));
        for (at, item) in items.iter().enumerate() {
            if let Some(next) = items.get(at + AHEAD) {
                self.prefetch(*next);
            }
            if let Some(next) = items.get(at + AHEAD / 2) {
                self.prefetch_other(*next);
            }
            if self.insert(*item).is_err() {
                return at;
            }
        }
        items.len()
    }

    /// Starts to load an item's second bucket if its first one is full.
    #[inline]
    fn prefetch_other(&self, item: u64) {
        let place = self.place(item);
        if self.is_full(place.bucket) {
            self.prefetch_bucket(self.other(place).bucket);
        }
    }

    /// Makes room in a full bucket: by moving one of its fingerprints where one move is enough, which it mostly is, so that the
    /// memory for all four is waited for at once.
    fn make_place(&mut self, place: Place) -> Result<(), Full> {
        let bucket = *self.bucket(place.bucket);
        let others: [Place; BUCKET_PLACES] = std::array::from_fn(|lane| {
            self.other(Place { bucket: place.bucket, fingerprint: fingerprint_of(&bucket, lane) })
        });
        others.iter().for_each(|other| self.prefetch_bucket(other.bucket));
        for (lane, other) in others.into_iter().enumerate() {
            if self.put(other) {
                self.replace(place, lane);
                return Ok(());
            }
        }
        self.move_on(place)
    }

    /// Moves fingerprints until one finds an empty place, then takes `place` for the one that waits.
    #[cold]
    fn move_on(&mut self, place: Place) -> Result<(), Full> {
        let mut moved = Vec::new();
        let mut homeless = place;
        for kick in 0..KICKS_MAX {
            // Any choice will do that does not go round in circles; this one is the same on every machine.
            let lane = (homeless.fingerprint as usize + kick) % BUCKET_PLACES;
            let evicted = self.replace(homeless, lane);
            moved.push((homeless.bucket, lane, evicted));
            homeless = self.other(Place { bucket: homeless.bucket, fingerprint: evicted });
            if self.put(homeless) {
                return Ok(());
            }
        }
        for (bucket, lane, fingerprint) in moved.into_iter().rev() {
            self.replace(Place { bucket, fingerprint }, lane);
        }
        Err(Full)
    }

    /// The first place of an item: its bucket from the high bits, so that the order of items is that of buckets, its
    /// fingerprint from the low ones.
    #[inline]
    fn place(&self, item: u64) -> Place {
        let bucket = ((u128::from(item) * u128::from(self.buckets)) >> 64) as u32;
        // A hash of the low bits' hash: they may be few, or all alike.
        let mixed = (item as u32).wrapping_mul(0x9e37_79b1) ^ (item >> 32) as u32;
        let fingerprint = mixed.wrapping_mul(0x85eb_ca6b) >> (u32::BITS - FINGERPRINT_BITS);
        Place { bucket, fingerprint: fingerprint.max(1) }
    }

    /// The other place of a fingerprint, which may be the same.
    #[inline]
    fn other(&self, place: Place) -> Place {
        let spread = u64::from(place.fingerprint).wrapping_mul(0xc6a4_a793_5bd1_e995);
        let spread = ((u128::from(spread) * u128::from(self.buckets)) >> 64) as u32;
        let bucket =
            if spread >= place.bucket { spread - place.bucket } else { spread + (self.buckets - place.bucket) };
        Place { bucket, fingerprint: place.fingerprint }
    }

    #[inline]
    fn bucket(&self, bucket: u32) -> &[u8; BUCKET_BYTES] {
        let at = bucket as usize * BUCKET_BYTES;
        self.bytes[at..].first_chunk().expect("a bucket is one of those allocated")
    }

    /// Whether a place holds its fingerprint.
    #[inline]
    fn holds(&self, place: Place) -> bool {
        let bucket = self.bucket(place.bucket);
        let lows = u64::from_le_bytes(*bucket.first_chunk().expect("eight of nine bytes"));
        let difference = lows ^ (u64::from(place.fingerprint & 0xffff) * LANES_LOW);
        // Bit 15 of each lane that may be 0: exact for the lowest such lane, and none is missed above it.
        let alike = difference.wrapping_sub(LANES_LOW) & !difference & LANES_HIGH;
        alike != 0 && holds_high(bucket, alike, place.fingerprint)
    }

    /// Whether a bucket has no empty place: its last one is taken (rule 5).
    #[inline]
    fn is_full(&self, bucket: u32) -> bool {
        fingerprint_of(self.bucket(bucket), BUCKET_PLACES - 1) != 0
    }

    /// Puts a fingerprint into its bucket if that has an empty place.
    #[inline]
    fn put(&mut self, place: Place) -> bool {
        let bucket = *self.bucket(place.bucket);
        let empty = (0..BUCKET_PLACES).find(|&lane| fingerprint_of(&bucket, lane) == 0);
        if let Some(lane) = empty {
            self.replace(place, lane);
        }
        empty.is_some()
    }

    /// Writes a fingerprint and returns the one that was there.
    fn replace(&mut self, place: Place, lane: usize) -> u32 {
        let at = place.bucket as usize * BUCKET_BYTES;
        let bucket = self.bytes[at..].first_chunk_mut::<BUCKET_BYTES>().expect("a bucket is one of those allocated");
        let before = fingerprint_of(bucket, lane);
        let [low, middle, high, _] = place.fingerprint.to_le_bytes();
        (bucket[lane * 2], bucket[lane * 2 + 1]) = (low, middle);
        bucket[8] = bucket[8] & !(0b11 << (lane * 2)) | high << (lane * 2);
        before
    }
}

/// An item found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The fingerprint in one place of a bucket, 0 where it is empty.
#[inline]
fn fingerprint_of(bucket: &[u8; BUCKET_BYTES], lane: usize) -> u32 {
    let low = u16::from_le_bytes([bucket[lane * 2], bucket[lane * 2 + 1]]);
    u32::from(low) | u32::from(bucket[8] >> (lane * 2) & 0b11) << 16
}

/// Whether one of the lanes whose low bits may be alike holds the whole fingerprint.
#[cold]
fn holds_high(bucket: &[u8; BUCKET_BYTES], alike: u64, fingerprint: u32) -> bool {
    (0..BUCKET_PLACES).any(|lane| alike >> (lane * 16) & 0x8000 != 0 && fingerprint_of(bucket, lane) == fingerprint)
}

const _: () = assert!(FINGERPRINT_MAX == 0x3_ffff); // 16 low bits and two high ones

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scatter(n: u64) -> u64 {
        let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n ^ (n >> 32)
    }

    proptest! {
        /// Goal: whatever is inserted is found, in filters of any size, with items that share buckets and fingerprints,
        /// also after an insert was refused.
        #[test]
        fn nothing_is_forgotten(
            items in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..40, (0_u64..40).prop_map(|n| n << 58)], 1..400),
            capacity in 1_usize..300,
        ) {
            let mut filter = CuckooFilter::with_capacity(capacity);
            let mut inserted = Vec::new();
            for item in items {
                if filter.insert(item).is_ok() {
                    inserted.push(item);
                }
                prop_assert!(inserted.iter().all(|item| filter.contains(*item)));
            }
            prop_assert_eq!(filter.len(), inserted.len());
        }

        /// Goal: items that come together lie as if they had come one by one, and as many.
        #[test]
        fn together_or_one_by_one(
            items in prop::collection::vec(prop_oneof![any::<u64>(), (0_u64..40).prop_map(|n| n << 58)], 0..400),
            capacity in 1_usize..300,
        ) {
            let (mut together, mut single) = (CuckooFilter::with_capacity(capacity), CuckooFilter::with_capacity(capacity));
            let inserted = together.insert_all(&items);
            prop_assert_eq!(inserted, items.iter().take_while(|item| single.insert(**item).is_ok()).count());
            prop_assert_eq!(together.len(), inserted);
            prop_assert_eq!(&together.bytes[..], &single.bytes[..]);
        }

        /// Goal: the other place of the other place is the place, whatever the number of buckets.
        #[test]
        fn places_are_mutual(item: u64, capacity in 1_usize..10_000) {
            let filter = CuckooFilter::with_capacity(capacity);
            let place = filter.place(item);
            prop_assert!(place.bucket < filter.buckets);
            prop_assert!(filter.other(place).bucket < filter.buckets);
            prop_assert_eq!(filter.other(filter.other(place)), place);
        }
    }

    /// Goal: a filter takes as many items as it promised, at 75 % load and 24 bits an item, and takes others for members
    /// as rarely as the module says. Also where items come in ascending order, as runs do.
    #[test]
    #[expect(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
    fn load_size_and_false_suspicions() {
        for (capacity, ascending) in [(1_000_usize, false), (100_000, false), (300_000, true)] {
            let mut filter = CuckooFilter::with_capacity(capacity);
            let mut items: Vec<u64> = (0..filter.capacity() as u64).map(scatter).collect();
            if ascending {
                items.sort_unstable();
            }
            assert!(filter.capacity() >= capacity && filter.capacity() <= capacity + 3);
            assert!(items.iter().all(|item| filter.insert(*item).is_ok()), "{capacity} fit");
            assert_eq!(filter.insert(1), Err(Full));
            assert!(items.iter().all(|item| filter.contains(*item)));
            let bits = filter.bytes() as f64 * 8.0 / items.len() as f64;
            assert!(bits < 24.1, "{bits} bits an item");
            assert_eq!(filter.bytes(), CuckooFilter::bytes_for(capacity));
            let lookups = 4_000_000;
            let suspected = (0..lookups).filter(|n| filter.contains(scatter(n + (1 << 40)))).count();
            let share = suspected as f64 / lookups as f64;
            println!("{capacity} items: {bits:.2} bits each, {:.5} % suspected falsely", share * 100.0);
            assert!(share < 0.000_03, "{share}");
        }
    }

    /// Goal: items that all want the same two buckets fill these and are then refused, without a loss or an endless loop.
    #[test]
    fn equal_buckets_end_in_full() {
        let mut filter = CuckooFilter::with_capacity(100_000);
        let inserted = (0..100).take_while(|_| filter.insert(0xabcd_ef01_2345_6789).is_ok()).count();
        assert!((4..=8).contains(&inserted), "{inserted} places in two buckets");
        assert!(filter.contains(0xabcd_ef01_2345_6789));
        let others: Vec<u64> = (0..1_000).map(scatter).collect();
        assert!(others.iter().all(|item| filter.insert(*item).is_ok()), "others still find theirs");
        assert!(others.iter().all(|item| filter.contains(*item)));
    }
}
