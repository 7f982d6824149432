use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

fn unsent(bytes_max: usize) -> Unsent {
    Unsent { bytes: Arc::default(), bytes_max }
}

impl Unsent {
    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

/// A held answer of so many bytes, each piece of which differs from the others.
fn answer(unsent: &Unsent, bytes: usize, protocol: Protocol) -> (Vec<u8>, Body) {
    let text: Vec<u8> = (0..bytes).map(|at| (at / PIECE_BYTES) as u8 + at as u8 % 7).collect();
    let until = tokio::time::Instant::now().into_std() + TIMEOUT;
    let share = Arc::new(unsent.take(bytes).expect("there is room"));
    let mut response = text.clone().into_response();
    response.extensions_mut().insert(Held { until, timeout: TIMEOUT, share });
    (text, hold(response, protocol).into_body())
}

/// Goal: a client that takes a piece now and then, with less than the timeout in between, gets all of its answer, however long
/// that takes, in pieces of bounded size that keep nothing of the others; its bytes count until then, and no longer.
#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_everything() {
    let unsent = unsent(1 << 30);
    let bytes = 20 * PIECE_BYTES + 1;
    let (text, mut body) = answer(&unsent, bytes, Protocol::Http);
    assert_eq!((body.size_hint().exact(), unsent.bytes()), (Some(bytes as u64), bytes));
    let mut taken = Vec::new();
    while !body.is_end_stream() {
        tokio::time::sleep(TIMEOUT * 9 / 10).await;
        assert_eq!(unsent.bytes(), bytes);
        let piece = body.frame().await.expect("it has not ended").expect("it was not given up").into_data().unwrap();
        assert!(piece.len() <= PIECE_BYTES);
        let piece = piece.try_into_mut().expect("nobody else has it");
        assert!(piece.capacity() <= PIECE_BYTES);
        taken.extend_from_slice(&piece);
    }
    assert_eq!(taken, text);
    drop(body);
    assert_eq!(unsent.bytes(), 0);
}

/// Goal: what a client does not take is given back at the deadline, and what it takes no more of within the timeout after the
/// last piece, whether anybody asks or not; whoever asks later learns that the answer is not whole. What a client leaves is
/// given back at once.
#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_let_go_of() {
    for (protocol, pieces) in [(Protocol::Http, 0), (Protocol::Http, 3), (Protocol::Grpc, 0), (Protocol::Grpc, 3)] {
        let unsent = unsent(1 << 30);
        let (_, mut body) = answer(&unsent, 10 * PIECE_BYTES, protocol);
        for _ in 0..pieces {
            tokio::time::sleep(TIMEOUT / 2).await;
            body.frame().await.expect("it has not ended").expect("it was not given up");
        }
        tokio::time::sleep(TIMEOUT - Duration::from_millis(1)).await;
        assert_eq!(unsent.bytes(), 10 * PIECE_BYTES, "{pieces} pieces");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(unsent.bytes(), 0, "{pieces} pieces");
        assert!(!body.is_end_stream(), "it would pass for whole");
        let last = body.frame().await.expect("it is not whole");
        match protocol {
            Protocol::Http => assert!(last.unwrap_err().to_string().contains("timeout_ms")),
            Protocol::Grpc => assert_eq!(last.unwrap().into_trailers().unwrap()["grpc-status"], "4"),
        }
        assert!(body.frame().await.is_none());
    }
    let unsent = unsent(1 << 30);
    drop(answer(&unsent, 10, Protocol::Http));
    assert_eq!(unsent.bytes(), 0);
}

/// Goal: long answers that are not taken leave room for short ones, and beyond all room each is refused as what it is: one
/// that never has room, or one for later.
#[tokio::test]
async fn too_much_text_is_refused() {
    let unsent = unsent(16 * PIECE_BYTES);
    let refused = |bytes| unsent.take(bytes).map(drop).map_err(|error| (error.code, error.retry_after.is_some()));
    assert_eq!(refused(15 * PIECE_BYTES), Err((ErrorCode::TooLarge, false)));
    let long = unsent.take(13 * PIECE_BYTES).unwrap();
    assert_eq!(refused(2 * PIECE_BYTES), Err((ErrorCode::ResourceExhausted, true)));
    let short: Vec<_> = (0..3).map(|_| unsent.take(PIECE_BYTES).unwrap()).collect();
    assert_eq!(refused(1), Err((ErrorCode::ResourceExhausted, true)));
    drop(long);
    assert_eq!(refused(11 * PIECE_BYTES), Ok(()));
    drop(short);
    assert_eq!(unsent.bytes(), 0);
}
