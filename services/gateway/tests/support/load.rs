//! A lag and a memory that a test sets.

use std::{sync::Mutex, time::Duration};

use proto::{
    hot_tier::{MemoryState, NodeMemory},
    progress::{ApplyLag, Lag},
};

/// Nothing waits and there is room, until a test says otherwise.
pub struct TestLoad {
    state: Mutex<(Lag, MemoryState)>,
}

impl Default for TestLoad {
    fn default() -> Self {
        Self { state: Mutex::new((Lag::default(), MemoryState::Room)) }
    }
}

impl TestLoad {
    /// Sets the lag.
    pub fn lag(&self, bytes: u64, age: Duration) {
        self.state.lock().unwrap().0 = Lag { bytes, age };
    }

    /// Sets the memory.
    pub fn memory(&self, memory: MemoryState) {
        self.state.lock().unwrap().1 = memory;
    }
}

impl ApplyLag for TestLoad {
    fn lag(&self) -> Lag {
        self.state.lock().unwrap().0
    }
}

impl NodeMemory for TestLoad {
    fn memory(&self) -> MemoryState {
        self.state.lock().unwrap().1
    }
}
