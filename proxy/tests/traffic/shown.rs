//! Content that is read to be shown to a service which authorises requests: how much of it is held, and for how long.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use proxy_config::name::HostPattern;
use tokio::time::timeout;

use crate::authorisation::{Service, asking, hold, rig};
use crate::http1;
use crate::http2::{Client, answer, request, write};
use crate::origin::Origin;
use crate::rig::{PATIENCE, Site};

#[tokio::test]
async fn what_a_connection_has_others_hold_for_it_is_limited() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(60_000, &[]))).await;
    let client = Client::connect(&rig).await;
    // One frame each, so that nothing of another stream comes between; 65 of them are shown, and no more.
    let content = || Bytes::from(vec![b'x'; 16_000]);
    let mut begun = Vec::new();
    for _ in 0..65 {
        let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
        timeout(PATIENCE, write(&mut stream, content(), false)).await.expect("it is read");
        begun.push((response, stream));
    }
    let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
    timeout(PATIENCE, write(&mut stream, content(), false)).await.expect("it is read");
    answer(response).await.unwrap().check(503, b"Service Unavailable\n");
    for (response, mut stream) in begun {
        stream.send_data(Bytes::new(), true).unwrap();
        answer(response).await.unwrap().check(200, &content());
    }
    let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
    write(&mut stream, content(), true).await;
    answer(response).await.unwrap().check(200, &content());
}

#[tokio::test]
async fn content_is_read_no_longer_once_its_hostname_is_gone() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(8, &[]))).await;
    let mut first = http1::Client::connect(rig.http).await.unwrap();
    let second = Client::connect(&rig).await;
    let (response, mut stream) = second.send(request(Method::POST, "/echo"), false).await;
    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
    let begun = Instant::now();
    let first = tokio::spawn(async move {
        first.ask(b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\n\r\nhalf").await
    });
    let line = "portreeve_active_requests 2";
    while !proxy::metrics::text::render(rig.proxy.metrics()).contains(line) {
        tokio::task::yield_now().await;
    }
    let mut site = Site::new(&rig, origin.address);
    site.shape = |route| {
        route.rules[0].filters.push(asking(8, &[]));
        route.attachments[0].hostnames = vec![HostPattern::new("b.example")];
    };
    hold(&rig, &site, service.address).await;
    let answered = timeout(PATIENCE, first).await.expect("it is cut").unwrap().unwrap();
    assert!(answered.head.starts_with("HTTP/1.1 503 "), "{}", answered.head);
    answer(response).await.unwrap().check(503, b"Service Unavailable\n");
    assert!(begun.elapsed() < Duration::from_secs(5), "sooner than content that does not come");
}
