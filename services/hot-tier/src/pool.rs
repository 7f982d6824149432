//! Threads that scan. Queries share them task by task.
//!
//! 1. A job is a set of small tasks (about a segment each). It waits in the queue once per thread that may work on it.
//! 2. A thread takes the job at the front, runs one of its tasks and puts it back at the end while it has more: every
//!    job in the queue advances in turn, however long another one is.
//! 3. The queue is as long as the jobs admitted times the threads; the caller bounds the jobs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Work in small tasks that any thread may take.
pub(crate) trait Job: Send + Sync {
    /// Runs the next task that nobody has taken. `false`: there was none left to take.
    fn run_next(&self) -> bool;
}

enum Message {
    Work(Arc<dyn Job>),
    Stop,
}

/// The way in.
#[derive(Clone)]
pub(crate) struct Queue {
    messages: Sender<Message>,
    threads: usize,
}

impl Queue {
    /// Puts a job of `tasks` tasks in the queue.
    pub(crate) fn submit(&self, job: &Arc<dyn Job>, tasks: usize) {
        for _ in 0..tasks.min(self.threads) {
            self.send(Message::Work(Arc::clone(job)));
        }
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    fn send(&self, message: Message) {
        // Fails only after the last thread has ended, when nobody waits for an answer any more.
        let _ = self.messages.send(message);
    }
}

/// The threads. Dropping it waits for the jobs in the queue and ends them.
pub(crate) struct ScanPool {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
}

impl ScanPool {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (messages, received) = unbounded();
        let queue = Queue { messages, threads: threads.max(1) };
        let threads = (0..queue.threads)
            .map(|n| {
                let (queue, received) = (queue.clone(), received.clone());
                thread::Builder::new().name(format!("scan-{n}")).spawn(move || work(&queue, &received))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue, threads })
    }

    /// The way in.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }
}

fn work(queue: &Queue, received: &Receiver<Message>) {
    while let Ok(Message::Work(job)) = received.recv() {
        // A panic is one query's failure: its reply is dropped with the job, and the thread goes on.
        let more = catch_unwind(AssertUnwindSafe(|| job.run_next())).unwrap_or_default();
        if more {
            queue.send(Message::Work(job));
        }
    }
}

impl Drop for ScanPool {
    fn drop(&mut self) {
        for _ in &self.threads {
            self.queue.send(Message::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering::Relaxed};

    use super::*;

    struct Tasks {
        name: char,
        left: AtomicUsize,
        trace: Arc<Mutex<String>>,
    }

    impl Job for Tasks {
        fn run_next(&self) -> bool {
            let took = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            if took {
                self.trace.lock().unwrap().push(self.name);
            }
            took
        }
    }

    /// Goal: every task runs once, and a short job does not wait for a long one that was there first.
    #[test]
    fn jobs_take_turns() {
        let trace = Arc::new(Mutex::new(String::new()));
        let job = |name, left| Arc::new(Tasks { name, left: AtomicUsize::new(left), trace: Arc::clone(&trace) });
        let (long, short): (Arc<dyn Job>, Arc<dyn Job>) = (job('l', 50), job('s', 3));
        let pool = ScanPool::start(1).unwrap();
        // Both are queued while the only thread is kept busy by the held trace.
        let held = trace.lock().unwrap();
        pool.queue().submit(&long, 50);
        pool.queue().submit(&short, 3);
        drop(held);
        while trace.lock().unwrap().len() < 53 {
            thread::yield_now();
        }
        drop(pool);
        let trace = trace.lock().unwrap();
        assert_eq!(trace.chars().filter(|&c| c == 'l').count(), 50);
        assert!(trace.rfind('s').unwrap() < 10, "{trace}");
    }
}
