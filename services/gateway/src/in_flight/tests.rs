use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use tokio::task::unconstrained;

use super::*;

/// Goal: what is held never passes the bound, is given back to the byte, and a refusal leaves the others alone.
#[tokio::test]
async fn bytes_in_flight_are_bounded_and_given_back() {
    let total = InFlight::new(10, 1);
    let (a, b) = (total.share(), total.share());
    a.hold(6).unwrap();
    assert_eq!(b.hold(5).unwrap_err().code, ErrorCode::ResourceExhausted);
    assert!(b.refused().is_none(), "its body, as that of a stream, goes on");
    b.hold(4).unwrap();
    a.give_back(100);
    assert_eq!(total.bytes.load(Relaxed), 4);
    drop(a.holding(3).unwrap());
    assert_eq!(total.bytes.load(Relaxed), 4, "a share that goes on, as that of a stream, gets it back");
    let more = b.holding(2).unwrap();
    assert!(b.holding(5).is_err());
    drop(b);
    assert_eq!(total.bytes.load(Relaxed), 6, "what waits is held although its request is gone");
    drop(more);
    assert_eq!(total.bytes.load(Relaxed), 0);
    let body = a.meter(Full::new(Bytes::from_static(b"12345678901")));
    assert!(body.collect().await.is_err());
    assert!(a.refused().is_some() && total.share().refused().is_none());
    drop(a);
    assert_eq!(total.bytes.load(Relaxed), 0);
    let c = total.share();
    assert_eq!(c.meter(Full::new(Bytes::from_static(b"1234567890"))).collect().await.unwrap().to_bytes().len(), 10);
    assert_eq!(total.bytes.load(Relaxed), 10);
}

/// Goal: what waits leaves room for nobody else once it is what becomes durable in time, whoever asks; who stands in line
/// is refused in the end, with a time to come back; slow bodies take no room.
#[tokio::test(start_paused = true)]
async fn as_much_waits_as_is_acked_in_time() {
    let total = InFlight::new(100 << 20, 1);
    let slow = total.share();
    slow.hold(60 << 20).unwrap();
    let first = total.share().wait(ROOM_LEAST - 1).await.unwrap();
    let second = total.share().wait(5 << 20).await.unwrap();
    for refused in [total.enter().await.unwrap_err(), total.share().wait(1).await.unwrap_err()] {
        let after = refused.retry_after.unwrap();
        assert_eq!((refused.code, &*refused.field.unwrap()), (ErrorCode::ResourceExhausted, "requests_in_flight"));
        assert!((RETRY_AFTER_LEAST..RETRY_AFTER_LEAST * 3).contains(&after), "{after:?}");
    }
    drop(first);
    total.enter().await.unwrap();
    second.acked();
    assert_eq!(
        (total.acked_bytes(), total.waiting.load(Relaxed)),
        (5 << 20, 0),
        "what ended without an ack is no pace"
    );

    total.set_room(50 << 20);
    let most = total.share().wait(40 << 20).await.unwrap();
    total.enter().await.unwrap();
    total.set_room(0);
    assert!(total.enter().await.is_err());
    drop(most);
    total.set_room(u64::MAX);
    assert_eq!(total.room.load(Relaxed), 100 << 20);
}

/// Goal: room that is given up, or made, goes to those in line in their order, as far as it reaches; the line is bounded.
#[tokio::test(start_paused = true)]
async fn room_goes_to_those_in_line() {
    let total = InFlight::new(100 << 20, 1);
    let mut most = Some(total.share().wait(ROOM_LEAST).await.unwrap());
    let mut line: Vec<_> = (0..LINE_MAX).map(|_| Box::pin(async { total.share().wait(6 << 20).await })).collect();
    let mut entered = |least: usize| {
        let mut entered = Vec::new();
        for (n, one) in line.iter_mut().enumerate().skip(least) {
            if let Some(waiting) = unconstrained(one).now_or_never() {
                entered.push((n, waiting.unwrap()));
            }
        }
        entered
    };
    assert!(entered(0).is_empty());
    let refused = total.enter().now_or_never().expect("the line is full").unwrap_err();
    assert_eq!(refused.code, ErrorCode::ResourceExhausted);
    drop(most.take());
    let three = entered(0);
    assert_eq!(three.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2], "three are more than 16 MiB");
    total.set_room(20 << 20);
    let fourth = entered(3);
    assert_eq!(fourth.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
    drop((three, fourth, line));
    assert!(total.whole.is_empty());
    assert_eq!(total.waiting.load(Relaxed), 0);
}

/// Goal: nobody passes those who stand in line by their headers; those whose body is here already, and takes memory, go
/// before them.
#[tokio::test(start_paused = true)]
async fn newcomers_join_the_line() {
    let total = InFlight::new(100 << 20, 1);
    let most = total.share().wait(ROOM_LEAST).await.unwrap();
    let mut line: Vec<_> = (0..3).map(|_| Box::pin(total.enter())).collect();
    assert!(line.iter_mut().all(|one| one.now_or_never().is_none()));
    let whole = total.share();
    let mut whole = Box::pin(whole.wait(ROOM_LEAST));
    assert!((&mut whole).now_or_never().is_none());
    drop(most);
    let mut newcomer = Box::pin(total.enter());
    assert!((&mut newcomer).now_or_never().is_none());
    assert!(line.iter_mut().all(|one| one.now_or_never().is_none()));
    let waiting = whole.now_or_never().expect("it is the first").unwrap();
    drop(waiting);
    assert!((&mut newcomer).now_or_never().is_none());
    assert_eq!(line.iter_mut().map(|one| one.now_or_never().is_some()).collect::<Vec<_>>(), [true, false, false]);
}

/// Lets those go who may, and says how many they were.
fn entered(line: &mut Vec<Pin<Box<impl Future<Output = Result<(), ApiError>>>>>) -> usize {
    let before = line.len();
    line.retain_mut(|one| unconstrained(one).now_or_never().map(Result::unwrap).is_none());
    before - line.len()
}

/// Goal: who was called by its headers and then sends slowly, or never, does not keep those behind it in line while there
/// is room; and what they have room for is called, not more.
#[tokio::test(start_paused = true)]
async fn slow_senders_keep_nobody_in_line() {
    let total = InFlight::new(100 << 20, 1);
    let most = total.share().wait(ROOM_LEAST).await.unwrap();
    let mut line: Vec<_> = (0..1_000).map(|_| Box::pin(total.enter())).collect();
    assert_eq!(entered(&mut line), 0);
    most.acked();
    assert_eq!(entered(&mut line), 1);
    // One body of all the room was acked: so large is what is called.
    total.set_room(3 * ROOM_LEAST);
    assert_eq!(entered(&mut line), 3);
    for _ in 0..15 {
        total.share().wait(1).await.unwrap().acked();
    }
    entered(&mut line);
    // A mean body has a sixteenth of that now.
    total.set_room(2 * ROOM_LEAST);
    assert_eq!(entered(&mut line), 32);
}
