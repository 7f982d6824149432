//! Token buckets and quotas over a passed-in time.
