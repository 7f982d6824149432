//! Questions, what their answers must be over a known set of events, and whether an answer lies between two such sets.

use std::{collections::BTreeMap, ops::Range};

use serde_json::{Value, json};

use super::{
    event::{Event, Lane, NAMESPACE, REGIONS, Table, USERS, numbers_near, whole_window, window_of},
    oracle::Known,
};
use crate::random::Random;

/// Rows that an answer may have.
const LIMIT: u32 = 1_000_000;
/// Events of a lane in a question that asks for each of them.
const SINGLE_EVENTS: u64 = 2_000;

/// What is counted.
#[derive(Debug, Clone, PartialEq)]
enum Filter {
    All,
    Region(&'static str),
    Regions(&'static str, &'static str),
    NotRegion(&'static str),
    Numbers(u64, u64),
    Sized(bool),
}

/// By what it is told apart, besides time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    None,
    Region,
    Lane,
    User,
}

/// A question about one table.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) table: Table,
    origin: i64,
    window: Range<i64>,
    filter: Filter,
    group: Group,
    interval_us: Option<i64>,
}

/// Start of the bucket of time, and the value of the group.
type Key = (Option<i64>, Option<String>);
/// The answer over a set of events.
type Tallies = BTreeMap<Key, Tally>;

/// One row of an answer. All figures of what may be added grow or, the least value, shrink with the events counted.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tally {
    count: u64,
    sum_n: f64,
    min_n: Option<f64>,
    max_n: Option<f64>,
    count_size: u64,
    sum_size: f64,
}

impl Question {
    /// All of a table by lane: counts what is lost and what counts twice.
    pub(crate) fn whole(table: Table, origin: i64, before: u64) -> Self {
        let window = whole_window(origin, before);
        Self { table, origin, window, filter: Filter::All, group: Group::Lane, interval_us: None }
    }

    /// Each event of a range of numbers by itself: times of a lane differ, so a bucket of 1 µs holds one.
    pub(crate) fn singly(table: Table, origin: i64, numbers: &Range<u64>) -> Self {
        let window = window_of(origin, numbers);
        Self { table, origin, window, filter: Filter::All, group: Group::Lane, interval_us: Some(1) }
    }

    /// Each event of a range of numbers by itself, wherever its time is.
    pub(crate) fn numbered(table: Table, origin: i64, numbers: &Range<u64>) -> Self {
        let filter = Filter::Numbers(numbers.start, numbers.end);
        let window = whole_window(origin, numbers.end);
        Self { table, origin, window, filter, group: Group::Lane, interval_us: Some(1) }
    }

    /// Any question about a table whose lanes have sent events below `before`.
    pub(crate) fn random(table: Table, origin: i64, before: u64, random: &mut Random) -> Self {
        let numbers = table.lanes()[0].1.clone();
        let (first, end) = (numbers.start, numbers.end.min(before.max(numbers.start + 1)));
        let span = |widest: u64, random: &mut Random| {
            let wide = random.within(1..widest.min(end - first).max(1) + 1);
            let start = if random.chance(50) { end - wide } else { random.within(first..end - wide + 1) };
            window_of(origin, &(start..start + wide + 1))
        };
        if random.chance(20) {
            let window = span(SINGLE_EVENTS, random);
            return Self { table, origin, window, filter: Filter::All, group: Group::Lane, interval_us: Some(1) };
        }
        let window = match random.within(0..10) {
            0 => whole_window(origin, end),
            1..5 => span(u64::MAX, random),
            _ => span(20_000, random),
        };
        let filter = match random.within(0..8) {
            0 => Filter::Region(random.choose::<&str>(&REGIONS)),
            1 => Filter::Regions(REGIONS[0], random.choose::<&str>(&REGIONS[1..])),
            2 => Filter::NotRegion(random.choose::<&str>(&REGIONS)),
            3 => {
                let start = random.within(first..end);
                Filter::Numbers(start, start + random.within(1..5_000))
            }
            4 => Filter::Sized(random.chance(50)),
            _ => Filter::All,
        };
        let group = *random.choose(&[Group::None, Group::None, Group::Region, Group::Lane, Group::User]);
        // Narrow buckets by user over a long life are more groups than a server answers with.
        let widest =
            if group == Group::User { (i64::from(LIMIT) / USERS.cast_signed() - 1) * 250_000 } else { i64::MAX };
        let narrow = if window.end - window.start < widest { 250_000 } else { 7_000_000 };
        let interval_us = random.chance(30).then(|| *random.choose(&[narrow, 7_000_000, 86_400_000_000]));
        Self { table, origin, window, filter, group, interval_us }
    }

