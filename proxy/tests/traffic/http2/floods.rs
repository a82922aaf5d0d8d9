//! Floods of frames, each of a kind that costs the sender nothing: the connection ends, and says why.
//! Source: RFC 9113 section 10.5, CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, frame};
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig};

const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ENHANCE_YOUR_CALM: u8 = 11;
/// `:method: POST`, `:scheme: http`, `:path: /`, `:authority: a`.
const POST: &[u8] = b"\x83\x86\x84\x41\x01a";
/// The same with GET.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

/// Sends what `flood` makes of each number, and `first` before; with which code the connection ends, if it
/// does while so many are sent.
async fn ended_by(rig: &Rig, first: &[u8], count: u32, flood: impl Fn(u32) -> Vec<u8>) -> Option<u8> {
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let sending = async {
        for number in 0..count {
            if to.write_all(&flood(number)).await.is_err() {
                return;
            }
        }
        // What is said once all of this has been read says whether it was borne.
        let _ = to.write_all(&frame(PING, 0, 0, b"all read")).await;
    };
    let reading = async {
        loop {
            let mut header = [0; 9];
            from.read_exact(&mut header).await.ok()?;
            let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
            from.read_exact(&mut payload).await.ok()?;
            match header[3] {
                GOAWAY if payload[7] != 0 => return Some(payload[7]),
                PING if payload == b"all read" => return None,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, async { tokio::join!(sending, reading).1 }).await.expect("it comes to something")
}

async fn rig() -> (Rig, Origin) {
    let origin = Origin::start().await;
    (Rig::to(origin.address).await, origin)
}

/// A request that has begun on stream 1, and goes on.
fn begun() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, POST)
}

#[tokio::test]
async fn frames_that_carry_nothing_are_borne_up_to_a_number() {
    let (rig, _origin) = rig().await;
    let window = 1_u32.to_be_bytes();
    for (what, sent) in [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PING that nobody asked for", frame(PING, 1, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &window)),
        ("WINDOW_UPDATE of a stream", frame(WINDOW_UPDATE, 0, 1, &window)),
        ("an unknown frame", frame(0xbe, 0, 0, b"x")),
    ] {
        assert_eq!(ended_by(&rig, &begun(), 900, |_| sent.clone()).await, None, "{what}");
        let ended = ended_by(&rig, &begun(), 20_000, |_| sent.clone()).await;
        assert_eq!(ended, Some(ENHANCE_YOUR_CALM), "{what}");
    }
}

#[tokio::test]
async fn content_that_is_none_is_borne_up_to_a_number() {
    let (rig, _origin) = rig().await;
    let empty = |_| frame(DATA, 0, 1, &[]);
    assert_eq!(ended_by(&rig, &begun(), 20, empty).await, None);
    assert_eq!(ended_by(&rig, &begun(), 20_000, empty).await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_read_on() {
    let (rig, _origin) = rig().await;
    let begun = frame(HEADERS, END_STREAM, 1, GET);
    for (what, part) in
        [("empty", vec![]), ("fields", vec![0x10, 1, b'x', 1, b'y']), ("large", vec![0x40; 16_000])]
    {
        let ended = ended_by(&rig, &begun, 1_000, |_| frame(CONTINUATION, 0, 1, &part)).await;
        assert!(ended.is_some(), "{what}");
    }
}

#[tokio::test]
async fn streams_that_are_reset_at_once_are_counted() {
    let (rig, origin) = rig().await;
    let reset = |number: u32, code: u8| {
        let stream = 2 * number + 1;
        [
            frame(HEADERS, END_HEADERS | END_STREAM, stream, GET),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, code]),
        ]
        .concat()
    };
    assert_eq!(ended_by(&rig, &[], 2_000, |number| reset(number, 8)).await, Some(ENHANCE_YOUR_CALM));
    assert!(origin.requests().len() < 300, "{}", origin.requests().len());
}

/// What is an error of a stream that has begun (CVE-2025-8671).
fn errors(stream: u32) -> [(&'static str, Vec<u8>); 4] {
    let update = |payload: &[u8]| frame(WINDOW_UPDATE, 0, stream, payload);
    [
        ("WINDOW_UPDATE of 0", update(&[0; 4])),
        ("a window too large", update(&[0x7f, 0xff, 0xff, 0xff])),
        ("HEADERS that end nothing", frame(HEADERS, END_HEADERS, stream, b"\x10\x01x\x01y")),
        (
            "DATA after the end",
            [frame(DATA, END_STREAM, stream, b"x"), frame(DATA, 0, stream, b"x")].concat(),
        ),
    ]
}

#[tokio::test]
async fn streams_that_a_client_makes_us_reset_are_counted() {
    let (rig, origin) = rig().await;
    let kinds = errors(1).map(|(what, _)| what);
    for (kind, what) in kinds.into_iter().enumerate() {
        let ended = ended_by(&rig, &[], 1_000, |number| {
            let stream = 2 * number + 1;
            [frame(HEADERS, END_HEADERS, stream, POST), errors(stream)[kind].1.clone()].concat()
        });
        assert!(ended.await.is_some(), "{what}");
    }
    assert!(origin.requests().len() < 600, "{}", origin.requests().len());
}

#[tokio::test]
async fn content_in_tiny_pieces_is_borne_up_to_a_number() {
    let (rig, _origin) = rig().await;
    assert_eq!(ended_by(&rig, &begun(), 1_000, |_| frame(DATA, 0, 1, b"x")).await, None);
    let ended = ended_by(&rig, &begun(), 60_000, |_| frame(DATA, 0, 1, b"x")).await;
    assert_eq!(ended, Some(ENHANCE_YOUR_CALM));
}
