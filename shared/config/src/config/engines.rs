//! The engines that hold what processes share.

use std::path::{Path, PathBuf};

use super::out_of_range;
use crate::{ConfigError, Secret, settings::RawConfig};

/// Where metadata is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataLocation {
    /// In a SQLite file, for the processes of one machine.
    File(PathBuf),
    /// In the PostgreSQL database of this URL, for all processes of a cluster.
    Postgres(Secret),
}

/// `metadata.url`: a URL of PostgreSQL, `sqlite:PATH`, or nothing, which is a file in the data directory.
pub(super) fn metadata(raw: &RawConfig, data_dir: &Path) -> Result<MetadataLocation, ConfigError> {
    let Some(url) = &raw.metadata.url else { return Ok(MetadataLocation::File(data_dir.join("metadata.db"))) };
    if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        return Ok(MetadataLocation::File(path.into()));
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(MetadataLocation::Postgres(Secret::new(url.clone())));
    }
    let expected = "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH";
    Err(out_of_range("metadata", "url", "not shown here", expected))
}

/// `query_api.cache_url`: a URL of Redis, or nothing, which is no shared cache.
pub(super) fn cache_url(raw: &RawConfig) -> Result<Option<Secret>, ConfigError> {
    let Some(url) = &raw.query_api.cache_url else { return Ok(None) };
    if !url.starts_with("redis://") {
        let expected = "must be redis://:PASSWORD@HOST:PORT/DATABASE";
        return Err(out_of_range("query_api", "cache_url", "not shown here", expected));
    }
    Ok(Some(Secret::new(url.clone())))
}
