//! A log without a thread.

use std::{
    future::Future,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use types::{Offset, PartitionId};

use super::{DIR, config, open, ticking_clock};
use crate::{
    AppendError, Driver, EmbeddedLog, EventLog, Step,
    conformance::{block, read_all},
    faults::{Call, MemoryFiles, Outcome},
};

fn open_driven(files: &MemoryFiles) -> (EmbeddedLog, Driver) {
    EmbeddedLog::open_driven(config(Path::new(DIR)), Arc::new(files.clone()), Arc::new(ticking_clock())).unwrap()
}

fn poll<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Goal: nothing happens between steps; one step makes durable all that was appended before it, with one sync, and what
/// was not driven when the process ended is gone.
#[test]
fn steps_alone_make_durable() {
    let mut files = MemoryFiles::new(1);
    let (log, mut driver) = open_driven(&files);
    assert_eq!(driver.step(), Step::Idle);
    {
        let mut first = pin!(log.append(vec![block(0, 0, 2, 1, 100)]));
        let mut second = pin!(log.append(vec![block(0, 0, 2, 2, 100)]));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert_eq!(log.bounds(PartitionId(0)).end, Offset(0));
        let mut syncs = 0;
        files.set_plan(Box::new(move |call, _| {
            // The header of the new file, and the group.
            syncs += u64::from(call == Call::Sync);
            if syncs > 2 { Outcome::Fail(std::io::ErrorKind::Other) } else { Outcome::Done }
        }));
        assert_eq!((driver.step(), driver.step()), (Step::Worked, Step::Idle));
        for (append, offset) in [(poll(&mut first), 0), (poll(&mut second), 1)] {
            let Poll::Ready(Ok(places)) = append else { panic!("{append:?}") };
            assert_eq!(places[0].offset, Offset(offset));
        }
        let mut third = pin!(log.append(vec![block(0, 0, 2, 3, 100)]));
        assert!(poll(&mut third).is_pending());
        files.kill();
        drop(driver);
        assert!(matches!(poll(&mut third), Poll::Ready(Err(AppendError::Unavailable(_)))));
    }
    assert_eq!(read_all(&open(&files).unwrap(), 0, Offset(0)).len(), 2);
}

/// Goal: a log that is closed is driven to its end: what was queued is durable, and the directory is free.
#[test]
fn closing_is_driven_too() {
    let files = MemoryFiles::new(1);
    let (log, mut driver) = open_driven(&files);
    let mut append = pin!(log.append(vec![block(0, 0, 2, 1, 100)]));
    let mut close = pin!(log.close());
    assert!(poll(&mut append).is_pending() && poll(&mut close).is_pending());
    assert_eq!([driver.step(), driver.step(), driver.step()], [Step::Worked, Step::Closed, Step::Closed]);
    assert!(poll(&mut append).is_ready() && poll(&mut close).is_ready());
    assert_eq!(read_all(&open(&files).unwrap(), 0, Offset(0)).len(), 1);
}
