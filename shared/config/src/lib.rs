//! Typed configuration, read once: defaults, file, environment, flags.
