//! `GET /v1/events`: raw events, page by page, all pages of one state.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use codec::Cursor;
use placement::PlacementMap;
use proto::hot_tier::{EventsCovered, EventsRequest, NodeEvents, Unavailable};
use query::{EventPlace, Plan, Query, RawEvent};
use serde::{Serialize, Serializer};
use types::{ApiError, LogGap, Offset, PartitionId, Table, TenantId, TimeRange, Timestamp};

use crate::{
    answer::{Answers, DEADLINE_GRACE, now, offsets_of, timed_out},
    event_ids::{self, EventIds, MissingIds},
    fleet::{Ask, Fleet, Wanted},
    held::{Held, Share},
    params::{Params, QueryJson},
    receipt::{self, Missing, Receipt},
};

const PARAMETERS: &str =
    "namespace, table, start_time, end_time, filters, limit, cursor, after, timeout_ms, allow_partial";
/// Bytes of the columns of a page, about; it ends early where they are more.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Events of a page, whatever limit was asked for.
const PAGE_EVENTS_MAX: usize = 65_536;

/// What was asked.
struct Asked {
    query: Query,
    plan: Arc<Plan>,
    table: Arc<Table>,
    cursor: Option<Cursor>,
    after: Vec<(PartitionId, Offset)>,
}

/// What came back of all nodes.
struct Page {
    events: Vec<RawEvent>,
    more: bool,
    covered: Vec<EventsCovered>,
    unavailable: Vec<(PartitionId, Unavailable)>,
}

#[derive(Serialize)]
struct Reply<'a> {
    events: &'a [EventView<'a>],
    cursor: Option<String>,
    receipt: EventsReceipt,
}

#[derive(Serialize)]
struct EventsReceipt {
    #[serde(flatten)]
    receipt: Receipt,
    /// Left out where every id could be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    event_ids_missing: Vec<MissingIds>,
}

#[derive(Serialize)]
struct EventView<'a> {
    event_time: i64,
    event_id: Option<&'a str>,
    #[serde(serialize_with = "as_object")]
    dimensions: &'a [(Arc<str>, String)],
    #[serde(serialize_with = "as_object")]
    metrics: &'a [(Arc<str>, f64)],
}

fn as_object<T: Serialize, S: Serializer>(pairs: &[(Arc<str>, T)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (&**name, value)))
}

