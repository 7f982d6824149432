//! Clients that write through the client library, which retries by itself and keeps several batches under way.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use truenow_client::{
    Client, ClientError, ColumnsWriter, Event as ProtoEvent, Options, PushError, RetryPolicy, Row, RowsWriter, Summary,
};

use super::{
    event::{Event, Lane, NAMESPACE},
    oracle::Known,
    scene::{Scene, Shown},
};
use crate::random::Random;

/// Batches under way.
const IN_FLIGHT: usize = 4;
/// Batches through one writer, at most.
const BATCHES_OF_A_WRITER: u64 = 200;
/// Percent of writers after which an acked batch is sent again.
const REPEATS: u64 = 70;
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Either writer of the client library.
enum Writer {
    Columns(Box<ColumnsWriter>),
    Rows(Box<RowsWriter>),
}

/// Writes through writer after writer until the run is over.
pub(crate) async fn run(scene: Arc<Scene>, lane: Lane, mut random: Random) {
    while !scene.is_over() {
        let open = scene.gate.read().await;
        // Where the server is away, the library does not connect; later it reconnects by itself.
        if let Ok(client) = Client::connect(random.choose::<String>(&scene.addresses.gateway_grpc), None).await
            && let Err(error) = write(&scene, &client, lane, &mut random).await
        {
            scene.violate(format!(
                "the writer of {} fails: {error}: {:?}",
                lane.name(),
                std::error::Error::source(&error)
            ));
            return;
        }
        drop(open);
        tokio::time::sleep(Duration::from_millis(random.within(5..30))).await;
    }
}

/// One writer's life; ends with all settled.
async fn write(scene: &Scene, client: &Client, lane: Lane, random: &mut Random) -> Result<(), ClientError> {
    let first = scene.oracle().sent(lane);
    // Relaxed: whoever ends a gateway raises it before.
    let opened = Opened { first, life: scene.life.load(Relaxed) };
    let mut writer = Writer::open(client, scene, lane, first).await?;
    // Relaxed: a batch more or less does not matter.
    for _ in 0..random.within(1..BATCHES_OF_A_WRITER) {
        if scene.hush.load(Relaxed) {
            break;
        }
        let batch = scene.oracle().send(lane);
        writer.push_batch(scene, lane, batch).await?;
        settle(scene, lane, &opened, writer.summary());
        tokio::time::sleep(Duration::from_millis(random.within(2..25))).await;
    }
    let summary = writer.finish().await?;
    settle(scene, lane, &opened, &summary);
    scene.counts.retried.fetch_add(summary.retries, Relaxed);
    if random.chance(REPEATS)
        && let Some(batch) = scene.repeatable(lane, random)
    {
        let mut writer = Writer::open(client, scene, lane, batch).await?;
        writer.push_batch(scene, lane, batch).await?;
        writer.finish().await?;
        scene.count(|counts| &counts.repeated);
    }
    Ok(())
}

/// When a writer was opened.
struct Opened {
    /// The number of its first batch.
    first: u64,
    life: u64,
}

/// Takes acks in: those of a writer come in the order of its batches.
fn settle(scene: &Scene, lane: Lane, opened: &Opened, summary: &Summary) {
    if summary.batches == 0 {
        return;
    }
    if summary.accepted != summary.batches * lane.batch_rows() || summary.rejected > 0 {
        scene.violate(format!("{} were rejected of {}: {:?}", summary.rejected, lane.name(), summary.rejects));
    }
    scene.settle(lane, opened.first + summary.batches);
    let covers = match scene.addresses.gateway_grpc.len() {
        1 => scene.oracle().certain().only(lane),
        // Tokens of two lives of a gateway do not cover what lies between them.
        // Relaxed: acks of the old life that came before it was raised are in this summary already.
        _ if scene.life.load(Relaxed) != opened.life => return,
        _ => Known::of(lane, opened.first * lane.batch_rows()..(opened.first + summary.batches) * lane.batch_rows()),
    };
    scene.show(lane.table(opened.first), lane, Shown { tokens: summary.tokens.clone(), covers });
}

impl Writer {
    async fn open(client: &Client, scene: &Scene, lane: Lane, first: u64) -> Result<Self, ClientError> {
        let mut options = Options::new(scene.producer(lane));
        options.sequence = first + 1;
        options.batch_rows_max = lane.batch_rows() as usize;
        options.batches_in_flight_max = IN_FLIGHT;
        options.retry = RetryPolicy { pause: PAUSE, pause_max: PAUSE_MAX, waited_max: scene.conduct.retried_for };
        match lane {
            Lane::Columns => {
                let writer = client.columns(NAMESPACE, &lane.table(first).name(), options).await?;
                Ok(Self::Columns(Box::new(writer)))
            }
            _ => Ok(Self::Rows(Box::new(client.rows(options)))),
        }
    }

    /// Pushes the events of a batch, which sends it, as it is full with them.
    async fn push_batch(&mut self, scene: &Scene, lane: Lane, batch: u64) -> Result<(), ClientError> {
        for number in lane.numbers(batch) {
            let pushed = self.push(&Event::new(lane, number, scene.origin), &lane.table(batch).name()).await;
            match pushed {
                Ok(()) => {}
                Err(PushError::Client(error)) => return Err(error),
                Err(PushError::Row(why)) => scene.violate(format!("row {number} of {}: {why}", lane.name())),
            }
        }
        Ok(())
    }

    async fn push(&mut self, event: &Event, table: &str) -> Result<(), PushError> {
        match self {
            Self::Columns(writer) => {
                let id = event.id();
                let user = event.user_name();
                let dimensions = [("lane", event.lane.name()), ("region", event.region), ("user", user.as_str())];
                let n = ("n", event.number as f64);
                let both = [n, ("size", event.size().unwrap_or_default())];
                let metrics = if event.size().is_some() { &both[..] } else { &both[..1] };
                let id = id.as_deref().map(str::as_bytes);
                writer.push(&Row { event_time: event.time, event_id: id, dimensions: &dimensions, metrics }).await
            }
            Self::Rows(writer) => writer.push(row(event, table)).await,
        }
    }

    fn summary(&self) -> &Summary {
        match self {
            Self::Columns(writer) => writer.summary(),
            Self::Rows(writer) => writer.summary(),
        }
    }

    async fn finish(self) -> Result<Summary, ClientError> {
        match self {
            Self::Columns(writer) => writer.finish().await,
            Self::Rows(writer) => writer.finish().await,
        }
    }
}

/// An event as a gRPC row.
pub(crate) fn row(event: &Event, table: &str) -> ProtoEvent {
    let dimensions = [("lane", event.lane.name()), ("region", event.region), ("user", &event.user_name())];
    let size = event.size().map(|size| ("size".to_owned(), size));
    ProtoEvent {
        namespace: NAMESPACE.to_owned(),
        table: table.to_owned(),
        event_time: Some(event.time),
        event_id: event.id(),
        dimensions: dimensions.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        metrics: std::iter::once(("n".to_owned(), event.number as f64)).chain(size).collect(),
    }
}
