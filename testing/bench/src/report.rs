//! Lines of results.

use std::io::{self, Write as _};

/// Prints a line. Nobody reading is no failure of a measurement.
pub fn line(text: &str) {
    let _unread = writeln!(io::stdout(), "{text}");
}
