//! What clients may have sent over HTTP/2 before anybody reads it: one budget for all connections of a process.
//!
//! Every connection has a window (RFC 9113, section 5.2), and as many bytes may lie in memory for it. A fixed window would bound a
//! connection and not the process: thousands of them may be open. So a new connection gets its part of what is left of the
//! budget: the full window where few are open, as little as HTTP/2 starts with where many are.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The budget, bytes.
const BUDGET_BYTES: u64 = 256 << 20;
/// A connection gets this part of what is left.
const PART: u64 = 64;
/// The window of a connection, bytes: at most, and at least, whatever is left. The latter is what HTTP/2 starts with.
const WINDOW_MAX: u64 = 4 << 20;
const WINDOW_LEAST: u64 = (1 << 16) - 1;

/// What is left of the budget; clones share it.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Relaxed: it guards nothing, and a read-modify-write loses no update.
    left: Arc<AtomicU64>,
}

impl Default for Unread {
    fn default() -> Self {
        Self { left: Arc::new(AtomicU64::new(BUDGET_BYTES)) }
    }
}

impl Unread {
    /// The window of a new connection.
    pub(crate) fn window(&self) -> Window {
        let wanted = |left: u64| (left / PART).clamp(WINDOW_LEAST, WINDOW_MAX);
        let before = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(wanted(left))));
        let before = before.expect("the closure always gives a value");
        let bytes = wanted(before);
        Window { from: self.clone(), bytes, taken: bytes.min(before) }
    }
}

/// The window of a connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Window {
    from: Unread,
    bytes: u64,
    /// Of the budget, which may have had less left.
    taken: u64,
}

impl Window {
    /// Bytes that the client may send and nobody has read.
    pub(crate) fn bytes(&self) -> u32 {
        u32::try_from(self.bytes).expect("at most WINDOW_MAX")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.from.left.fetch_add(self.taken, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: few connections get full windows, thousands take no more than the budget and the least window each, and what ends
    /// is given back to the byte.
    #[test]
    fn windows_share_one_budget() {
        let unread = Unread::default();
        let first = unread.window();
        assert_eq!(u64::from(first.bytes()), WINDOW_MAX);
        let windows: Vec<Window> = (1..4_096).map(|_| unread.clone().window()).collect();
        assert!(windows.windows(2).all(|pair| pair[0].bytes >= pair[1].bytes));
        let (tenth, last) = (&windows[8], &windows[4_094]);
        assert!(tenth.bytes > WINDOW_MAX / 2 && last.bytes == WINDOW_LEAST, "{} {}", tenth.bytes, last.bytes);
        let all: u64 = windows.iter().chain([&first]).map(|window| window.bytes).sum();
        assert!(all <= BUDGET_BYTES + 4_096 * WINDOW_LEAST, "{all}");
        drop(windows);
        assert_eq!(unread.left.load(Relaxed), BUDGET_BYTES - WINDOW_MAX);
        drop(first);
        assert_eq!(unread.left.load(Relaxed), BUDGET_BYTES);
    }
}
