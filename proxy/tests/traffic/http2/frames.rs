//! Requests that no client library sends, frame by frame: what is malformed is refused, and nothing of it
//! reaches the origin.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig};

pub(super) const HEADERS: u8 = 1;
pub(super) const DATA: u8 = 0;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const GOAWAY: u8 = 7;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Field = (&'static [u8], Vec<u8>);

fn field(name: &'static str, value: impl AsRef<[u8]>) -> Field {
    (name.as_bytes(), value.as_ref().to_vec())
}

/// A request as pseudo-header fields and fields.
fn with(fields: &[Field]) -> Vec<Field> {
    let mut all = line("GET", "/", "a.example");
    all.extend_from_slice(fields);
    all
}

fn line(method: &str, path: &str, authority: &str) -> Vec<Field> {
    vec![
        field(":method", method),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", authority),
    ]
}

fn without(name: &str) -> Vec<Field> {
    line("GET", "/", "a.example").into_iter().filter(|(other, _)| *other != name.as_bytes()).collect()
}

/// A head, its content and its trailers as frames of stream 1.
struct Case {
    id: &'static str,
    head: Vec<Field>,
    content: Option<&'static [u8]>,
    trailers: Vec<Field>,
}

fn case(id: &'static str, head: Vec<Field>) -> Case {
    Case { id, head, content: None, trailers: Vec::new() }
}

fn sending(id: &'static str, fields: &[Field], content: &'static [u8]) -> Case {
    let mut head = line("POST", "/", "a.example");
    head.extend_from_slice(fields);
    Case { id, head, content: Some(content), trailers: Vec::new() }
}

fn length(length: &str) -> Vec<Field> {
    vec![field("content-length", length)]
}

/// Malformed fields, and content that contradicts its length.
fn refused_fields() -> Vec<Case> {
    vec![
        case("D01", with(&[field("X-Upper", "1")])),
        case("D02", with(&[field("x:y", "1")])),
        case("D03", with(&[field("x y", "1")])),
        case("D04", with(&[field("x\r\ny", "1")])),
        case("D05", with(&[field("x\0y", "1")])),
        case("D06", with(&[field("", "1")])),
        case("D07", with(&[(b"x\xff", b"1".to_vec())])),
        case("D08", with(&[field("x", "a\r\nb: c")])),
        case("D09", with(&[field("x", "a\nb")])),
        case("D10", with(&[field("x", "a\rb")])),
        case("D11", with(&[field("x", "a\0b")])),
        case("D12", with(&[field("x", " a")])),
        case("D13", with(&[field("x", "a\t")])),
        case("D14", with(&[field("transfer-encoding", "chunked")])),
        case("D15", with(&[field("connection", "close")])),
        case("D16", with(&[field("keep-alive", "5")])),
        case("D17", with(&[field("proxy-connection", "close")])),
        case("D18", with(&[field("upgrade", "h2c")])),
        case("D19", with(&[field("te", "gzip")])),
        sending("D20", &length("0"), b"hello"),
        sending("D21", &length("3"), b"hello"),
        sending("D22", &length("9"), b"hello"),
        sending("D23", &[length("5"), length("5")].concat(), b"hello"),
        sending("D24", &length("5, 5"), b"hello"),
        sending("D25", &length("+5"), b"hello"),
        case("D26", with(&length("5"))),
        case("many fields", with(&vec![field("x", "1"); 130])),
        case("many crumbs", with(&[field("cookie", "a=b; ".repeat(130) + "c=d")])),
        case("large fields", with(&vec![field("x", "y".repeat(120)); 260])),
    ]
}

/// Malformed pseudo-header fields.
fn refused_lines() -> Vec<Case> {
    let mut cases = vec![
        case("D28", [line("GET", "/", "a.example"), vec![field(":path", "/b")]].concat()),
        case("D29", with(&[field(":unknown", "1")])),
        case("D30", with(&[field(":status", "200")])),
        case("D31", without(":method")),
        case("D32", without(":scheme")),
        case("D33", without(":path")),
        case("D34", line("GET", "", "a.example")),
        case("D35", line("GET", "/\r\nx: y", "a.example")),
        case("D36", line("GET", "/a b", "a.example")),
        case("D37", line("GET", "/\0", "a.example")),
        case("D38", line("GET", "a", "a.example")),
        case("D39", line("GET", "http://b.example/", "a.example")),
        case("D40", line("GET", "/#a", "a.example")),
        case("D40: nothing but", line("GET", "#a", "a.example")),
        case("D40: query", line("GET", "/?a=b#c", "a.example")),
        case("path that is not ASCII", line("GET", "/\u{e9}", "a.example")),
        case("D41", line("G T", "/", "a.example")),
        case("D42", line("GET\r\nx: y", "/", "a.example")),
        case("D43", line("", "/", "a.example")),
        case("D45", line("GET", "/", "u@a.example")),
        case("D46", line("GET", "/", "a example")),
        case("D47", line("GET", "/", "a.example/b")),
        case("D48", line("GET", "/", "a.example\r\nx: y")),
        case("D49", line("GET", "/", "")),
        case("D50", with(&[field("host", "b.example")])),
        case("D51", without(":authority")),
        case("D52", [without(":authority"), vec![field("host", "a"), field("host", "b")]].concat()),
        case("D53", vec![field(":method", "CONNECT"), field(":authority", "a.example:443")]),
        case("D54", line("CONNECT", "/", "a.example")),
        case("above root", line("GET", "/../a", "a.example")),
        case("TRACE", line("TRACE", "/", "a.example")),
        case("encoding", line("GET", "/%zz", "a.example")),
    ];
    let mut tunnel = line("CONNECT", "/", "a.example");
    tunnel.insert(1, field(":protocol", "websocket"));
    tunnel.push(field("content-length", "4"));
    cases.push(Case {
        id: "tunnel with a length",
        head: tunnel,
        content: Some(b"abcd"),
        trailers: Vec::new(),
    });
    let mut late = with(&[field("x", "1")]);
    late.swap(3, 4);
    cases.push(case("D27", late));
    let mut scheme = line("GET", "/", "a.example");
    scheme[1] = field(":scheme", "ht tp");
    cases.push(case("D44", scheme));
    cases
}

fn served() -> Vec<Case> {
    vec![
        case("D58", with(&[field("cookie", "a=b"), field("cookie", "c=d")])),
        case("D59", with(&[field("te", "trailers")])),
        sending("D60", &length("5"), b"hello"),
        case("D61", with(&[])),
        case("host alone", [without(":authority"), vec![field("host", "a.example")]].concat()),
        case("host again", with(&[field("host", "A.example")])),
    ]
}

/// Fields as HPACK writes them without its tables (RFC 7541 section 6.2.2).
fn block(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let string = |text: &[u8], bytes: &mut Vec<u8>| {
        if text.len() < 127 {
            bytes.push(text.len() as u8);
        } else {
            bytes.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend_from_slice(text);
    };
    for (name, value) in fields {
        bytes.push(0);
        string(name, &mut bytes);
        string(value, &mut bytes);
    }
    bytes
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A head as HEADERS and, where it is too large for one frame, CONTINUATION.
fn head(fields: &[Field], is_whole: bool) -> Vec<u8> {
    let block = block(fields);
    let mut chunks = block.chunks(16_000).peekable();
    let (mut bytes, mut kind) = (Vec::new(), HEADERS);
    while let Some(chunk) = chunks.next() {
        let mut flags = if chunks.peek().is_none() { END_HEADERS } else { 0 };
        flags |= if kind == HEADERS && is_whole { END_STREAM } else { 0 };
        bytes.extend(frame(kind, flags, 1, chunk));
        kind = 9;
    }
    bytes
}

/// What the proxy made of stream 1.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A head came, whose block begins with this byte: 0x88 is 200, 0x8c is 400 (RFC 7541 appendix A).
    Answered(u8),
    Reset,
    ConnectionEnded,
}

impl Verdict {
    fn is_refusal(&self) -> bool {
        !matches!(self, Self::Answered(0x88))
    }
}

async fn verdict(rig: &Rig, case: &Case) -> Verdict {
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(head(&case.head, case.content.is_none() && case.trailers.is_empty()));
    if let Some(content) = case.content {
        bytes.extend(frame(DATA, if case.trailers.is_empty() { END_STREAM } else { 0 }, 1, content));
    }
    if !case.trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&case.trailers)));
    }
    stream.write_all(&bytes).await.unwrap();
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).await.is_err() {
            return Verdict::ConnectionEnded;
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        match header[3] {
            HEADERS => return Verdict::Answered(payload[0]),
            RST_STREAM => return Verdict::Reset,
            GOAWAY => return Verdict::ConnectionEnded,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_never_forwarded() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    for case in refused_fields().into_iter().chain(refused_lines()) {
        let verdict = timeout(PATIENCE, verdict(&rig, &case)).await.expect(case.id);
        assert!(verdict.is_refusal(), "{}: {verdict:?}", case.id);
        assert_eq!(origin.requests(), [""; 0], "{}: something was forwarded", case.id);
    }
}

#[tokio::test]
async fn what_looks_unusual_but_is_valid_is_served() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    for case in served() {
        let verdict = timeout(PATIENCE, verdict(&rig, &case)).await.expect(case.id);
        assert_eq!(verdict, Verdict::Answered(0x88), "{}", case.id);
    }
    let requests = origin.requests();
    assert!(requests[0].contains("\r\nCookie: a=b; c=d\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("\r\nTE: trailers\r\n"));
}

#[tokio::test]
async fn trailers_with_fields_of_the_head_are_not_merged() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let trailers = vec![field("host", "evil"), field("content-length", "9"), field("x-fine", "1")];
    let case = Case { trailers, ..sending("D56", &[], b"hello") };
    assert_eq!(verdict(&rig, &case).await, Verdict::Answered(0x88));
    assert!(origin.requests()[0].ends_with("\r\n0\r\nx-fine: 1\r\n\r\n"), "{}", origin.requests()[0]);
}
