//! The exact answers, row by row from the workload itself.

use std::cmp::Reverse;

use crate::{
    load::{EVENT_TYPES, REGIONS, Workload},
    queries::BEGIN,
};

/// A row of an answer: its key, and its numbers with how far each may be off, relatively.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) key: String,
    pub(crate) numbers: Vec<(f64, f64)>,
}

/// Rounding of a sum in another order.
const ROUNDING: f64 = 1e-9;
/// Three standard errors of a HyperLogLog of 2^14 registers.
const DISTINCT: f64 = 0.0245;

impl Expected {
    /// A row with one exact count.
    pub(crate) fn count(key: &[&str], count: u64) -> Self {
        Self { key: key.join("|"), numbers: vec![(count as f64, 0.0)] }
    }

    fn sum(key: &[&str], sum: f64) -> Self {
        Self { key: key.join("|"), numbers: vec![(sum, ROUNDING)] }
    }
}

/// The second of the workload in which a row lies.
pub(crate) fn second(data: &Workload, row: usize) -> i64 {
    (data.times[row] - BEGIN).div_euclid(1_000_000)
}

/// Counts the rows that pass.
pub(crate) fn count(data: &Workload, pass: impl Fn(usize) -> bool) -> Vec<Expected> {
    vec![Expected::count(&[], (0..data.rows()).filter(|&row| pass(row)).count() as u64)]
}

/// Counts by a key below `keys`, without those that are none.
pub(crate) fn counts(data: &Workload, keys: usize, key: impl Fn(usize) -> Option<usize>) -> Vec<(usize, u64)> {
    let mut counts = vec![0; keys];
    (0..data.rows()).filter_map(key).for_each(|key| counts[key] += 1);
    counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect()
}

/// Sums revenue by a key below `keys`, without those that are none.
fn sums(data: &Workload, keys: usize, key: impl Fn(usize) -> Option<usize>) -> Vec<(usize, f64)> {
    let mut sums = vec![None; keys];
    for row in 0..data.rows() {
        if let Some(key) = key(row) {
            *sums[key].get_or_insert(0.0) += data.revenue[row];
        }
    }
    sums.into_iter().enumerate().filter_map(|(key, sum)| Some((key, sum?))).collect()
}

fn product(number: usize) -> String {
    format!("product_{number:04}")
}

/// Q2.
pub(crate) fn revenue_by_region(data: &Workload) -> Vec<Expected> {
    let sums = sums(data, REGIONS.len(), |row| Some(usize::from(data.regions[row])));
    sums.into_iter().map(|(region, sum)| Expected::sum(&[REGIONS[region]], sum)).collect()
}

/// Q3: of clicks in eu-west.
pub(crate) fn top_products(data: &Workload) -> Vec<Expected> {
    let wanted = |row: usize| data.regions[row] == 2 && data.event_types[row] == 1;
    let mut sums = sums(data, 1_000, |row| wanted(row).then_some(usize::from(data.products[row])));
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums.truncate(10);
    sums.into_iter().map(|(number, sum)| Expected::sum(&[&product(number)], sum)).collect()
}

/// Q6.
pub(crate) fn per_second(data: &Workload) -> Vec<Expected> {
    let seconds = |row| Some(second(data, row) as usize);
    let counts = counts(data, 3_600, seconds);
    let sums = sums(data, 3_600, seconds);
    let row = |((second, count), (_, sum)): ((usize, u64), (usize, f64))| Expected {
        key: (BEGIN + second as i64 * 1_000_000).to_string(),
        numbers: vec![(count as f64, 0.0), (sum, ROUNDING)],
    };
    counts.into_iter().zip(sums).map(row).collect()
}

/// Q9.
pub(crate) fn revenue_of_all(data: &Workload) -> Vec<Expected> {
    let (types, products) = (EVENT_TYPES.len(), 1_000);
    let key = |row: usize| {
        let pair = usize::from(data.regions[row]) * types + usize::from(data.event_types[row]);
        Some(pair * products + usize::from(data.products[row]))
    };
    let row = |(key, sum): (usize, f64)| {
        let (pair, number) = (key / products, key % products);
        Expected::sum(&[REGIONS[pair / types], EVENT_TYPES[pair % types], &product(number)], sum)
    };
    sums(data, REGIONS.len() * types * products, key).into_iter().map(row).collect()
}

/// Q7.
pub(crate) fn top_users(data: &Workload) -> Vec<Expected> {
    let users = data.users.iter().max().map_or(0, |&user| user as usize + 1);
    let mut counts = counts(data, users, |row| Some(data.users[row] as usize));
    counts.sort_by_key(|&(user, count)| (Reverse(count), user));
    counts.truncate(20);
    counts.into_iter().map(|(user, count)| Expected::count(&[&format!("user_{user:07}")], count)).collect()
}

/// Q4: the nearest ranks.
pub(crate) fn percentiles(data: &Workload, off: f64) -> Vec<Expected> {
    let mut of_region = vec![Vec::new(); REGIONS.len()];
    for (&region, &latency) in data.regions.iter().zip(&data.latency) {
        of_region[usize::from(region)].push(latency);
    }
    let row = |(region, values): (usize, &mut Vec<f64>)| {
        values.sort_unstable_by(f64::total_cmp);
        let rank = |q: f64| ((q * values.len() as f64).ceil() as usize).max(1) - 1;
        let numbers = [0.5, 0.95, 0.99].map(|q| (values[rank(q)], off));
        Expected { key: REGIONS[region].to_owned(), numbers: numbers.to_vec() }
    };
    of_region.iter_mut().enumerate().filter(|(_, values)| !values.is_empty()).map(row).collect()
}

/// Q5.
pub(crate) fn distinct_users(data: &Workload) -> Vec<Expected> {
    let users = data.users.iter().max().map_or(0, |&user| user as usize + 1);
    let row = |(code, name): (usize, &&str)| {
        let mut seen = vec![false; users];
        for (&event_type, &user) in data.event_types.iter().zip(&data.users) {
            seen[user as usize] |= usize::from(event_type) == code;
        }
        let distinct = seen.iter().filter(|seen| **seen).count();
        Expected { key: (*name).to_owned(), numbers: vec![(distinct as f64, DISTINCT)] }
    };
    EVENT_TYPES.iter().enumerate().map(row).collect()
}
