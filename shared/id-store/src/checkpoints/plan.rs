//! What to write of a piece, and what to leave as it is. Pure.

use std::ops::Range;

use super::manifest::Part;

/// Bytes of a part, about; a part that is at least half as long is not written again for the sake of fewer parts.
pub(super) const PART_BYTES: u64 = 4 << 20;

/// What becomes of some items of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// They stay in this part.
    Keep(Part),
    /// They make a part.
    Write(Range<u64>),
}

/// The steps for a piece of so many items of so many bytes each. `parts` hold its first items; those for which `is_good`
/// does not hold are written again. Short parts at the end are written again together with what comes after them, if that
/// is as much: so a piece that grows little by little has few parts, and each item is written few times.
pub(super) fn steps(parts: &[Part], items: u64, item_bytes: u64, is_good: impl Fn(&Part) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = 0;
    for part in parts {
        steps.push(if is_good(part) { Step::Keep(*part) } else { Step::Write(at..part.end) });
        at = part.end;
    }
    let mut tail = at..items;
    while let Some(Step::Keep(last)) = steps.last()
        && !tail.is_empty()
        && last.length < PART_BYTES / 2
    {
        let from = if steps.len() > 1 { parts[steps.len() - 2].end } else { 0 };
        if tail.end - tail.start < last.end - from {
            break;
        }
        tail.start = from;
        steps.pop();
    }
    let items_max = (PART_BYTES / item_bytes.max(1)).max(1);
    steps.push(Step::Write(tail));
    let cut = steps.into_iter().flat_map(|step| match step {
        Step::Keep(_) => vec![step],
        Step::Write(range) => cut(range, items_max).map(Step::Write).collect(),
    });
    cut.collect()
}

fn cut(range: Range<u64>, items_max: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (start..end).step_by(items_max as usize).map(move |from| from..end.min(from + items_max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(steps: &[Step], item_bytes: u64, pack: u64) -> Vec<Part> {
        let part = |step: &Step| match step {
            Step::Keep(part) => *part,
            Step::Write(range) => {
                Part { pack, position: 0, length: (range.end - range.start) * item_bytes, end: range.end, checksum: 0 }
            }
        };
        steps.iter().map(part).collect()
    }

    proptest! {
        /// Goal: however a piece grows and whatever packs are given up, the parts are all of its items in order, none is
        /// longer than it may be, and what is good and long stays.
        #[test]
        fn parts_are_the_piece(
            growth in prop::collection::vec(0_u64..2_000_000, 1..20),
            given_up in prop::collection::vec(0_u64..20, 0..4),
            item_bytes in 1_u64..200,
        ) {
            let (mut parts, mut items) = (Vec::<Part>::new(), 0);
            for (pack, more) in growth.into_iter().enumerate() {
                items += more;
                let is_good = |part: &Part| !given_up.contains(&part.pack);
                let steps = steps(&parts, items, item_bytes, is_good);
                let long = parts.iter().filter(|part| is_good(part) && part.length >= PART_BYTES / 2);
                prop_assert!(long.into_iter().all(|part| steps.contains(&Step::Keep(*part))));
                parts = write(&steps, item_bytes, pack as u64);
                prop_assert_eq!(parts.last().map_or(0, |part| part.end), items);
                prop_assert!(parts.is_sorted_by(|before, after| before.end < after.end));
                prop_assert!(parts.iter().all(|part| part.length <= PART_BYTES.max(item_bytes)));
            }
        }
    }

    /// Goal: what grows by one item at a time is written about as often as its length has digits.
    #[test]
    fn little_by_little_is_cheap() {
        let (mut parts, mut written) = (Vec::new(), 0);
        for items in 1..=4_096 {
            let steps = steps(&parts, items, 10, |_| true);
            let new = steps.iter().map(|step| if let Step::Write(range) = step { range.end - range.start } else { 0 });
            written += new.sum::<u64>();
            parts = write(&steps, 10, items);
            assert!(parts.len() <= 13, "{} parts", parts.len());
        }
        assert!(written <= 13 * 4_096, "{written} items");
    }
}