    /// As it is posted.
    pub(crate) fn json(&self, after: &[String], allow_partial: bool) -> Value {
        let filters = match &self.filter {
            Filter::All => json!({}),
            Filter::Region(region) => json!({"region": region}),
            Filter::Regions(a, b) => json!({"region": [a, b]}),
            Filter::NotRegion(region) => json!({"region": {"ne": region}}),
            Filter::Numbers(start, end) => json!({"n": {"gte": start, "lt": end}}),
            Filter::Sized(exists) => json!({"size": {"exists": exists}}),
        };
        json!({
            "namespace": NAMESPACE, "table": self.table.name(),
            "start_time": self.window.start, "end_time": self.window.end, "filters": filters,
            "group_by": self.group.column().into_iter().collect::<Vec<_>>(), "interval_us": self.interval_us,
            "aggregates": [
                {"fn": "count"}, {"fn": "sum", "metric": "n"}, {"fn": "min", "metric": "n"},
                {"fn": "max", "metric": "n"}, {"fn": "count", "metric": "size"}, {"fn": "sum", "metric": "size"},
            ],
            "limit": LIMIT, "after": after, "allow_partial": allow_partial,
        })
    }

    /// Holds an answer against the events that it had to count and those that it could. Where both are the same, the answer
    /// must be exactly theirs.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub(crate) fn judge(&self, answer: &Value, certain: &Known, possible: &Known) -> Result<(), String> {
        let found = self.parse(answer)?;
        let (least, most) = (self.fold(certain), self.fold(possible));
        for (key, tally) in &found {
            let most = most.get(key).ok_or_else(|| format!("{key:?} has rows, and nothing was ever sent there"))?;
            let none = Tally::default();
            tally.lies_between(least.get(key).unwrap_or(&none), most).map_err(|wrong| format!("{key:?}: {wrong}"))?;
        }
        match least.iter().find(|(key, _)| !found.contains_key(key)) {
            Some((key, tally)) => Err(format!("{key:?} is missing, {tally:?} was acked there")),
            None => Ok(()),
        }
    }

    /// The numbers of a lane's events that an answer has.
    ///
    /// # Errors
    /// The answer is none, or counts an event more than once.
    pub(crate) fn numbers_found(&self, answer: &Value, lane: Lane) -> Result<Vec<u64>, String> {
        let of_lane = |(key, _): &(Key, Tally)| key.1.as_deref() == Some(lane.name());
        let found = self.parse(answer)?.into_iter().filter(of_lane);
        let once = |(key, tally): (Key, Tally)| match tally.count {
            1 => Ok(tally.sum_n as u64),
            times => Err(format!("{key:?} counts {times} times")),
        };
        found.map(once).collect()
    }

    fn parse(&self, answer: &Value) -> Result<Tallies, String> {
        if answer["receipt"]["truncated"] != json!(false) {
            return Err("the answer is cut".to_owned());
        }
        let rows = answer["rows"].as_array().ok_or("the answer has no rows")?;
        let mut tallies = Tallies::new();
        for row in rows {
            let value = self.group.column().map_or(&Value::Null, |column| &row[column]);
            let key = (row["time"].as_i64(), value.as_str().map(str::to_owned));
            let tally = Tally {
                count: row["count"].as_u64().ok_or("a row has no count")?,
                sum_n: row["sum_n"].as_f64().unwrap_or_default(),
                min_n: row["min_n"].as_f64(),
                max_n: row["max_n"].as_f64(),
                count_size: row["count_size"].as_u64().ok_or("a row has no count_size")?,
                sum_size: row["sum_size"].as_f64().unwrap_or_default(),
            };
            if let Some(other) = tallies.insert(key.clone(), tally) {
                return Err(format!("{key:?} comes twice, once with {other:?}"));
            }
        }
        Ok(tallies)
    }

    fn fold(&self, known: &Known) -> Tallies {
        let mut tallies = Tallies::new();
        if self.group == Group::None && self.interval_us.is_none() {
            tallies.insert((None, None), Tally::default());
        }
        for (lane, numbers) in self.table.lanes() {
            for number in numbers_near(self.origin, &self.window, known.before(lane).min(numbers.end)) {
                if !numbers.contains(&number) || !known.contains(lane, number) {
                    continue;
                }
                let event = Event::new(lane, number, self.origin);
                if self.window.contains(&event.time) && self.filter.holds(&event) {
                    let bucket = self.interval_us.map(|interval| event.time - event.time.rem_euclid(interval));
                    tallies.entry((bucket, self.group.value(&event))).or_default().add(&event);
                }
            }
        }
        tallies
    }
}

