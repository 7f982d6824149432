//! The partition: ring, segments, dictionaries and time slots.