impl Answers {
    /// A page of raw events, as JSON, and until when it waits for who asked.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn events(
        &self,
        tenant: TenantId,
        params: Vec<(String, String)>,
    ) -> Result<(String, Held), ApiError> {
        let began = Instant::now();
        let (query, cursor) = self.read_events_query(params)?;
        let timeout = query.timeout;
        let deadline = began + timeout;
        let (page, until) = (self.events_page(tenant, query, cursor, deadline), deadline + DEADLINE_GRACE);
        match tokio::time::timeout_at(until.into(), page).await {
            Ok(page) => page.map(|(page, share)| (page, Held { until, timeout, share })),
            Err(_) => Err(timed_out(timeout)),
        }
    }

    fn read_events_query(&self, params: Vec<(String, String)>) -> Result<(Query, Option<String>), ApiError> {
        let mut params = Params::new(params)?;
        let mut json = QueryJson::default();
        for name in ["namespace", "table", "after"] {
            json.text(name, params.take(name));
        }
        for name in ["start_time", "end_time", "limit", "timeout_ms"] {
            json.number(name, params.take(name))?;
        }
        json.json("filters", params.take("filters").as_deref())?;
        json.flag("allow_partial", params.take("allow_partial").as_deref())?;
        let cursor = params.take("cursor");
        params.finish(PARAMETERS)?;
        Ok((query::parse(&json.finish(), &self.limits)?, cursor))
    }

    async fn events_page(
        &self,
        tenant: TenantId,
        query: Query,
        cursor: Option<String>,
        deadline: Instant,
    ) -> Result<(String, Arc<Share>), ApiError> {
        let limit = query.limit.min(PAGE_EVENTS_MAX);
        let asked = self.resolve(tenant, query, cursor).await?;
        let _place = self.places.take(deadline, asked.query.timeout).await?;
        // Both are of a time before the page is made, so that the receipt promises no more than it holds.
        let as_of = now();
        let tables = [Arc::clone(&asked.table)];
        let watermark = self.progress.watermark(&tables).await?.unwrap_or_default();
        let placement = self.catalog.placement();
        let mut page = gather(&asked, &self.fleet, &placement, limit, deadline).await?;
        // A partition that is not where the map of the beginning had it may have been moved since.
        let newest = self.catalog.placement();
        if !page.unavailable.is_empty() && newest.version > placement.version {
            page = gather(&asked, &self.fleet, &newest, limit, deadline).await?;
        }
        self.still_there(tenant, &tables).await?;
        let missing = missing(&asked, &page);
        if !asked.query.allow_partial {
            receipt::refuse_partial(&missing)?;
        }
        let covered: Vec<_> = page.covered.iter().map(|part| (part.partition, part.next_offset)).collect();
        let freshness_us = self.progress.freshness_us(covered.clone(), as_of).await?;
        let receipt = Receipt {
            complete: missing.is_empty(),
            missing,
            truncated: page.more,
            as_of_us: as_of.0,
            watermark_us: watermark.0,
            freshness_us,
            covers: receipt::covers(tenant, &tables, &covered, &self.token_key),
            offsets: receipt::offsets(&covered),
        };
        let (log, token_key) = (Arc::clone(&self.log), self.token_key.clone());
        // Reading the log and writing the page may take milliseconds: off the network threads.
        let written = tokio::task::spawn_blocking(move || {
            let ids = event_ids::read(log.as_ref(), asked.table.key, &page.events, deadline);
            write(&asked, &page, ids, receipt, |position| {
                let (tenant, query) = (asked.table.key.tenant, asked.plan.fingerprint());
                Cursor { tenant, query, position, offsets: covered.clone() }.encode(&token_key)
            })
        });
        let page = written.await.map_err(|error| ApiError::internal(format!("writing the page failed: {error}")))??;
        let share = Arc::new(self.unsent.take(page.len())?);
        Ok((page, share))
    }

    /// Finds the table, makes the plan and checks token and cursor against them.
    async fn resolve(&self, tenant: TenantId, mut query: Query, cursor: Option<String>) -> Result<Asked, ApiError> {
        let tokens = self.tokens(tenant, &query)?;
        let table = self.table(tenant, &query.tables[0]).await?;
        let after = offsets_of(&tokens, std::slice::from_ref(&table))?;
        // The limit may change from page to page; all else that the plan says is the question.
        query.limit = 1;
        let plan = Arc::new(query::plan(&query, std::slice::from_ref(&table))?);
        let Some(text) = cursor else { return Ok(Asked { query, plan, table, cursor: None, after }) };
        let cursor = Cursor::decode(&self.token_key, &text).ok().filter(|cursor| cursor.tenant == tenant);
        let cursor = cursor.ok_or_else(|| {
            ApiError::invalid("cursor", "cursor is none of this server; pass the one of the page before, as it is")
        })?;
        if cursor.query != plan.fingerprint() {
            let message = "cursor is of another question, or of a table that was deleted: table, range and filters must \
                           be those of the page before";
            return Err(ApiError::invalid("cursor", message));
        }
        let shown = |partition| cursor.offsets.iter().find(|(known, _)| *known == partition).map(|(_, next)| *next);
        if after.iter().any(|(partition, offset)| shown(*partition).is_some_and(|next| next < *offset)) {
            let message =
                "after is newer than the state that the cursor shows; begin again without the cursor to get it";
            return Err(ApiError::invalid("after", message));
        }
        Ok(Asked { query, plan, table, cursor: Some(cursor), after })
    }
}

