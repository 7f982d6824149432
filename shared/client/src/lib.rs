//! Client of TrueNow: rows to columns, batching, idempotent retry, several batches in flight.
