//! The open loop: batches go out when they are due, whatever became of those before, as the load of many clients does that know
//! nothing of each other. What is refused is counted and forgotten, so that a refusal costs the generator next to nothing.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::drive::{Ack, Connection, Measured, Plan};
use crate::failure::Failure;

/// Sends the batches of one of `workers` connections, at most `window` of them under way.
///
/// # Errors
/// A batch was refused for good, or the connection broke.
pub(crate) async fn work(
    plan: Arc<Plan>,
    connection: Connection,
    worker: u32,
    workers: u32,
    window: usize,
) -> Result<Measured, Failure> {
    let interval = plan.interval.ok_or_else(|| Failure::new("an open loop needs a rate"))?;
    let (room, measured) = (Arc::new(Semaphore::new(window)), Arc::new(Mutex::new(Measured::new(plan.begin))));
    let mut under_way: JoinSet<Result<(), Failure>> = JoinSet::new();
    let mut due = plan.begin + interval * worker / workers;
    while due < plan.end {
        tokio::time::sleep_until(due.into()).await;
        while let Some(ended) = under_way.try_join_next() {
            ended.map_err(|_panic| Failure::new("a sending broke off"))??;
        }
        if Instant::now() >= plan.end {
            break;
        }
        match Arc::clone(&room).try_acquire_owned() {
            // Not even its bytes are made.
            Err(_full) => measured.lock().expect("no holder of this lock panics").unsent += 1,
            Ok(permit) => {
                let (plan, connection, measured) = (Arc::clone(&plan), connection.clone(), Arc::clone(&measured));
                under_way.spawn(async move {
                    let _until_it_ends = permit;
                    send(&plan, connection, due, &measured).await
                });
            }
        }
        due += interval;
    }
    while let Some(ended) = under_way.join_next().await {
        ended.map_err(|_panic| Failure::new("a sending broke off"))??;
    }
    let measured = Arc::into_inner(measured).expect("all that shared it have ended");
    Ok(measured.into_inner().expect("no holder of this lock panics"))
}

async fn send(plan: &Plan, mut connection: Connection, from: Instant, to: &Mutex<Measured>) -> Result<(), Failure> {
    let due = plan.batch(from);
    let bytes = due.message.len() as u64;
    let ack = connection.send(plan.mode, due.message, &plan.key(due.number)).await?;
    let mut measured = to.lock().expect("no holder of this lock panics");
    match ack {
        Ack::Accepted(events) => measured.acked(from, events, bytes),
        Ack::Later(_) => measured.refusals += 1,
    }
    Ok(())
}
