//! Where the requests of an HTTP/2 connection run: in tasks of their own, or in the task that drives the connection.
//!
//! A task of its own costs a request more than a small one needs in all: memory that another thread gives back, a place in a
//! queue when its body comes and when its answer is ready, and a wake-up of the connection for every answer. In the task of
//! the connection all requests that a read brought run one after the other, all that one commit acked are answered by one
//! write, and nothing of them changes threads. What takes longer there keeps the others of the connection waiting, so it has to
//! spawn what it does.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::rt::Executor;
use hyper_util::server::graceful::GracefulConnection;
use tokio::task::coop::unconstrained;

/// Where the calls of a gRPC port run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    /// Each in a task of its own: several processors may work for one connection.
    #[default]
    Spawned,
    /// In the task of their connection: for many small ones, whose handlers spawn what takes long.
    OnConnection,
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the requests that a connection accepts. Clones are for the same connection.
#[derive(Clone)]
pub(crate) struct Accepted(Option<Arc<Mutex<Vec<Call>>>>);

impl Accepted {
    /// For a connection that has accepted nothing yet.
    pub(crate) fn new(calls: Calls) -> Self {
        Self((calls == Calls::OnConnection).then(Arc::default))
    }

    /// Moves what was accepted to `running`; whether there was any.
    fn start(&self, running: &mut FuturesUnordered<Call>) -> bool {
        let Some(accepted) = &self.0 else { return false };
        let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let any = !accepted.is_empty();
        running.extend(accepted.drain(..));
        any
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Accepted {
    fn execute(&self, call: F) {
        match &self.0 {
            None => drop(tokio::spawn(call)),
            Some(accepted) => accepted.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(call)),
        }
    }
}

/// A connection with those of its requests that run in its task.
pub(crate) struct WithCalls<C> {
    connection: Pin<Box<C>>,
    accepted: Accepted,
    running: FuturesUnordered<Call>,
}

impl<C: GracefulConnection> WithCalls<C> {
    /// Takes no more requests, and ends after those under way.
    pub(crate) fn graceful_shutdown(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<C> WithCalls<C> {
    /// `connection`, whose requests go to `accepted`.
    pub(crate) fn new(connection: C, accepted: Accepted) -> Self {
        Self { connection: Box::pin(connection), accepted, running: FuturesUnordered::new() }
    }

    /// Runs what can go on. Without the budget that tokio gives a task: it would hold up the requests that come last, for nothing, as
    /// each is polled once at most for each time that it was woken.
    fn run(&mut self, cx: &mut Context<'_>) {
        if self.running.is_empty() {
            return;
        }
        let running = &mut self.running;
        let mut polled = std::pin::pin!(unconstrained(std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
            Poll::<()>::Pending
        })));
        let _ = polled.as_mut().poll(cx);
    }
}

impl<C> Drop for WithCalls<C> {
    /// What was accepted in the poll that ended the connection was not started. Each such call holds `accepted` itself, so they would
    /// keep each other alive.
    fn drop(&mut self) {
        self.accepted.start(&mut self.running);
    }
}

impl<C: Future> Future for WithCalls<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        // Answers first, so that the connection writes them together; then what it reads, until that brings nothing new.
        loop {
            this.run(cx);
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if !this.accepted.start(&mut this.running) {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that accepts calls, each of which holds what takes them, and ends in the same poll.
    struct Ends(Accepted);

    impl Future for Ends {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            for _ in 0..3 {
                let held = self.0.clone();
                self.0.execute(async move {
                    let _held = held;
                    std::future::pending::<()>().await;
                });
            }
            Poll::Ready(())
        }
    }

    /// Goal: calls that are accepted by the poll that ends their connection go with it.
    #[tokio::test]
    async fn calls_end_with_their_connection() {
        let accepted = Accepted::new(Calls::OnConnection);
        let calls = Arc::downgrade(accepted.0.as_ref().unwrap());
        WithCalls::new(Ends(accepted.clone()), accepted).await;
        assert_eq!(calls.strong_count(), 0);
    }
}
