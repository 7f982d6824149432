//! What a record means for the count of a table's rows.

use codec::{BlockHeader, BlockKind, ControlRecord};
use types::TableKey;

/// The table whose life a record ends: its rows are counted no more.
pub(crate) fn dropped_table(header: &BlockHeader, body: &[u8]) -> Option<TableKey> {
    if header.kind != BlockKind::Control {
        return None;
    }
    match ControlRecord::decode(body) {
        Ok(ControlRecord::TableDropped(key)) => Some(key),
        // What the log cannot read of a control record is not for the log.
        Ok(ControlRecord::TableConfigured(_) | ControlRecord::Tick) | Err(_) => None,
    }
}
