//! Reads log partitions and drives the hot tier's partitions.
