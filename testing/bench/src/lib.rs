//! A benchmark for every stage, with its cost per event.
