//! What became of all that a writer sent.

use std::collections::BTreeSet;

use crate::{
    Options,
    tokens::{Name, Tokens},
};

/// A row that the server rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Which of the rows that the writer took: the first is 0.
    pub row: u64,
    /// The code, `INVALID_ARGUMENT` and the like.
    pub code: String,
    /// Why.
    pub message: String,
}

/// What became of all that a writer sent, as far as it is acked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows appended, duplicates included.
    pub accepted: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// The first of them, in no order between batches.
    pub rejects: Vec<RejectedRow>,
    /// Batches acked.
    pub batches: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// What the acks mean: `synced`, `replicated` or `broker`; empty before the first.
    pub durability: String,
    /// A query that presents all of these as `after` sees all rows of this summary, as long as its batches went through
    /// one run of one gateway; the newest comes last. Not one alone: batches that were under way together may have been
    /// acked in any order.
    pub tokens: Vec<String>,
    kept: Tokens,
}

impl Summary {
    /// Adds the ack of the next batch in the order of sending; `rows` are its rows by their index in the request, `tables`
    /// those that it was for.
    pub(crate) fn add(
        &mut self,
        reply: proto::v1::IngestReply,
        rows: &[u64],
        tables: BTreeSet<Name>,
        options: &Options,
    ) {
        self.accepted += reply.accepted;
        self.rejected += reply.rejected.len() as u64;
        self.batches += 1;
        for reject in reply.rejected {
            if self.rejects.len() >= options.rejects_listed_max {
                break;
            }
            // An index that the batch does not have cannot be; the reason is worth showing all the same.
            let row = rows.get(reject.index as usize).copied().unwrap_or(u64::MAX);
            self.rejects.push(RejectedRow { row, code: reject.code, message: reject.message });
        }
        if !reply.durability.is_empty() {
            self.durability = reply.durability;
        }
        if !reply.token.is_empty() {
            self.kept.add(reply.token, tables, options.batches_in_flight_max.max(1));
            self.tokens = self.kept.list();
        }
    }
}
