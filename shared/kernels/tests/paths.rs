//! Every path of a kernel against a plain loop, over values that bring out what differs: absent ones, both zeros, extremes.

use kernels::{
    CHUNK_ROWS, EXPONENTS, FewRows, Groups, LANES, MomentsLanes, Rows, Scale, Selection, SlotSums, SumLanes, Values,
    add_lanes, and_any_of, and_listed, and_none_of, and_range, and_times, append_bucket, append_codes, count_few,
    count_numbers, count_pairs, count_present, count_rows, count_slots_present, few_max, greatest, greatest_few,
    greatest_slots, key_range, keys_by_time, least, least_few, least_slots, list_pairs, list_values, mark_pairs,
    sum_few,
};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -1e6..1e6,
        1 => Just(f64::NAN),
        1 => prop::sample::select(vec![0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1.5]),
    ]
}

/// Rows with a selection of any density: runs of none, of all, and bits at random.
fn chunk() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
    let word = prop_oneof![
        Just(vec![true; 64]),
        Just(vec![false; 64]),
        prop::collection::vec(any::<bool>(), 64),
        prop::collection::vec(prop::bool::weighted(0.05), 64),
    ];
    (prop::collection::vec(word, 1..8), 0_usize..64).prop_flat_map(|(words, cut)| {
        let mut kept = words.concat();
        kept.truncate(kept.len() - cut);
        (prop::collection::vec(value(), kept.len()), Just(kept))
    })
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn selection(kept: &[bool]) -> Selection {
    let flags: Vec<u8> = kept.iter().map(|&kept| u8::from(kept)).collect();
    let mut selection = Selection::all(kept.len());
    and_any_of(&mut selection, &flags, &[1]);
    selection
}

