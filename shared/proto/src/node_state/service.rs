//! A node's side: it reports until the gateway leaves.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::IntervalStream};
use tonic::{Request, Response, Status};

use crate::{
    hot_tier::NodeMemory,
    internal::{NodeReport, Nothing, node_state_server},
    progress::PartitionLags,
};

/// How often a node reports what is new.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often it says again what it said.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);
const _: () = assert!(super::STALE_AFTER.as_millis() >= 4 * REPEAT_INTERVAL.as_millis());

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
    /// A report is made when it is sent, so that a gateway that is slow gets fewer and never old ones. Where nothing changes it is
    /// said less often.
    type WatchStream = Pin<Box<dyn Stream<Item = Result<NodeReport, Status>> + Send>>;

    async fn watch(&self, _: Request<Nothing>) -> Result<Response<Self::WatchStream>, Status> {
        let (lags, memory) = (Arc::clone(&self.lags), Arc::clone(&self.memory));
        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ends = self.ends.clone();
        let ticks = IntervalStream::new(ticks).take_while(move |_| !*ends.borrow());
        let mut said: Option<(Instant, NodeReport)> = None;
        let reports = ticks.filter_map(move |_| {
            let report = NodeReport::from((memory.memory(), &lags.lags()));
            let is_known = |(at, said): &(Instant, NodeReport)| *said == report && at.elapsed() < REPEAT_INTERVAL;
            if said.as_ref().is_some_and(is_known) {
                return None;
            }
            said = Some((Instant::now(), report.clone()));
            Some(Ok(report))
        });
        Ok(Response::new(Box::pin(reports)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use types::PartitionId;

    use super::*;
    use crate::{
        hot_tier::MemoryState,
        internal::node_state_server::NodeState as _,
        progress::{Lag, PartitionLag},
    };

    /// A node that is so far behind.
    struct Fake(Mutex<u64>);

    impl PartitionLags for Fake {
        fn lags(&self) -> Arc<Vec<PartitionLag>> {
            let lag = Lag { bytes: *self.0.lock().unwrap(), age: Duration::ZERO };
            Arc::new(vec![PartitionLag { partition: PartitionId(3), lag }])
        }
    }

    impl NodeMemory for Fake {
        fn memory(&self) -> MemoryState {
            MemoryState::Room
        }
    }

    /// Goal: what changes is reported within a tenth of a second, what stays as it is twice a second.
    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_said_less_often() {
        let (node, (_ends, ends)) = (Arc::new(Fake(Mutex::new(0))), watch::channel(false));
        let service = NodeStateService { lags: node.clone(), memory: node.clone(), ends };
        let mut reports = service.watch(Request::new(Nothing {})).await.unwrap().into_inner();
        let mut next = async || {
            let began = Instant::now();
            let report = reports.next().await.unwrap().unwrap();
            (report.lags[0].bytes, began.elapsed().as_millis())
        };
        assert_eq!(next().await, (0, 0));
        assert_eq!([next().await, next().await], [(0, 500); 2]);
        for bytes in 1..4 {
            *node.0.lock().unwrap() = bytes;
            assert_eq!(next().await, (bytes, 100));
        }
        assert_eq!(next().await, (3, 500));
    }
}
