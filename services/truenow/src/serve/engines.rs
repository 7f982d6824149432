//! The engines that configuration names, as the services see them.

use std::sync::Arc;

use cache::{RedisResults, RedisSettings, ResultCache};
use config::{Config, MetadataLocation};
use metadata::{MetadataError, MetadataStore, PostgresStore, SqliteStore};
use metrics::{describe_counter, describe_gauge};

/// Opens the metadata.
pub(super) async fn metadata(config: &Config) -> Result<Arc<dyn MetadataStore>, MetadataError> {
    describe_gauge!("truenow_breaker_state", "Whether an engine is asked: 0 yes, 1 as a probe, 2 no.");
    describe_counter!("truenow_breaker_refused_total", "Calls of an engine that were not made because it is away.");
    Ok(match &config.metadata {
        MetadataLocation::File(path) => Arc::new(SqliteStore::open(path).await?),
        MetadataLocation::Postgres(url) => Arc::new(PostgresStore::open(url.expose()).await?),
    })
}

/// The results that query APIs share, where configuration names a place for them; it need not be reachable.
pub(super) fn shared_results(config: &Config) -> Result<Option<Arc<dyn ResultCache>>, cache::AddressError> {
    let Some(url) = &config.cache_url else { return Ok(None) };
    Ok(Some(Arc::new(RedisResults::new(url.expose(), RedisSettings::default())?)))
}
