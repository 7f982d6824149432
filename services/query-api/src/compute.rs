//! The computation of a question: from its plan to what all who ask it at the same time are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cache::CacheKey;
use query::{Answer, Plan, Query, ScanStats};
use tokio::sync::OwnedSemaphorePermit;
use types::{ApiError, Offset, PartitionId, Table, TenantId, Timestamp};

use crate::{
    answer::{Answers, now},
    arrivals::EarlyMerge,
    conclude::{Concluded, Scans},
    fanout::{FanOut, Gathered},
    flights::Terms,
    held::{Share, Unsent},
    receipt::{self, Missing},
    results::KeptResult,
};

/// How often a query is scanned anew where rows leave between the rounds of its selection.
const SCANS_MAX: usize = 3;

/// Kept results of so many bytes are read where the question arrived.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// A question and what is known of it before it is computed.
pub(crate) struct Question {
    pub(crate) tenant: TenantId,
    pub(crate) query: Query,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) plan: Arc<Plan>,
    /// All that it asks.
    pub(crate) key: CacheKey,
}

/// What came of a question, of one state of its rows.
#[derive(Debug)]
pub(crate) struct Computed {
    /// The list of rows, as JSON text without white space between rows.
    pub(crate) rows: String,
    /// The list of the aggregates' descriptions, as JSON text.
    pub(crate) columns: String,
    /// Of both.
    pub(crate) share: Share,
    pub(crate) truncated: bool,
    pub(crate) stats: ScanStats,
    /// Whether rows and columns were kept from an earlier time, and still are those of now.
    pub(crate) cached: bool,
    pub(crate) missing: Vec<Missing>,
    pub(crate) covered: Vec<(PartitionId, Offset)>,
    pub(crate) as_of: Timestamp,
    pub(crate) watermark: Timestamp,
    pub(crate) freshness_us: i64,
}

/// What the scans of a question gave.
struct Scanned {
    missing: Vec<Missing>,
    covered: Vec<(PartitionId, Offset)>,
    found: Found,
}

enum Found {
    /// Rows and columns as JSON text.
    Kept {
        text: (String, String),
        truncated: bool,
        segments: u64,
    },
    Made(Answer),
}

impl Question {
    /// The partitions that it is about.
    pub(crate) fn partitions(&self) -> BTreeSet<PartitionId> {
        self.tables.iter().flat_map(|table| table.partitions.iter().copied()).collect()
    }
}

impl Computed {
    /// What one of all who asked has for itself, counted apart where there are others.
    ///
    /// # Errors
    /// Those of [`Unsent::take`].
    pub(crate) fn own(self: Arc<Self>, unsent: &Unsent) -> Result<Self, ApiError> {
        let shared = match Arc::try_unwrap(self) {
            Ok(own) => return Ok(own),
            Err(shared) => shared,
        };
        let share = unsent.take(shared.rows.len() + shared.columns.len())?;
        let Self { truncated, stats, cached, as_of, watermark, freshness_us, .. } = *shared;
        let (rows, columns) = (shared.rows.clone(), shared.columns.clone());
        let (missing, covered) = (shared.missing.clone(), shared.covered.clone());
        Ok(Self { rows, columns, share, truncated, stats, cached, missing, covered, as_of, watermark, freshness_us })
    }
}

