//! The signal to stop: given once, seen by everybody who holds a clone, also by those who look later.

use std::sync::Arc;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Exit code after a second signal: 128 + SIGINT, as a shell would show it.
const EXIT_IMPATIENT: i32 = 130;

/// A signal to stop that many parts share.
#[derive(Debug, Clone)]
pub struct Shutdown {
    sender: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A signal that has not been given.
    #[must_use]
    pub fn new() -> Self {
        Self { sender: Arc::new(watch::Sender::new(false)) }
    }

    /// A signal that SIGTERM or SIGINT gives. A second one ends the process at once with code 130: what was acked is
    /// durable in the log, so that nothing is lost but time at the next start.
    ///
    /// # Errors
    /// The system refuses to install the handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let given = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            tracing::info!("signal received, shutting down");
            given.trigger();
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            std::process::exit(EXIT_IMPATIENT);
        });
        Ok(shutdown)
    }

    /// Gives the signal; again has no effect.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Whether it was given.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns once it was given.
    pub async fn wait(&self) {
        let seen = self.sender.subscribe().wait_for(|given| *given).await.map(|_| ());
        seen.expect("the sender lives as long as self");
    }
}
