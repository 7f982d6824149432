//! Whole results, kept for the questions that come again.
//!
//! 1. A result is good for exactly the versions of the partitions that it came from. They are shown to the nodes with the next
//!    scan, which say whether they still are; so a kept result is what that scan would give, never older.
//! 2. What is kept is the rows and what describes them. The receipt is of now, each time.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use cache::{CacheKey, ResultCache, Uses};
use proto::hot_tier::Version;
use query::{Answer, Plan};
use types::{NodeId, PartitionId, Table, TenantId};

use crate::fanout::VersionAt;

/// Of the keys and of what is kept.
const FORMAT: u8 = 2;

/// The results that questions find.
pub(crate) struct Results {
    cache: Arc<dyn ResultCache>,
    /// How long one is kept; zero: none ever is.
    ttl: Duration,
    uses: Uses,
}

/// A result of an earlier time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptResult {
    /// Of all partitions that it came from, ascending.
    pub(crate) versions: Vec<VersionAt>,
    pub(crate) truncated: bool,
    /// Segments that it came from.
    pub(crate) segments: u64,
    columns: Bytes,
    rows: Bytes,
}

/// What a question asks, whatever its timeout: equal keys have equal answers of equal rows.
pub(crate) fn key(tenant: TenantId, tables: &[Arc<Table>], plan: &Plan, allow_partial: bool) -> CacheKey {
    let mut question = vec![FORMAT, allow_partial.into()];
    // As many as the plan has tables.
    tables.iter().for_each(|table| question.put_u32_le(table.schema.version().0));
    question.extend(plan.canonical());
    CacheKey::new(tenant, &question)
}

impl Results {
    pub(crate) fn new(cache: Arc<dyn ResultCache>, ttl: Duration) -> Self {
        Self { cache, ttl, uses: Uses::of("results") }
    }

    /// What was kept of a question.
    pub(crate) async fn find(&self, question: &CacheKey) -> Option<KeptResult> {
        if self.ttl.is_zero() {
            return None;
        }
        KeptResult::decode(self.cache.get(question).await?)
    }

    /// Keeps an answer, which came from partitions of these versions.
    pub(crate) async fn keep(&self, question: &CacheKey, versions: &[VersionAt], answer: &Answer) {
        if !self.ttl.is_zero() {
            self.cache.put(question, encode(versions, answer), self.ttl).await;
        }
    }

    /// Counts a question whose answer was kept, or had to be made.
    pub(crate) fn count(&self, hit: bool) {
        if !self.ttl.is_zero() {
            self.uses.count(hit);
        }
    }
}

fn encode(versions: &[VersionAt], answer: &Answer) -> Bytes {
    let lengths = 64 + versions.len() * (size_of::<u32>() + size_of::<u64>() + size_of::<u128>());
    let mut out = Vec::with_capacity(lengths + answer.columns.len() + answer.rows.len());
    out.put_u8(FORMAT);
    out.put_u8(answer.truncated.into());
    out.put_u64_le(answer.stats.segments_scanned + answer.stats.segments_cached);
    out.put_u32_le(versions.len() as u32);
    for VersionAt { partition, node, version } in versions {
        out.put_u32_le(partition.0);
        out.put_u64_le(node.0);
        out.put_u128_le(version.0);
    }
    out.put_u64_le(answer.columns.len() as u64);
    out.put_slice(answer.columns.as_bytes());
    out.put_slice(answer.rows.as_bytes());
    out.into()
}

impl KeptResult {
    /// `None` where the bytes are none that were written here.
    fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let truncated = bytes.try_get_u8().ok()? != 0;
        let segments = bytes.try_get_u64_le().ok()?;
        let count = bytes.try_get_u32_le().ok()?;
        let mut version = || {
            Some(VersionAt {
                partition: PartitionId(bytes.try_get_u32_le().ok()?),
                node: NodeId(bytes.try_get_u64_le().ok()?),
                version: Version(bytes.try_get_u128_le().ok()?),
            })
        };
        let versions = (0..count).map(|_| version()).collect::<Option<_>>()?;
        let columns = usize::try_from(bytes.try_get_u64_le().ok()?).ok().filter(|&length| length <= bytes.len())?;
        let columns = bytes.split_to(columns);
        Some(Self { versions, truncated, segments, columns, rows: bytes })
    }

    /// How long its text is.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() + self.columns.len()
    }

    /// The lists of rows and of columns, as JSON text; `None` where they are no text. That is looked at only here, where the
    /// result is known to be good: it may be long.
    pub(crate) fn text(&self) -> Option<(String, String)> {
        let text = |bytes: &Bytes| str::from_utf8(bytes).ok().map(str::to_owned);
        Some((text(&self.rows)?, text(&self.columns)?))
    }
}

