//! What an exchange allows at each step, and what it never does.

use proptest::prelude::*;

use super::*;

fn facts(method: Method) -> Facts {
    Facts { method, version: Version::Http11, has_content: false, upgrade: false, close: false }
}

/// An exchange whose request is sent, without content.
fn sent(facts: Facts) -> Exchange {
    let mut exchange = Exchange::new(facts);
    exchange.attempt();
    exchange.sent();
    exchange.request_sent();
    exchange
}

#[test]
fn framing_follows_method_and_status_before_fields() {
    let check = |method, status, want| {
        assert_eq!(response_framing(method, status, Framing::Length(5)), want, "{method:?} {status}");
    };
    check(Method::Get, 200, Framing::Length(5));
    check(Method::Head, 200, Framing::None);
    check(Method::Get, 204, Framing::None);
    check(Method::Get, 304, Framing::None);
    check(Method::Get, 103, Framing::None);
    check(Method::Other, 404, Framing::Length(5));
}

#[test]
fn an_undisturbed_exchange_keeps_both_connections() {
    let mut exchange = sent(facts(Method::Get));
    assert_eq!(
        exchange.response_head(200, Framing::Length(2), false),
        Ok(Received::Final(Framing::Length(2)))
    );
    exchange.response_begun();
    exchange.response_received();
    exchange.response_sent();
    assert_eq!(exchange.ending(), Ending { keep_client: true, keep_upstream: true });
}

#[test]
fn content_until_close_ends_the_upstreams_connection_alone() {
    let mut exchange = sent(facts(Method::Get));
    assert_eq!(
        exchange.response_head(200, Framing::UntilClose, false),
        Ok(Received::Final(Framing::UntilClose))
    );
    exchange.response_begun();
    exchange.response_received();
    exchange.response_sent();
    assert_eq!(exchange.ending(), Ending { keep_client: true, keep_upstream: false });
}

#[test]
fn a_response_before_the_end_of_the_request_ends_both_connections() {
    let mut exchange = Exchange::new(Facts { has_content: true, ..facts(Method::Other) });
    exchange.attempt();
    exchange.sent();
    assert_eq!(
        exchange.response_head(413, Framing::Length(0), false),
        Ok(Received::Final(Framing::Length(0)))
    );
    assert!(exchange.must_close_client());
    exchange.response_begun();
    exchange.response_received();
    exchange.response_sent();
    assert_eq!(exchange.ending(), Ending { keep_client: false, keep_upstream: false });
}

#[test]
fn interim_responses_are_limited_and_hidden_from_http_1_0() {
    let mut exchange = sent(facts(Method::Get));
    for _ in 0..MAX_INTERIM {
        assert_eq!(exchange.response_head(103, Framing::UntilClose, false), Ok(Received::Interim));
    }
    assert_eq!(exchange.response_head(103, Framing::UntilClose, false), Err(Failure::Malformed));
    let mut old = sent(Facts { version: Version::Http10, ..facts(Method::Get) });
    assert_eq!(old.response_head(103, Framing::UntilClose, false), Ok(Received::Ignored));
}

#[test]
fn only_what_was_offered_is_switched_to() {
    let mut offered = sent(Facts { upgrade: true, ..facts(Method::Get) });
    assert_eq!(offered.response_head(101, Framing::UntilClose, false), Ok(Received::Switched));
    let mut unasked = sent(facts(Method::Get));
    assert_eq!(unasked.response_head(101, Framing::UntilClose, false), Err(Failure::Malformed));
}

#[test]
fn an_attempt_is_repeated_only_where_the_request_can_not_have_acted() {
    let check = |method, failure, reused, replayable, want| {
        let got = sent(facts(method)).upstream_failed(failure, reused, replayable);
        assert_eq!(got, want, "{method:?} {failure:?} reused {reused} replayable {replayable}");
    };
    let reset = Next::Answer(Reason::UpstreamReset);
    check(Method::Get, Failure::Reset, true, true, Next::Retry);
    check(Method::Idempotent, Failure::Reset, true, true, Next::Retry);
    check(Method::Get, Failure::Reset, true, false, reset);
    check(Method::Get, Failure::Reset, false, true, reset);
    check(Method::Other, Failure::Reset, true, true, reset);
    check(Method::Other, Failure::Unprocessed, false, true, Next::Retry);
    check(Method::Other, Failure::Unprocessed, true, false, reset);
    check(Method::Other, Failure::Connect, false, true, Next::Retry);
    check(Method::Other, Failure::Tls, false, true, Next::Retry);
    check(Method::Other, Failure::Tls, false, false, Next::Answer(Reason::UpstreamTlsFailed));
    check(Method::Get, Failure::AttemptTimeout, true, true, Next::Answer(Reason::UpstreamTimeout));
    check(Method::Get, Failure::RequestTimeout, true, true, Next::Answer(Reason::RequestTimeout));
    check(Method::Get, Failure::Malformed, true, true, Next::Answer(Reason::UpstreamMalformed));
    let mut unsent = Exchange::new(facts(Method::Other));
    unsent.attempt();
    assert_eq!(unsent.upstream_failed(Failure::Reset, true, true), Next::Retry, "nothing left our hands");
}

