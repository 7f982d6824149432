//! Count-min: how often an item came, never too low (Cormode and Muthukrishnan, "An improved data stream summary: the
//! count-min sketch and its applications", 2005).
//!
//! 1. Up to 1,024 distinct items are counted one by one, by their hash. Then five rows of 4,096 counters take over: an item
//!    counts in one of each row, and the least of its five is the answer.
//! 2. What others add to an item's counter of one row is `rows / 4096` on average. By Markov's inequality it is more than
//!    eight times as much with a probability of 1/8 at most, in all five rows with one of 2^-15.
//! 3. Each row takes its own 12 bits of the hash, so the rows choose independently.

use hashbrown::HashMap;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, Reader, Writer, checked_rows},
};

const ROWS: usize = 5;
const WIDTH_BITS: u32 = 12;
const WIDTH: usize = 1 << WIDTH_BITS;
const COUNTERS: usize = ROWS * WIDTH;
const ITEMS_MAX: usize = 1_024;
const ITEMS: u8 = 0;
const DENSE: u8 = 1;

const _: () = assert!(ROWS as u32 * WIDTH_BITS <= u64::BITS);

/// Approximate counts of items; see the module's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct CountMin {
    state: State,
    total: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Items(HashMap<u64, u64>),
    Counters(Box<[u64; COUNTERS]>),
}

impl Default for CountMin {
    fn default() -> Self {
        Self { state: State::Items(HashMap::new()), total: 0 }
    }
}

impl CountMin {
    /// By how much of all that came an answer can be too high: rule 2. It is never too low.
    pub const BOUND: Bound = Bound::absolute(8.0 / WIDTH as f64, 1.0 - 1.0 / (1 << 15) as f64);

    /// Counts an item, given its hash ([`crate::hash_str`] for strings), `count` times.
    #[inline]
    pub fn add(&mut self, hash: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.total += count;
        if let State::Items(items) = &mut self.state
            && (items.len() < ITEMS_MAX || items.contains_key(&hash))
        {
            *items.entry(hash).or_default() += count;
            return;
        }
        add_to(self.counters(), hash, count);
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        match &other.state {
            State::Items(items) => items.iter().for_each(|(&hash, &count)| self.add(hash, count)),
            State::Counters(more) => {
                self.total += other.total;
                self.counters().iter_mut().zip(more.iter()).for_each(|(counter, more)| *counter += more);
            }
        }
    }

    /// How often the item with this hash came, within [`Self::BOUND`].
    #[must_use]
    pub fn estimate(&self, hash: u64) -> u64 {
        match &self.state {
            State::Items(items) => items.get(&hash).copied().unwrap_or(0),
            State::Counters(counters) => places(hash).map(|at| counters[at]).min().expect("there are rows"),
        }
    }

    /// How much came in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.state {
                State::Items(items) => items.allocation_size(),
                State::Counters(_) => COUNTERS * size_of::<u64>(),
            }
    }

    /// The sketch as bytes: equal sketches have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.state {
            State::Items(items) => {
                let mut sorted: Vec<(u64, u64)> = items.iter().map(|(&hash, &count)| (hash, count)).collect();
                sorted.sort_unstable();
                let mut writer = Writer::new(Kind::CountMin, 1 + sorted.len() * 10);
                writer.u8(ITEMS);
                for (hash, count) in sorted {
                    writer.u64(hash);
                    writer.varint(count);
                }
                writer.finish()
            }
            State::Counters(counters) => {
                let mut writer = Writer::new(Kind::CountMin, 1 + COUNTERS * 2);
                writer.u8(DENSE);
                counters.iter().for_each(|&counter| writer.varint(counter));
                writer.finish()
            }
        }
    }

    /// The sketch that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No sketch is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Kind::CountMin, bytes)?;
        match reader.u8()? {
            ITEMS => read_items(reader),
            DENSE => read_counters(reader),
            _ => Err(DecodeError::Invalid("a count-min sketch is neither items nor counters")),
        }
    }

    fn counters(&mut self) -> &mut [u64; COUNTERS] {
        if let State::Items(items) = &self.state {
            let mut counters = zeroed();
            items.iter().for_each(|(&hash, &count)| add_to(&mut counters, hash, count));
            self.state = State::Counters(counters);
        }
        match &mut self.state {
            State::Counters(counters) => counters,
            State::Items(_) => unreachable!("items were replaced above"),
        }
    }
}

fn zeroed() -> Box<[u64; COUNTERS]> {
    vec![0; COUNTERS].try_into().expect("the length is that of the array")
}

fn read_items(mut reader: Reader<'_>) -> Result<CountMin, DecodeError> {
    let mut sketch = CountMin::default();
    let mut last = None;
    while reader.remaining() > 0 {
        let (hash, count) = (reader.u64()?, reader.varint()?);
        if last.is_some_and(|last| hash <= last) || count == 0 {
            return Err(DecodeError::Invalid("an item is out of order or never came"));
        }
        last = Some(hash);
        checked_rows(sketch.total, count)?;
        sketch.add(hash, count);
    }
    match sketch.state {
        State::Items(_) => Ok(sketch),
        State::Counters(_) => Err(DecodeError::Invalid("more items than a sketch counts one by one")),
    }
}

fn read_counters(mut reader: Reader<'_>) -> Result<CountMin, DecodeError> {
    if reader.remaining() < COUNTERS {
        return Err(DecodeError::Truncated);
    }
    let mut counters = zeroed();
    let mut totals = [0; ROWS];
    for (row, total) in counters.chunks_exact_mut(WIDTH).zip(&mut totals) {
        for counter in row {
            *counter = reader.varint()?;
            *total = checked_rows(*total, *counter)?;
        }
    }
    reader.finish()?;
    if totals.iter().any(|&total| total != totals[0]) {
        return Err(DecodeError::Invalid("the rows of counters differ in their sum"));
    }
    Ok(CountMin { state: State::Counters(counters), total: totals[0] })
}

/// The item's counter of each row.
#[inline]
fn places(hash: u64) -> impl Iterator<Item = usize> {
    (0..ROWS).map(move |row| row << WIDTH_BITS | (hash >> (row as u32 * WIDTH_BITS)) as usize & (WIDTH - 1))
}

#[inline]
fn add_to(counters: &mut [u64; COUNTERS], hash: u64, count: u64) {
    places(hash).for_each(|at| counters[at] += count);
}
