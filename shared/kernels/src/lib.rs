//! Vectorised filter, group and aggregate loops.