/// Asks each partition's node and puts the pages of the nodes together.
async fn gather(
    asked: &Asked,
    fleet: &Fleet,
    placement: &PlacementMap,
    limit: usize,
    deadline: Instant,
) -> Result<Page, ApiError> {
    let at = asked.cursor.as_ref().map(|cursor| cursor.offsets.clone());
    let position = asked.cursor.as_ref().map(|cursor| {
        let (time, partition, offset, row) = cursor.position;
        EventPlace { time, partition, offset, row }
    });
    let partitions = match &at {
        Some(offsets) => offsets.iter().map(|(partition, _)| *partition).collect(),
        None => asked.table.partitions.iter().copied().collect(),
    };
    let wanted = Wanted { partitions: &partitions, after: &asked.after, prefer: &BTreeMap::new(), hedged: false };
    let at = at.as_ref();
    let read = |Ask { node, partitions, .. }: Ask| async move {
        let request = EventsRequest {
            plan: Arc::clone(&asked.plan),
            after: asked.after.iter().filter(|(p, _)| partitions.contains(p)).copied().collect(),
            at: at.cloned(),
            position,
            limit,
            bytes_max: PAGE_BYTES_MAX,
            deadline,
            partitions,
        };
        let NodeEvents { events, more, covered, unavailable } = node.events(request).await?;
        Ok(((events, more, covered), unavailable))
    };
    let found = fleet.ask(placement, wanted, read).await?;
    let mut page = Page { events: Vec::new(), more: false, covered: Vec::new(), unavailable: found.unavailable };
    // What lies behind the last event of a node that has more may lie behind events that are not here.
    let mut known_to: Option<EventPlace> = None;
    for (_, (events, more, covered)) in found.replies {
        let end = events.last().filter(|_| more).map(|event| event.place);
        known_to = known_to.into_iter().chain(end).min();
        page.events.extend(events);
        page.more |= more;
        page.covered.extend(covered);
    }
    page.covered.sort_unstable_by_key(|part| part.partition);
    page.events.retain(|event| known_to.is_none_or(|end| event.place <= end));
    page.first(limit);
    Ok(page)
}

impl Page {
    /// Keeps the first events of all nodes: as many as were asked for, and no more bytes than a page has.
    fn first(&mut self, limit: usize) {
        self.events.sort_unstable_by_key(|event| event.place);
        let mut bytes = 0;
        let fit = self.events.iter().take(limit).take_while(|event| {
            let first = bytes == 0;
            bytes += event.bytes();
            first || bytes <= PAGE_BYTES_MAX
        });
        let fit = fit.count();
        self.more |= fit < self.events.len();
        self.events.truncate(fit);
    }
}

/// What the page lacks. Only what lies behind its beginning counts: the pages before it are told.
fn missing(asked: &Asked, page: &Page) -> Vec<Missing> {
    let range = asked.plan.range();
    let start = asked.cursor.as_ref().map_or(range.start(), |cursor| cursor.position.0.max(range.start()));
    let left = TimeRange::new(start, range.end()).unwrap_or(range);
    let gaps: Vec<(PartitionId, LogGap)> =
        page.covered.iter().flat_map(|part| part.gaps.iter().map(|gap| (part.partition, *gap))).collect();
    let evicted_before = page.covered.iter().filter_map(|part| part.evicted_before).max();
    let mut missing = receipt::missing(left, &page.unavailable, &gaps, evicted_before);
    if let Some(cursor) = &asked.cursor {
        let shown = |partition: &PartitionId| cursor.offsets.iter().any(|(known, _)| known == partition);
        let absent = asked.table.partitions.iter().filter(|partition| !shown(partition));
        missing.extend(absent.map(|p| Missing::Partition { partition: p.0, why: receipt::NOT_IN_FIRST_PAGE }));
    }
    missing
}

fn write(
    asked: &Asked,
    page: &Page,
    ids: EventIds,
    receipt: Receipt,
    cursor: impl Fn((Timestamp, PartitionId, Offset, u32)) -> String,
) -> Result<String, ApiError> {
    let events: Vec<EventView<'_>> = page
        .events
        .iter()
        .zip(&ids.ids)
        .map(|(event, id)| EventView {
            event_time: event.place.time.0,
            event_id: id.as_deref(),
            dimensions: &event.dimensions,
            metrics: &event.metrics,
        })
        .collect();
    let more = page.more || events.len() < page.events.len();
    let last = events.len().checked_sub(1).filter(|_| more).map(|at| page.events[at].place);
    let cursor = last.map(|place| cursor((place.time, place.partition, place.offset, place.row)));
    let receipt = EventsReceipt { receipt: Receipt { truncated: more, ..receipt }, event_ids_missing: ids.missing };
    serde_json::to_string(&Reply { events: &events, cursor, receipt })
        .map_err(|error| ApiError::internal(format!("writing a page of {} failed: {error}", asked.table.name)))
}

#[cfg(test)]
mod tests;
