//! HTTP/1.1 through a real worker, on raw sockets, with an origin that records every byte.
#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod authorisation;
mod corpus;
mod exchanges;
mod policies;
mod rig;
mod routing;

use rig::{Origin, Rig};

#[test]
fn a_get_is_forwarded_and_answered() {
    let origin = Origin::ok();
    let rig = Rig::to(&origin);
    let got =
        rig.send(b"GET /a?b=c HTTP/1.1\r\nHost: Example.org:80\r\nX-Case: Kept\r\nConnection: close\r\n\r\n");
    assert_eq!(got, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    assert_eq!(
        origin.requests(),
        ["GET /a?b=c HTTP/1.1\r\nHost: Example.org:80\r\nX-Case: Kept\r\nX-Forwarded-For: 127.0.0.1\r\n\
          X-Forwarded-Proto: http\r\nX-Forwarded-Host: Example.org:80\r\n\r\n"]
    );
}