#[test]
fn attempts_are_limited() {
    let mut exchange = Exchange::new(facts(Method::Get));
    let attempts = (1..).find(|_| {
        exchange.attempt();
        exchange.upstream_failed(Failure::Connect, false, true) != Next::Retry
    });
    assert_eq!(attempts, Some(MAX_ATTEMPTS));
}

#[test]
fn after_the_first_byte_of_an_answer_nothing_is_repeated() {
    let mut exchange = sent(facts(Method::Get));
    exchange.response_head(103, Framing::UntilClose, false).unwrap();
    assert_eq!(exchange.upstream_failed(Failure::Reset, true, true), Next::Answer(Reason::UpstreamReset));
    let mut begun = sent(facts(Method::Get));
    begun.response_head(200, Framing::Length(5), false).unwrap();
    begun.response_begun();
    assert_eq!(begun.upstream_failed(Failure::Reset, true, true), Next::Cut);
}

/// What a codec may report, in any order.
#[derive(Clone, Copy, Debug)]
enum Event {
    Attempt,
    Sent,
    RequestReceived,
    RequestSent,
    RequestRefused,
    Head(u16, bool),
    Begun,
    ResponseReceived,
    ResponseSent,
    Failed(Failure),
}

fn event() -> impl Strategy<Value = Event> {
    let failure = prop::sample::select(&[
        Failure::Connect,
        Failure::Tls,
        Failure::Reset,
        Failure::Malformed,
        Failure::AttemptTimeout,
        Failure::RequestTimeout,
    ]);
    prop_oneof![
        Just(Event::Attempt),
        Just(Event::Sent),
        Just(Event::RequestReceived),
        Just(Event::RequestSent),
        Just(Event::RequestRefused),
        (prop::sample::select(&[100_u16, 101, 200, 204, 404]), any::<bool>())
            .prop_map(|(status, closes)| Event::Head(status, closes)),
        Just(Event::Begun),
        Just(Event::ResponseReceived),
        Just(Event::ResponseSent),
        failure.prop_map(Event::Failed),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_request_is_sent_twice_and_no_broken_connection_is_kept(
        events in prop::collection::vec(event(), 0..20),
        has_content in any::<bool>(),
        idempotent in any::<bool>(),
    ) {
        let method = if idempotent { Method::Get } else { Method::Other };
        let mut exchange = Exchange::new(Facts { has_content, ..facts(method) });
        let (mut has_begun, mut has_sent, mut received, mut failed, mut refused) =
            (false, false, !has_content, false, false);
        for event in events {
            match event {
                Event::Attempt => {
                    exchange.attempt();
                    (has_sent, failed, refused) = (false, false, false);
                }
                Event::Sent => { exchange.sent(); has_sent = true; }
                Event::RequestReceived => { exchange.request_received(); received = true; }
                Event::RequestSent => { exchange.request_sent(); (has_sent, refused) = (true, false); }
                Event::RequestRefused => { exchange.request_refused(); refused = true; }
                Event::Head(status, closes) => {
                    // A codec reads no head after a failure.
                    if !failed { let _ = exchange.response_head(status, Framing::Length(1), closes); }
                }
                Event::Begun => { exchange.response_begun(); has_begun = true; }
                Event::ResponseReceived => if !failed { exchange.response_received() },
                Event::ResponseSent => { exchange.response_sent(); has_begun = true; }
                Event::Failed(failure) => {
                    failed = true;
                    let next = exchange.upstream_failed(failure, true, true);
                    prop_assert_eq!(next == Next::Cut, has_begun);
                    if next == Next::Retry {
                        let is_before_all = matches!(failure, Failure::Connect | Failure::Tls);
                        prop_assert!(is_before_all || idempotent || !has_sent);
                    }
                }
            }
            let ending = exchange.ending();
            prop_assert!(!(failed && ending.keep_upstream), "a connection that failed is kept");
            prop_assert!(!(refused && ending.keep_upstream), "a connection that refused the request is kept");
            prop_assert!(received || !ending.keep_client, "content would be taken for a request");
        }
    }
}
