//! TrueNow: every service in one process, and the command line.
fn main() {}
