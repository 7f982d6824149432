//! Queries over real partitions against a plain list of rows.

mod world;

use proptest::prelude::*;
use query::ValueLimits;
use questions::{Tables, random_query};
use world::{Random, Shape, World, check, tiny};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Goal: any query over any rows has the model's answer, where slots, segments, code widths and dictionary epochs change
    /// every few rows.
    #[test]
    fn small_worlds_have_the_models_answers(seed: u64, rows in 1_usize..1_500, in_order: bool) {
        let shape = Shape { rows, limits: tiny(), span_us: 3_000, in_order, users: 400 };
        let mut world = World::new(seed, shape);
        let mut random = Random(seed ^ 1);
        // However many values and groups travel, and however many rounds that takes.
        world.limits.values = ValueLimits {
            auto_rows_max: random.pick(&[0, 500, 1 << 17]),
            values_max: random.pick(&[0, 30, 1 << 21]),
            leading_max: random.pick(&[1, 3, 20, 1 << 12]),
        };
        for _ in 0..25 {
            check(&world, &random_query(&mut random, &world.rows, shape.span_us, Tables::Any))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Goal: the same where segments have many chunks, and codes of two bytes and of four.
    #[test]
    fn large_worlds_have_the_models_answers(seed: u64, in_order: bool) {
        let limits = engine::Limits { slot_width_us: 40_000, ..engine::Limits::default() };
        let shape = Shape { rows: 60_000, limits, span_us: 100_000, in_order, users: 70_000 };
        let mut world = World::new(seed, shape);
        let mut random = Random(seed ^ 1);
        // However many values and groups travel, and however many rounds that takes.
        world.limits.values = ValueLimits {
            auto_rows_max: random.pick(&[0, 500, 1 << 17]),
            values_max: random.pick(&[0, 30, 1 << 21]),
            leading_max: random.pick(&[1, 3, 20, 1 << 12]),
        };
        for _ in 0..25 {
            check(&world, &random_query(&mut random, &world.rows, shape.span_us, Tables::Any))?;
        }
    }
}
