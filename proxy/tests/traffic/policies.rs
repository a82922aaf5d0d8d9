//! What a rule does besides editing and forwarding, for clients of HTTP/2.

use http::{Method, Request};
use proxy_config::route::{Cors, Filter};

use crate::http2::{Answer, Client, answer, request};
use crate::origin::Origin;
use crate::rig::{Rig, Site};

async fn ask(client: &Client, method: Method, fields: &[(&'static str, &'static str)]) -> Answer {
    let mut head: Request<()> = request(method, "/");
    for (name, value) in fields {
        head.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (response, _) = client.send(head, true).await;
    answer(response).await.unwrap()
}

#[tokio::test]
async fn a_preflight_is_answered_and_responses_say_who_may_read_them() {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape = |route| {
        let cors = Cors {
            allow_origins: vec!["https://*.a.example".into()],
            allow_credentials: true,
            allow_methods: vec!["*".into()],
            max_age: 5,
            ..Cors::default()
        };
        route.rules[0].filters.push(Filter::Cors(cors));
    };
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    let asked = [("origin", "https://x.a.example"), ("access-control-request-method", "PUT")];
    let got = ask(&client, Method::OPTIONS, &asked).await;
    got.check(204, b"");
    assert_eq!(got.field("access-control-allow-origin"), Some("https://x.a.example"));
    assert_eq!(got.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(got.field("access-control-max-age"), Some("5"));
    assert!(origin.requests().is_empty());
    let got = ask(&client, Method::GET, &asked[..1]).await;
    got.check(200, b"ok");
    assert_eq!(got.field("access-control-allow-origin"), Some("https://x.a.example"));
    assert_eq!(got.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(got.field("vary"), Some("Origin"));
    let got = ask(&client, Method::GET, &[("origin", "https://b.example")]).await;
    got.check(200, b"ok");
    assert_eq!(got.field("access-control-allow-origin"), None);
}
