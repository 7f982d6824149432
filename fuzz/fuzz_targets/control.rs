//! Headers and control records: what is accepted survives its bytes.
#![no_main]

use codec::{BlockHeader, ControlRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = BlockHeader::decode(bytes);
    if let Ok(record) = ControlRecord::decode(bytes) {
        assert_eq!(ControlRecord::decode(&record.encode()).expect("made by encode"), record);
    }
});
