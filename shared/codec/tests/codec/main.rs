//! The codec from outside: bytes in, events out, against plain collections.

mod body;
mod partition;
mod rows;
mod support;
