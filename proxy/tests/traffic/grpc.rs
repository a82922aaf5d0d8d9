//! Calls of gRPC through the proxy: heads, messages and trailers as they are, and errors of our own as a
//! status that clients of gRPC understand.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use proxy_config::backend::BackendProtocol;
use tokio::time::timeout;

use crate::h2c::{Origin, rig};
use crate::http2::{Answer, Client, answer, request};
use crate::rig::{PATIENCE, Rig, Site, nobody};

fn call(path: &str) -> Request<()> {
    let mut head = request(Method::POST, path);
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "5S"),
        ("grpc-encoding", "identity"),
        ("user-agent", "grpc-rust/1"),
    ] {
        head.headers_mut().insert(name, value.parse().unwrap());
    }
    head
}

/// A message as gRPC frames it.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

#[tokio::test]
async fn calls_of_all_four_kinds_pass_with_their_metadata() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    for (sent, times) in [(1, "1"), (3, "0"), (1, "3"), (3, "1")] {
        let mut head = call("/test.Echo/Repeat");
        head.headers_mut().insert("x-repeat", times.parse().unwrap());
        let (response, mut stream) = client.send(head, false).await;
        let messages: Vec<Bytes> = (0..sent).map(|number| message(&format!("message {number}"))).collect();
        for message in &messages {
            stream.send_data(message.clone(), false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
        let answer = answer(response).await.unwrap();
        assert_eq!(answer.field("content-type"), Some("application/grpc+proto"));
        assert_eq!(answer.field("content-length"), None);
        assert_eq!(answer.content.len(), messages.concat().len() * times.parse::<usize>().unwrap());
        let trailers: HeaderMap = answer.trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["trace_proto-bin"], "AAE");
        assert!(!trailers.contains_key("host"));
    }
    for head in origin.seen.heads.lock().unwrap().iter() {
        for name in ["content-type", "te", "grpc-timeout", "grpc-encoding", "user-agent"] {
            assert_eq!(head.headers()[name], call("/").headers()[name]);
        }
        assert!(!head.headers().contains_key("connection"));
    }
}

#[tokio::test]
async fn metadata_with_underscores_pass_unless_they_would_mean_something_to_a_proxy() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let mut head = call("/test.Echo/Repeat");
    for name in ["my_key", "trace_proto-bin", "x_forwarded_for", "content_length", "x_real-ip"] {
        head.headers_mut().insert(name, "AAE".parse().unwrap());
    }
    let (response, mut stream) = client.send(head, false).await;
    stream.send_data(message("one"), true).unwrap();
    answer(response).await.unwrap().check(200, &message("one"));
    let heads = origin.seen.heads.lock().unwrap();
    let names: Vec<&str> = heads[0].headers().keys().map(|name| name.as_str()).collect();
    let underscored: Vec<&&str> = names.iter().filter(|name| name.contains('_')).collect();
    assert_eq!(underscored, [&"my_key", &"trace_proto-bin"]);
}

#[tokio::test]
async fn messages_pass_as_they_come() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, mut stream) = client.send(call("/test.Echo/Repeat"), false).await;
    let (_, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    for text in ["one", "two", "three"] {
        stream.send_data(message(text), false).unwrap();
        assert_eq!(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap(), message(text));
    }
}

#[tokio::test]
async fn an_answer_of_trailers_alone_stays_one() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, _stream) = client.send(call("/test.Echo/Fail"), false).await;
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "no such cart");
}

#[track_caller]
fn check_status(answer: &Answer, status: &str) {
    answer.check(200, b"");
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert_eq!(answer.field("grpc-status"), Some(status));
    assert!(answer.field("grpc-message").is_some());
}

#[tokio::test]
async fn a_call_that_comes_to_no_answer_gets_a_status_of_grpc() {
    let (_held, nobody) = nobody([127, 0, 0, 32]);
    let rig = Rig::start(1).await;
    let mut site = Site::new(&rig, nobody);
    site.protocol = BackendProtocol::H2c;
    for origins in [vec![nobody], Vec::new()] {
        site.origins = origins;
        rig.hold(&site).await;
        let client = Client::connect(&rig).await;
        let (response, _stream) = client.send(call("/test.Echo/Repeat"), false).await;
        check_status(&answer(response).await.unwrap(), "14");
        client.get("/").await.check(503, b"Service Unavailable\n");
    }
    let origin = Origin::start().await;
    site.origins = vec![origin.address];
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    let (response, _stream) = client.send(call("/refused"), false).await;
    check_status(&answer(response).await.unwrap(), "14");
}