impl Filter {
    fn holds(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Region(region) => event.region == *region,
            Self::Regions(a, b) => event.region == *a || event.region == *b,
            Self::NotRegion(region) => event.region != *region,
            Self::Numbers(start, end) => (*start..*end).contains(&event.number),
            Self::Sized(exists) => event.size_quarters.is_some() == *exists,
        }
    }
}

impl Group {
    const fn column(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Region => Some("region"),
            Self::Lane => Some("lane"),
            Self::User => Some("user"),
        }
    }

    fn value(self, event: &Event) -> Option<String> {
        match self {
            Self::None => None,
            Self::Region => Some(event.region.to_owned()),
            Self::Lane => Some(event.lane.name().to_owned()),
            Self::User => Some(event.user_name()),
        }
    }
}

impl Tally {
    fn add(&mut self, event: &Event) {
        let n = event.number as f64;
        self.count += 1;
        self.sum_n += n;
        self.min_n = Some(self.min_n.map_or(n, |least| least.min(n)));
        self.max_n = Some(self.max_n.map_or(n, |greatest| greatest.max(n)));
        if let Some(size) = event.size() {
            self.count_size += 1;
            self.sum_size += size;
        }
    }

    fn lies_between(&self, least: &Self, most: &Self) -> Result<(), String> {
        let sums = |tally: &Self| [tally.count as f64, tally.sum_n, tally.count_size as f64, tally.sum_size];
        let sums_fit = (0..4).all(|at| (sums(least)[at]..=sums(most)[at]).contains(&sums(self)[at]));
        // With more events the least value falls and the greatest rises; over no event there is neither.
        let extremes_exist = self.min_n.is_some() == (self.count > 0) && self.max_n.is_some() == (self.count > 0);
        let above = |value: Option<f64>, floor: Option<f64>| floor.is_none_or(|floor| value.is_none_or(|v| v >= floor));
        let below = |value: Option<f64>, roof: Option<f64>| roof.is_none_or(|roof| value.is_none_or(|v| v <= roof));
        let min_fits = above(self.min_n, most.min_n) && below(self.min_n, least.min_n);
        let max_fits = above(self.max_n, least.max_n) && below(self.max_n, most.max_n);
        if sums_fit && extremes_exist && min_fits && max_fits {
            return Ok(());
        }
        Err(format!("the answer {self:?} lies not between what was acked, {least:?}, and what was sent, {most:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::oracle::Oracle;

    const ORIGIN: i64 = 1_700_000_000_000_000;

    /// Of each lane three batches acked, and one more sent.
    fn sent() -> Oracle {
        let mut oracle = Oracle::default();
        for lane in Lane::ALL {
            (0..4).for_each(|_| _ = oracle.send(lane));
            let _took = oracle.settle(lane, 3);
        }
        oracle
    }

    /// The answer that is right over a set of events.
    fn right(question: &Question, known: &Known) -> Value {
        let rows: Vec<Value> = question
            .fold(known)
            .into_iter()
            .map(|((time, group), tally)| {
                let mut row = json!({
                    "count": tally.count, "sum_n": tally.sum_n, "min_n": tally.min_n, "max_n": tally.max_n,
                    "count_size": tally.count_size, "sum_size": tally.sum_size,
                });
                if let Some(time) = time {
                    row["time"] = json!(time);
                }
                if let Some(column) = question.group.column() {
                    row[column] = json!(group);
                }
                row
            })
            .collect();
        json!({"rows": rows, "receipt": {"truncated": false}})
    }

    /// Goal: what was acked and what was sent are both right as long as the rest is under way; anything less or more is not, and
    /// at rest nothing but the one answer is.
    #[test]
    fn answers_are_told_from_lies() {
        let oracle = sent();
        let (certain, possible) = (oracle.certain(), oracle.possible());
        let mut random = Random::new(7);
        let mut empty = 0;
        for round in 0..400 {
            let table = [Table::Keyed, Table::Plain, Table::Auto(0)][round % 3];
            let question = Question::random(table, ORIGIN, 4 * 120, &mut random);
            for known in [&certain, &possible] {
                let answer = right(&question, known);
                question.judge(&answer, &certain, &possible).unwrap();
                question.judge(&answer, known, known).unwrap();
                let rows = answer["rows"].as_array().unwrap().len();
                let Some(at) = (0..rows).find(|at| answer["rows"][at]["count"] != 0) else {
                    empty += 1;
                    continue;
                };
                for (field, by) in [("count", 1.0), ("count", -1.0), ("sum_n", 0.5), ("min_n", -1.0), ("max_n", 1.0)] {
                    let mut lie = answer.clone();
                    let value = lie["rows"][at][field].as_f64().unwrap() + by;
                    lie["rows"][at][field] = if field == "count" { json!(value as u64) } else { json!(value) };
                    question.judge(&lie, known, known).unwrap_err();
                }
                let mut lie = answer.clone();
                lie["rows"].as_array_mut().unwrap().remove(at);
                question.judge(&lie, known, known).unwrap_err();
                let mut lie = answer.clone();
                let row = lie["rows"][at].clone();
                lie["rows"].as_array_mut().unwrap().push(row);
                question.judge(&lie, known, known).unwrap_err();
            }
            let (least, most) = (question.fold(&certain), question.fold(&possible));
            if least != most {
                question.judge(&right(&question, &certain), &possible, &possible).unwrap_err();
                question.judge(&right(&question, &possible), &certain, &certain).unwrap_err();
            }
        }
        assert!(empty < 400, "{empty} of 800 answers were over nothing");
    }

    /// Goal: a question for single events finds each once, and says which counts twice.
    #[test]
    fn doubles_are_found() {
        let oracle = sent();
        let numbers = Lane::Lines.numbers(1);
        let question = Question::numbered(Table::Keyed, ORIGIN, &numbers);
        let mut answer = right(&question, &oracle.certain());
        let mut found = question.numbers_found(&answer, Lane::Lines).unwrap();
        found.sort_unstable();
        assert_eq!(found, numbers.collect::<Vec<_>>());
        let rows = answer["rows"].as_array_mut().unwrap();
        let double = rows.iter_mut().find(|row| row["lane"] == "lines").unwrap();
        double["count"] = json!(2);
        question.numbers_found(&answer, Lane::Lines).unwrap_err();
    }
}