impl Answers {
    /// Computes a question.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn compute(&self, question: &Question, terms: Terms) -> Result<Computed, ApiError> {
        let place = self.places.take(terms.deadline, terms.timeout).await?;
        // Both are of a time before the scan, so that the receipt promises no more than the rows hold.
        let as_of = now();
        let watermark = self.progress.watermark(&question.tables).await?.unwrap_or_default();
        let fan_out = FanOut {
            plan: Arc::clone(&question.plan),
            partitions: question.partitions(),
            after: terms.after.into_iter().collect(),
            at: Vec::new(),
            known: Vec::new(),
            prefer: BTreeMap::new(),
            deadline: terms.deadline,
        };
        let Scanned { missing, covered, found } = self.scan(question, fan_out, &place).await?;
        let cached = matches!(found, Found::Kept { .. });
        self.results.count(cached);
        let freshness_us = self.progress.freshness_us(covered.clone(), as_of).await?;
        let (rows, columns, truncated, stats) = match found {
            Found::Made(answer) => (answer.rows, answer.columns, answer.truncated, answer.stats),
            Found::Kept { text: (rows, columns), truncated, segments } => {
                (rows, columns, truncated, ScanStats { segments_cached: segments, ..ScanStats::default() })
            }
        };
        // Counted before the place is given back, so that the texts that nobody has counted are as few as the places.
        let share = self.unsent.take(rows.len() + columns.len())?;
        drop(place);
        Ok(Computed {
            rows,
            columns,
            share,
            truncated,
            stats,
            cached,
            missing,
            covered,
            as_of,
            watermark,
            freshness_us,
        })
    }

    /// Scans until an answer is of one state of its rows, unless what was kept still is.
    async fn scan(
        &self,
        question: &Question,
        mut fan_out: FanOut,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Scanned, ApiError> {
        let mut kept = self.results.find(&question.key).await;
        fan_out.known = kept.as_ref().map(|kept| kept.versions.clone()).unwrap_or_default();
        let mut away = None;
        for scans_left in (0..SCANS_MAX).rev() {
            let placement = self.catalog.placement();
            // What one node has comes at once, and is merged faster at once.
            let early =
                self.fleet.is_many().then(|| EarlyMerge::new(Arc::clone(&fan_out.plan), fan_out.deadline, place));
            let _leaves = early.clone().map(LeavesOnDrop);
            let gathered = fan_out.run(&self.fleet, &placement, early.clone()).await?;
            // A partition that is not where the map of the beginning had it may have been moved since.
            let is_older = || self.catalog.placement().version > placement.version;
            if scans_left > 0 && !gathered.unavailable.is_empty() && is_older() {
                continue;
            }
            self.still_there(question.tenant, &question.tables).await?;
            let missing = missing(question, &gathered)?;
            let covered = gathered.covered();
            if let Some(kept) = kept.take_if(|_| gathered.is_unchanged()) {
                let (truncated, segments) = (kept.truncated, kept.segments);
                if let Some(text) = text_of(kept).await? {
                    return Ok(Scanned { missing, covered, found: Found::Kept { text, truncated, segments } });
                }
                // Its rows are no text: it is none that was written here, and all is to be scanned.
                fan_out.known.clear();
                continue;
            }
            // What a partition that is away would have is in no version.
            let versions = gathered.unavailable.is_empty().then(|| gathered.versions());
            let scans = Scans { first: &fan_out, fleet: &self.fleet, placement: &placement, place };
            away = match scans.conclude(gathered, early).await? {
                Concluded::Answer(answer) => {
                    // A partition that has forgotten the table since the first scan gave nothing to the further ones.
                    self.still_there(question.tenant, &question.tables).await?;
                    if let Some(versions) = versions {
                        self.results.keep(&question.key, &versions, &answer).await;
                    }
                    return Ok(Scanned { missing, covered, found: Found::Made(answer) });
                }
                Concluded::Away(partition) => Some(partition),
                Concluded::RowsLeft => None,
            };
        }
        if let Some(partition) = away {
            let message = format!("partition {partition} did not answer again, and this answer takes several scans");
            return Err(ApiError::unavailable(message));
        }
        Err(ApiError::unavailable(
            "rows left memory, or came late, between the scans that this answer takes; ask again, for a range further from the \
             oldest rows, or for percentiles by the method sketch",
        ))
    }
}

/// Ends the merge of results when the query is over, or nobody waits for it any more.
struct LeavesOnDrop(Arc<EarlyMerge>);

impl Drop for LeavesOnDrop {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The text of a kept result; a long one is checked and copied off the network threads.
async fn text_of(kept: KeptResult) -> Result<Option<(String, String)>, ApiError> {
    if kept.bytes() <= INLINE_BYTES_MAX {
        return Ok(kept.text());
    }
    let text = tokio::task::spawn_blocking(move || kept.text()).await;
    text.map_err(|error| ApiError::internal(format!("reading the kept answer failed: {error}")))
}

/// What the answer lacks, where it may lack anything.
fn missing(question: &Question, gathered: &Gathered) -> Result<Vec<Missing>, ApiError> {
    let (range, gaps) = (question.query.range, gathered.gaps());
    let missing = receipt::missing(range, &gathered.unavailable, &gaps, gathered.lacks_before());
    if !question.query.allow_partial {
        receipt::refuse_partial(&missing)?;
    }
    Ok(missing)
}
