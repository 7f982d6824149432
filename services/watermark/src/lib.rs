//! Progress per partition, low watermarks, freshness.
