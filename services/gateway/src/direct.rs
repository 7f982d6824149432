//! `IngestBatch` past the router: the way of calls with few events, which are many.
//!
//! The router knows the method too ([`crate::grpc`]); limits, refusals and answers are the same.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use codec::Encoding;
use service::{Answering, Direct, DirectCall};
use tracing::{Instrument as _, Span};
use types::{ApiError, TenantId};

use crate::{
    apart::apart,
    grpc::{framing_status, status},
    in_flight::{InFlight, Share},
    ingest::{Ingest, RowsRequest},
    one_message,
    rows::Format,
    together::{Joined, may_be_joined, may_join},
    wire,
};

const INGEST_BATCH: &str = "/truenow.v1.Ingest/IngestBatch";

/// The method.
pub(crate) struct DirectRows {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) in_flight: Arc<InFlight>,
    /// A message must arrive within this time.
    pub(crate) message_timeout: Duration,
}

impl Direct for DirectRows {
    fn method(&self, path: &str) -> Option<&'static str> {
        (path == INGEST_BATCH).then_some(INGEST_BATCH)
    }

    fn call(&self, call: DirectCall) -> Answering {
        let (ingest, in_flight, timeout) =
            (Arc::clone(&self.ingest), Arc::clone(&self.in_flight), self.message_timeout);
        Box::pin(async move {
            let (tenant, span) = (call.tenant, call.span());
            ingest.open(tenant).await.map_err(status)?;
            in_flight.enter().await.map_err(status)?;
            let share = in_flight.share();
            let message = one_message::read(share.meter(call.body), ingest.request_bytes_max());
            let message =
                one_message::in_time(message, timeout).await.map_err(|error| framing_status(&error, &share))?;
            take(ingest, tenant, message, share, span).await.map_err(status)
        })
    }
}

/// Stores the events of a call; its answer, with its prefix. `span` is for what the call does alone: of what it does together
/// with others nothing is logged in its name.
async fn take(
    ingest: Arc<Ingest>,
    tenant: TenantId,
    body: Bytes,
    share: Share,
    span: impl Fn() -> Span,
) -> Result<Bytes, ApiError> {
    // Again, as it may have taken its time to come.
    ingest.open(tenant).await?;
    let waiting = share.wait(body.len() as u64).await?;
    let joined = if may_join(ingest.log.durability()) && may_be_joined(&body) {
        ingest.together.join(tenant, body.clone(), share.clone(), waiting).await
    } else {
        Joined::Alone { admitted: false, waiting }
    };
    match joined {
        Joined::Stored(reply) => Ok(reply),
        Joined::Refused(error) => Err(error),
        Joined::Alone { admitted, waiting } => {
            let bytes = body.len();
            let (format, encoding) = (Format::Protobuf, Encoding::Identity);
            let request = RowsRequest { tenant, format, encoding, body, batch: None, share };
            let rows = async move { ingest.take_rows(request, admitted).await };
            let ack = Box::pin(apart(bytes, rows).instrument(span())).await?;
            waiting.acked();
            Ok(wire::framed(&wire::reply(ack)))
        }
    }
}
