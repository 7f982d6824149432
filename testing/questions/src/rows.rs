//! Rows of all kinds: with absent values, odd strings, numbers of all sizes, and times in order or not.

use std::collections::BTreeMap;

use crate::Random;

/// An event.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its table, 0 or 1.
    pub table: usize,
    /// Its event time, µs.
    pub time: i64,
    /// Those that it has.
    pub dimensions: BTreeMap<&'static str, String>,
    /// Likewise.
    pub metrics: BTreeMap<&'static str, f64>,
}

/// What rows are like.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// How many there are.
    pub rows: usize,
    /// Event times are 0 to this.
    pub span_us: i64,
    /// Whether they come nearly in order.
    pub in_order: bool,
    /// Values of the largest dimension.
    pub users: usize,
}

/// The row of this number.
pub fn random_row(random: &mut Random, traffic: &Traffic, at: usize) -> Row {
    let time = if traffic.in_order {
        let jitter = random.below(20) as i64;
        (at as i64 * traffic.span_us / traffic.rows as i64 + jitter).min(traffic.span_us)
    } else {
        random.below(traffic.span_us as usize + 1) as i64
    };
    let mut dimensions = BTreeMap::new();
    if random.chance(90) {
        dimensions.insert("region", format!("r{}", random.below(8)));
    }
    if random.chance(80) {
        dimensions.insert("user", format!("u{}", random.below(traffic.users)));
    }
    if random.chance(30) {
        dimensions.insert("flag", random.pick(&["true", "false", "42", "", "é\"\\\n"]).to_owned());
    }
    let table = usize::from(random.chance(30));
    let mut metrics = BTreeMap::new();
    if random.chance(85) {
        let scale = random.pick(&[1e-3, 1.0, 1e3, 1e9]);
        metrics.insert("value", (random.below(2_000_001) as f64 - 1e6) * scale);
    }
    if random.chance(50) {
        metrics.insert("latency", random.below(50) as f64);
    }
    // A column that only one of the tables has, and only since some time.
    if table == 1 && at > traffic.rows / 2 && random.chance(50) {
        dimensions.insert("late", format!("l{}", random.below(3)));
    }
    Row { table, time, dimensions, metrics }
}
