//! A node's side: it reports until the gateway leaves.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::IntervalStream};
use tonic::{Request, Response, Status};

use crate::{
    hot_tier::NodeMemory,
    internal::{NodeReport, Nothing, node_state_server},
    progress::PartitionLags,
};

/// How often a node reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
const _: () = assert!(super::STALE_AFTER.as_millis() >= 10 * REPORT_INTERVAL.as_millis());

/// The state of this node for other processes.
pub struct NodeStateService {
    lags: Arc<dyn PartitionLags>,
    memory: Arc<dyn NodeMemory>,
    ends: watch::Receiver<bool>,
}

impl NodeStateService {
    /// The service to put on a port. Reports end when `ends` turns true.
    pub fn server(
        lags: Arc<dyn PartitionLags>,
        memory: Arc<dyn NodeMemory>,
        ends: watch::Receiver<bool>,
    ) -> node_state_server::NodeStateServer<Self> {
        node_state_server::NodeStateServer::new(Self { lags, memory, ends })
    }
}

#[tonic::async_trait]
impl node_state_server::NodeState for NodeStateService {
    /// A report is made when it is sent, so that a gateway that is slow gets fewer and never old ones.
    type WatchStream = Pin<Box<dyn Stream<Item = Result<NodeReport, Status>> + Send>>;

    async fn watch(&self, _: Request<Nothing>) -> Result<Response<Self::WatchStream>, Status> {
        let (lags, memory) = (Arc::clone(&self.lags), Arc::clone(&self.memory));
        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ends = self.ends.clone();
        let ticks = IntervalStream::new(ticks).take_while(move |_| !*ends.borrow());
        let reports = ticks.map(move |_| Ok((memory.memory(), &lags.lags()).into()));
        Ok(Response::new(Box::pin(reports)))
    }
}