#[cfg(test)]
mod tests {
    use cache::LocalResults;
    use query::{QueryLimits, ScanStats};
    use types::{
        ColumnDef, ColumnKind, Generation, Schema, SchemaVersion, TableId, TableKey, TableName, TableSettings,
    };

    use super::*;

    fn table(tenant: u64, generation: u32, version: u32) -> Table {
        let column = ColumnDef { name: "region".into(), kind: ColumnKind::Dimension };
        Table {
            key: TableKey { tenant: TenantId(tenant), table: TableId(1), generation: Generation(generation) },
            name: TableName::new("shop", "events"),
            partitions: [PartitionId(0)].into(),
            partition_by: None,
            partition_seed: 0,
            identity_seed: 0,
            schema: Schema::from_parts(SchemaVersion(version), vec![column]),
            settings: TableSettings::default(),
        }
    }

    fn key_of(table: Table, rest: &str) -> CacheKey {
        let json = format!(r#"{{"namespace":"shop","table":"events","start_time":0,"end_time":9{rest}}}"#);
        let query = query::parse(json.as_bytes(), &QueryLimits::default()).unwrap();
        let (tenant, tables) = (table.key.tenant, [Arc::new(table)]);
        let plan = query::plan(&query, &tables).unwrap();
        key(tenant, &tables, &plan, query.allow_partial)
    }

    /// Goal: questions that can have different answers have different keys, and how long one may take is no part of it.
    #[test]
    fn keys_say_what_is_asked() {
        let keys = [
            key_of(table(1, 1, 1), ""),
            key_of(table(2, 1, 1), ""),
            key_of(table(1, 2, 1), ""),
            key_of(table(1, 1, 2), ""),
            key_of(table(1, 1, 1), r#","allow_partial":true"#),
            key_of(table(1, 1, 1), r#","group_by":["region"]"#),
            key_of(table(1, 1, 1), r#","limit":7"#),
            key_of(table(1, 1, 1), "9"),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert_eq!(key_of(table(1, 1, 1), r#","timeout_ms":77"#), keys[0]);
    }

    /// Goal: a result is there for its time and no longer, and never where that is zero.
    #[tokio::test(start_paused = true)]
    async fn results_have_their_time() {
        let (question, versions) = (key_of(table(1, 1, 1), ""), [version(0, 7, 1)]);
        let of = |ttl| Results::new(Arc::new(LocalResults::new(1 << 20)), Duration::from_secs(ttl));
        let results = of(60);
        results.keep(&question, &versions, &answer("[]")).await;
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(results.find(&question).await.map(|kept| kept.versions), Some(versions.to_vec()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(results.find(&question).await, None);
        let off = of(0);
        off.keep(&question, &versions, &answer("[]")).await;
        assert_eq!(off.find(&question).await, None);
    }

    fn version(partition: u32, node: u64, version: u128) -> VersionAt {
        VersionAt { partition: PartitionId(partition), node: NodeId(node), version: Version(version) }
    }

    fn answer(rows: &str) -> Answer {
        let stats = ScanStats { segments_scanned: 3, segments_cached: 4, ..ScanStats::default() };
        Answer { rows: rows.into(), columns: r#"[{"name":"é"}]"#.into(), row_count: 1, truncated: true, stats }
    }

    /// Goal: what is kept comes back as it was; bytes that are cut off anywhere before the rows, of another format, or no text
    /// are none.
    #[test]
    fn results_come_back() {
        let versions = [version(0, u64::MAX, u128::MAX), version(7, 3, 1)];
        let answer = answer(r#"[{"a":"ü"}]"#);
        let bytes = encode(&versions, &answer);
        let kept = KeptResult::decode(bytes.clone()).unwrap();
        assert_eq!((&kept.versions[..], kept.truncated, kept.segments), (&versions[..], true, 7));
        assert_eq!(kept.text(), Some((answer.rows.clone(), answer.columns.clone())));
        for length in 0..bytes.len() - answer.rows.len() {
            assert_eq!(KeptResult::decode(bytes.slice(..length)), None, "{length}");
        }
        let mut other = bytes.to_vec();
        other[0] += 1;
        assert_eq!(KeptResult::decode(other.clone().into()), None);
        other[0] -= 1;
        *other.last_mut().unwrap() = 0xFF;
        assert_eq!(KeptResult::decode(other.into()).unwrap().text(), None);
    }
}