proptest! {
    /// Goal: each filter keeps exactly the rows that a plain test keeps, among those that were in.
    #[test]
    fn filters_keep_what_passes((values, kept) in chunk(), least in value(), greatest in value(), codes: [u32; 6], absent: bool) {
        let before = selection(&kept);
        let check = |name: &str, got: &Selection, keep: &dyn Fn(usize) -> bool| {
            for (row, &kept) in kept.iter().enumerate() {
                prop_assert_eq!(got.contains(row), kept && keep(row), "{} row {}", name, row);
            }
            prop_assert_eq!(got.count(), (0..kept.len()).filter(|&row| kept[row] && keep(row)).count());
            Ok(())
        };
        let mut got = before.clone();
        and_range(&mut got, &values, least, greatest, absent);
        check("range", &got, &|row| values[row] >= least && values[row] <= greatest || absent && values[row].is_nan())?;
        let times: Vec<i64> = values.iter().map(|value| *value as i64).collect();
        let (start, end) = (least.min(greatest) as i64, least.max(greatest) as i64);
        let mut got = before.clone();
        and_times(&mut got, &times, start, end);
        check("times", &got, &|row| start <= times[row] && times[row] < end)?;
        let small: Vec<u8> = times.iter().map(|time| (time % 7).unsigned_abs() as u8).collect();
        let wide: Vec<u32> = small.iter().map(|&code| u32::from(code)).collect();
        for count in 0..codes.len() {
            let wanted: Vec<u32> = codes[..count].iter().map(|code| code % 300).collect();
            let listed: Vec<u8> = (0..7).map(|code| u8::from(wanted.contains(&code))).collect();
            let (mut narrow, mut broad, mut none, mut looked_up) = (before.clone(), before.clone(), before.clone(), before.clone());
            and_any_of(&mut narrow, &small, &wanted);
            and_any_of(&mut broad, &wide, &wanted);
            and_none_of(&mut none, &small, &wanted);
            and_listed(&mut looked_up, &small, &listed);
            check("any of", &narrow, &|row| wanted.contains(&wide[row]))?;
            check("any of, wide", &broad, &|row| wanted.contains(&wide[row]))?;
            check("none of", &none, &|row| !wanted.contains(&wide[row]))?;
            check("listed", &looked_up, &|row| wanted.contains(&wide[row]))?;
        }
    }

    /// Goal: dense, masked and sparse loops add the same numbers in the same order: lane by lane, in row order.
    #[test]
    fn aggregates_take_rows_in_lanes((values, kept) in chunk()) {
        let selection = selection(&kept);
        let mut lanes = [0.0_f64; kernels::LANES];
        let present: Vec<f64> = (0..kept.len()).filter(|&row| kept[row] && !values[row].is_nan()).map(|row| {
            lanes[row % kernels::LANES] += values[row];
            values[row]
        }).collect();
        let [a, b, c, d, e, f, g, h] = lanes;
        let mut sum = SumLanes::default();
        sum.add(values[..].into(), &selection);
        prop_assert_eq!(sum.sum().to_bits(), (((a + e) + (c + g)) + ((b + f) + (d + h))).to_bits());
        prop_assert_eq!(sum.count(), present.len() as u64);
        prop_assert_eq!(count_present(values[..].into(), &selection), present.len() as u64);
        prop_assert_eq!(least(values[..].into(), &selection), present.iter().copied().fold(f64::INFINITY, f64::min));
        prop_assert_eq!(greatest(values[..].into(), &selection), present.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let small: Vec<f64> = values.iter().map(|value| value % 1e6).collect();
        let moments = MomentsLanes::of(&small, &selection);
        prop_assert_eq!(moments.count, present.len() as u64);
        if !present.is_empty() {
            let mean = present.iter().map(|value| value % 1e6).sum::<f64>() / present.len() as f64;
            let deviation = present.iter().map(|value| (value % 1e6 - mean).powi(2)).sum::<f64>();
            prop_assert!((moments.mean - mean).abs() <= 1e-9 * (1.0 + mean.abs()), "{} {}", moments.mean, mean);
            prop_assert!((moments.deviation - deviation).abs() <= 1e-9 * (1.0 + deviation), "{} {}", moments.deviation, deviation);
        }
    }

    /// Goal: keys, lanes and sums by slot are those of a plain loop, for listed rows as for all.
    #[test]
    fn slots_take_rows_in_order((values, kept) in chunk(), interval in 1_i64..1_000, shift: i32) {
        let selection = selection(&kept);
        let mut list = [0; CHUNK_ROWS];
        let listed = selection.list(&mut list).to_vec();
        prop_assert_eq!(&listed, &(0..kept.len()).filter(|&row| kept[row]).map(|row| row as u16).collect::<Vec<_>>());
        let times: Vec<i64> = (0..values.len()).map(|row| (row as i64 % 97) * 13 + i64::from(shift)).collect();
        let codes: Vec<u16> = (0..values.len()).map(|row| (row % 5) as u16).collect();
        let first = i64::from(shift).div_euclid(interval);
        for rows in [Rows::All(kept.len()), Rows::Listed(&listed)] {
            let taken: Vec<usize> = match rows {
                Rows::All(count) => (0..count).collect(),
                Rows::Listed(rows) => rows.iter().map(|&row| usize::from(row)).collect(),
            };
            let mut slots = vec![0_u32; rows.len()];
            append_bucket(&mut slots, rows, &times, interval, first);
            append_codes(&mut slots, rows, &codes, 5);
            add_lanes(&mut slots, rows);
            let expected: Vec<u32> = taken.iter().map(|&row| {
                let bucket = (times[row].div_euclid(interval) - first) as u32;
                (bucket * 5 + u32::from(codes[row])) * LANES as u32 + (row % LANES) as u32
            }).collect();
            prop_assert_eq!(&slots, &expected);
            let end = expected.iter().max().map_or(0, |&slot| slot as usize + 1);
            let (mut got, mut sums, mut absent) = (SlotSums::default(), vec![0.0_f64; end], vec![0; end]);
            got.grow(end);
            got.add(&slots, rows, values[..].into());
            for (&row, &slot) in taken.iter().zip(&expected) {
                match values[row].is_nan() {
                    true => absent[slot as usize] += 1,
                    false => sums[slot as usize] += values[row],
                }
            }
            prop_assert_eq!(bits(&got.sums), bits(&sums));
            prop_assert_eq!((0..end).map(|slot| got.absent(slot)).collect::<Vec<_>>(), absent);
        }
    }

    /// Goal: sums that mark are the others, and say of every slot whether it has rows, and whether one of them has a value: zeros of
    /// either sign, values that cancel out, and absent ones alone.
    #[test]
    fn marking_sums_say_where_rows_are((values, kept) in chunk(), groups in 1..40_u32, absent in any::<bool>()) {
        let rows: Vec<u16> = (0..kept.len()).filter(|&row| kept[row]).map(|row| row as u16).collect();
        let values: Vec<f64> = values.iter().enumerate().map(|(row, &value)| match row % 5 {
            0 => -0.0,
            1 if row > 0 => -values[row - 1],
            _ if !absent && value.is_nan() => 3.0,
            _ => value,
        }).map(|value| if absent || !value.is_nan() { value } else { 0.0 }).collect();
        for rows in [Rows::All(values.len()), Rows::Listed(&rows)] {
            let taken: Vec<usize> = match rows {
                Rows::All(count) => (0..count).collect(),
                Rows::Listed(rows) => rows.iter().map(|&row| usize::from(row)).collect(),
            };
            // Neighbours often have one slot, so that they cancel out; the last slot has no row.
            let slots: Vec<u32> = (0..taken.len() as u32).map(|k| k / 2 % groups).collect();
            let (mut marking, mut plain) = (SlotSums::marking(), SlotSums::default());
            for sums in [&mut marking, &mut plain] {
                sums.grow(groups as usize + 1);
                sums.add(&slots, rows, values[..].into());
            }
            for slot in 0..=groups as usize {
                let of_slot: Vec<f64> =
                    taken.iter().zip(&slots).filter(|(_, of)| **of as usize == slot).map(|(&row, _)| values[row]).collect();
                let present = of_slot.iter().filter(|value| !value.is_nan()).count() as u64;
                prop_assert_eq!((marking.sums[slot] + 0.0).to_bits(), plain.sums[slot].to_bits());
                prop_assert_eq!(marking.has_rows(slot), !of_slot.is_empty());
                prop_assert_eq!(marking.present(slot, 1), u64::from(present > 0));
                prop_assert_eq!(plain.present(slot, of_slot.len() as u64), present);
            }
        }
    }

    /// Goal: codes, numbers and values go to the groups of their rows, in whichever form these are at hand, and for listed rows as
    /// for all.
    #[test]
    fn groups_are_one_in_all_forms((values, kept) in chunk(), first in 0..3_u32, lanes_log2 in 0..4_u32) {
        const WIDTH: usize = 70;
        const GROUPS: usize = 12;
        let listed: Vec<u16> = (0..kept.len()).filter(|&row| kept[row]).map(|row| row as u16).collect();
        let codes: Vec<u16> = (0..values.len()).map(|row| (row * 31 % WIDTH) as u16).collect();
        let keys: Vec<u8> = (0..values.len()).map(|row| (row * 7 % 9) as u8).collect();
        let group_of = |row: usize| first + u32::from(keys[row]);
        let slots = |rows: &[usize]| -> Vec<u32> {
            rows.iter().map(|&row| group_of(row) << lanes_log2 | row as u32 & ((1 << lanes_log2) - 1)).collect()
        };
        let all: Vec<usize> = (0..values.len()).collect();
        let some: Vec<usize> = listed.iter().map(|&row| usize::from(row)).collect();
        let (of_all, of_some) = (slots(&all), slots(&some));
        let forms = [
            (Groups::One, Rows::All(all.len())),
            (Groups::One, Rows::Listed(&listed)),
            (Groups::Keys { keys: &keys, first }, Rows::All(all.len())),
            (Groups::Slots { slots: &of_all, lanes_log2 }, Rows::All(all.len())),
            (Groups::Slots { slots: &of_some, lanes_log2 }, Rows::Listed(&listed)),
        ];
        for (groups, rows) in forms {
            let taken = if let Rows::All(_) = rows { &all } else { &some };
            let group = |row: usize| if let Groups::One = groups { 0 } else { group_of(row) };
            let (mut counts, mut marks) = (vec![0; GROUPS * WIDTH], vec![0; GROUPS * 2]);
            let (mut want_counts, mut want_marks) = (counts.clone(), marks.clone());
            count_pairs(groups, rows, &codes, WIDTH, &mut counts);
            mark_pairs(groups, rows, &codes, 2, &mut marks);
            let (mut pairs, mut listed_values) = (Vec::new(), Vec::new());
            list_pairs(groups, rows, &codes, &mut pairs);
            list_values(groups, rows, &values, &mut listed_values);
            let (mut want_pairs, mut want_values) = (Vec::new(), Vec::new());
            for &row in taken {
                let (group, code) = (group(row), usize::from(codes[row]));
                want_counts[group as usize * WIDTH + code] += 1;
                want_marks[group as usize * 2 + code / 64] |= 1_u64 << (code % 64);
                want_pairs.extend((code > 0).then_some(u64::from(group) << 32 | code as u64));
                want_values.extend((!values[row].is_nan()).then_some((group, values[row].to_bits())));
            }
            prop_assert_eq!((&counts, marks, pairs), (&want_counts, want_marks, want_pairs));
            prop_assert_eq!(listed_values.iter().map(|(group, value)| (*group, value.to_bits())).collect::<Vec<_>>(), want_values);
            let numbers: Vec<u32> = taken.iter().map(|&row| u32::from(codes[row])).collect();
            let mut counts = vec![0; GROUPS * WIDTH];
            count_numbers(groups, &numbers, 0, WIDTH, &mut counts);
            prop_assert_eq!(counts, want_counts);
        }
    }

    /// Goal: where a chunk has few groups, masks add the same numbers to the same slots in the same order as slots do, and keep
    /// the same extremes, for every number of groups, whichever rows are taken; and they add nothing at all where a value that is
    /// taken is absent.
    #[test]
    fn masks_take_what_slots_take(
        (mut values, kept) in chunk(),
        groups in 1..=20_u8,
        least in 0..9_u8,
        hole in prop::option::of(0..500_usize),
        all in any::<bool>(),
    ) {
        values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 2.5);
        if let Some(value) = hole.and_then(|row| values.get_mut(row)) {
            *value = f64::NAN;
        }
        let times: Vec<i64> = (0..values.len() as i64).map(|row| row * 7 % 1_000).collect();
        let starts: Vec<i64> = (1..i64::from(groups)).map(|at| at * 1_000 / i64::from(groups)).collect();
        let mut keys = vec![9; values.len()];
        keys_by_time(&times, &starts, &mut keys);
        for (key, time) in keys.iter_mut().zip(&times) {
            prop_assert_eq!(usize::from(*key), starts.iter().filter(|start| time >= start).count());
            *key += least;
        }
        let (first, last) = key_range(&keys);
        prop_assert_eq!((Some(&first), Some(&last)), (keys.iter().min(), keys.iter().max()));
        let kept = selection(&kept);
        let mut list = [0; CHUNK_ROWS];
        let (selected, rows) = match all {
            true => (None, Rows::All(keys.len())),
            false => (Some(&kept), Rows::Listed(kept.list(&mut list))),
        };
        let few = FewRows { keys: &keys, least: first, greatest: last, selection: selected };
        let slots = (usize::from(last) + 1) * LANES;
        let mut of_rows = vec![0; rows.len()];
        append_codes(&mut of_rows, rows, &keys, 256);
        add_lanes(&mut of_rows, rows);
        let (mut counts, mut want_counts) = (vec![0; slots], vec![0; slots]);
        count_few(&keys, first, last, selected, &mut counts);
        count_rows(&of_rows, &mut want_counts);
        for (few, each) in counts.chunks(LANES).zip(want_counts.chunks(LANES)) {
            prop_assert_eq!(few.iter().sum::<u32>(), each.iter().sum::<u32>());
        }
        let can = usize::from(last - first) < few_max();
        let values = values[..].into();
        let (mut least, mut greatest) = (vec![f64::INFINITY; slots], vec![f64::NEG_INFINITY; slots]);
        let (mut want_least, mut want_greatest) = (least.clone(), greatest.clone());
        least_slots(&of_rows, rows, values, &mut want_least);
        greatest_slots(&of_rows, rows, values, &mut want_greatest);
        prop_assert_eq!((least_few(few, values, &mut least), greatest_few(few, values, &mut greatest)), (can, can));
        if can {
            prop_assert_eq!((bits(&least), bits(&greatest)), (bits(&want_least), bits(&want_greatest)));
        }
        let mut want = SlotSums::default();
        want.grow(slots);
        let mut got = want.sums.clone();
        // Two chunks, so that sums do not begin at zero.
        for _ in 0..2 {
            let before = bits(&got);
            let added = sum_few(few, values, &mut got);
            want.add(&of_rows, rows, values);
            if !can || (0..slots).any(|slot| want.absent(slot) > 0) {
                prop_assert!(!added);
                prop_assert_eq!(bits(&got), before);
            } else if added {
                prop_assert_eq!(bits(&got), bits(&want.sums));
            } else {
                // Infinite sums may meet; whoever is told so takes the other way.
                prop_assert!(want.sums.iter().any(|sum| sum.is_nan()));
                return Ok(());
            }
        }
    }

    /// Goal: aggregates of digits are, bit for bit, those of the doubles that they stand for, of any width, whichever rows are
    /// taken, in total and by slots, few or many.
    #[test]
    fn digits_are_the_doubles_that_they_stand_for(
        (numbers, kept) in (prop::collection::vec(prop_oneof![8 => 1..256_u32, 1 => Just(0)], 1..400), any::<u64>()),
        no_hole in any::<bool>(),
        base in -(1_i64 << 40)..1 << 40,
        exponent in prop::sample::select(&EXPONENTS[..]),
        groups in 1..=9_u32,
    ) {
        let numbers: Vec<u32> = numbers.into_iter().map(|number| number.max(u32::from(no_hole))).collect();
        let scale = Scale::new(base, exponent).unwrap();
        let narrow: (Vec<u8>, Vec<u16>) = numbers.iter().map(|&number| (number as u8, number as u16)).unzip();
        let doubles: Vec<f64> = numbers.iter().map(|&number| scale.value(number)).collect();
        let flags: Vec<bool> = (0..numbers.len()).map(|row| kept >> (row % 64) & 1 == 1).collect();
        let some = selection(&flags);
        let keys: Vec<u8> = (0..numbers.len() as u32).map(|row| (row * 5 % groups) as u8).collect();
        let mut list = [0; CHUNK_ROWS];
        let listed = some.list(&mut list);
        let of = |values: Values<'_>, all: bool| {
            let everything = Selection::all(numbers.len());
            let (selected, rows) = if all { (&everything, Rows::All(numbers.len())) } else { (&some, Rows::Listed(listed)) };
            let mut sum = SumLanes::default();
            sum.add(values, selected);
            let mut found = vec![sum.sum(), sum.count() as f64, count_present(values, selected) as f64];
            found.extend([least(values, selected), greatest(values, selected)]);
            let mut slots = vec![0; rows.len()];
            append_codes(&mut slots, rows, &keys, 256);
            add_lanes(&mut slots, rows);
            let all_slots = groups as usize * LANES;
            let mut sums = SlotSums::default();
            sums.grow(all_slots);
            sums.add(&slots, rows, values);
            found.extend((0..all_slots).map(|slot| f64::from(sums.absent(slot))).chain(sums.sums.iter().copied()));
            let mut counts = vec![0; all_slots];
            count_slots_present(&slots, rows, values, &mut counts);
            found.extend(counts.into_iter().map(|count| count as f64));
            let (first, last) = key_range(&keys);
            let few = FewRows { keys: &keys, least: first, greatest: last, selection: (!all).then_some(&some) };
            for (take, take_few, none) in [
                (least_slots as fn(&[u32], Rows<'_>, Values<'_>, &mut [f64]), least_few as fn(FewRows<'_>, Values<'_>, &mut [f64]) -> bool, f64::INFINITY),
                (greatest_slots, greatest_few, f64::NEG_INFINITY),
            ] {
                let (mut by_slot, mut by_mask) = (vec![none; all_slots], vec![none; all_slots]);
                take(&slots, rows, values, &mut by_slot);
                found.push(f64::from(u8::from(take_few(few, values, &mut by_mask))));
                found.extend(by_slot.into_iter().chain(by_mask));
            }
            let mut by_mask = vec![0.0; all_slots];
            found.push(f64::from(u8::from(sum_few(few, values, &mut by_mask))));
            found.extend(by_mask);
            bits(&found)
        };
        for all in [true, false] {
            let expected = of(Values::Doubles(&doubles), all);
            for values in [Values::U8(&narrow.0, scale), Values::U16(&narrow.1, scale), Values::U32(&numbers, scale)] {
                prop_assert_eq!(of(values, all), expected.clone(), "{:?}", values);
            }
        }
    }
}
