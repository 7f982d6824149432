//! The JSON of a query: refused with a message, or within all limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use query::{QueryLimits, parse};

fuzz_target!(|bytes: &[u8]| {
    let limits = QueryLimits::default();
    match parse(bytes, &limits) {
        Ok(query) => {
            assert!(
                query.range.start() < query.range.end() && !query.tables.is_empty() && !query.aggregates.is_empty()
            );
            assert!(query.limit <= limits.rows_max && query.timeout <= limits.timeout_max);
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
});
