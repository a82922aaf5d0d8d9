//! What answers of services mean.

use super::*;

fn option(key: &str, value: &str, append: Option<bool>, append_action: Action) -> HeaderValueOption {
    let header = messages::HeaderValue { key: key.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption {
        header: Some(header),
        append,
        append_action: append_action as i32,
        keep_empty_value: false,
    }
}

/// Edits in short: what is dropped of these names, then what is appended.
fn short(edits: &HeaderEdits, names: &[&str]) -> String {
    let dropped: Vec<&str> = names.iter().copied().filter(|name| edits.drops(name.as_bytes())).collect();
    let lines = std::str::from_utf8(edits.lines()).unwrap().replace("\r\n", ";");
    format!("-{} +{lines}", dropped.join(","))
}

#[test]
fn an_answer_without_a_status_passes_and_one_with_an_error_is_403() {
    let judged = |response: CheckResponse| judge(response, |_| false).unwrap();
    let Answered::Yes(request, response) = judged(CheckResponse::default()) else { panic!() };
    assert!(request.is_empty() && response.is_empty());
    let status = Some(messages::Status { code: 7 });
    let Answered::No(denial) = judged(CheckResponse { status, http_response: None }) else { panic!() };
    assert_eq!((denial.status, denial.fields.len(), denial.content.len()), (403, 0, 0));
}

#[test]
fn nothing_passes_where_an_answer_wants_the_query_changed() {
    // The status, then field 7 (a message) or 8 (text) within the answer: none is passed over unread.
    for field in [&[7 << 3 | 2, 3, 10, 1, b'q'][..], &[8 << 3 | 2, 1, b'q']] {
        let length = u8::try_from(field.len()).unwrap();
        let response = [&[10, 0, 3 << 3 | 2, length][..], field].concat();
        let response = CheckResponse::decode(&response[..]).unwrap();
        assert!(matches!(judge(response, |_| false), Err(Reason::AuthorisationFailed)));
    }
}

#[test]
fn an_answer_that_contradicts_itself_is_a_denial() {
    let denied =
        DeniedHttpResponse { status: Some(messages::HttpStatus { code: 401 }), ..Default::default() };
    let http_response = Some(HttpResponse::Denied(denied));
    let response = CheckResponse { status: Some(messages::Status { code: 0 }), http_response };
    let Answered::No(denial) = judge(response, |_| false).unwrap() else { panic!() };
    assert_eq!(denial.status, 401);
    let http_response = Some(HttpResponse::Ok(OkHttpResponse::default()));
    let response = CheckResponse { status: Some(messages::Status { code: 16 }), http_response };
    assert!(matches!(judge(response, |_| false).unwrap(), Answered::No(Denial { status: 403, .. })));
}

#[test]
fn an_answer_names_no_more_fields_than_a_head_may_have() {
    let judged = |count| {
        let headers = vec![option("x", "1", None, Action::Append); count];
        let http_response = Some(HttpResponse::Ok(OkHttpResponse { headers, ..Default::default() }));
        judge(CheckResponse { status: None, http_response }, |_| false)
    };
    assert!(matches!(judged(MAX_FIELDS), Ok(Answered::Yes(..))));
    assert!(matches!(judged(MAX_FIELDS + 1), Err(Reason::AuthorisationFailed)));
}

#[test]
fn a_denial_has_no_status_that_ends_nothing_and_no_framing() {
    let code = |code| {
        let status = Some(messages::HttpStatus { code });
        let headers = ["x-a", "Content-Length", "transfer-encoding", "Date"]
            .map(|name| option(name, "5", None, Action::Append))
            .to_vec();
        denial(DeniedHttpResponse { status, headers, body: "no".into() }).unwrap()
    };
    assert_eq!(
        [101, 0, -1, 600, 99_999, 429].map(|status| code(status).status),
        [403, 403, 403, 403, 403, 429]
    );
    assert_eq!(code(401).fields, [Told { name: b"x-a".to_vec(), value: b"5".to_vec() }]);
    let repeated = |append| {
        let headers = vec![option("x", "1", None, Action::Append), option("X", "2", append, Action::Append)];
        denial(DeniedHttpResponse { headers, ..Default::default() }).unwrap().fields.len()
    };
    assert_eq!([None, Some(false), Some(true)].map(repeated), [1, 1, 2]);
}

#[test]
fn fields_of_the_request_are_replaced_added_and_taken_away_as_the_service_says() {
    let headers = vec![
        option("set", "1", None, Action::Append),
        option("add", "1", Some(true), Action::Append),
        option("absent", "1", None, Action::AddIfAbsent),
        option("there", "1", None, Action::AddIfAbsent),
        option("there", "2", None, Action::OverwriteIfExists),
        option("gone", "1", None, Action::OverwriteIfExists),
        option("empty", "", None, Action::Append),
        option("Host", "evil", None, Action::Append),
    ];
    let removed = ["away", "Host", "Content-Length"].map(str::to_owned).to_vec();
    let response_headers_to_add =
        vec![option("r-add", "1", None, Action::Append), option("r-set", "1", None, Action::Overwrite)];
    let ok =
        OkHttpResponse { headers, headers_to_remove: removed, response_headers_to_add, ..Default::default() };
    let Answered::Yes(request, response) = granted(ok, |name| name == "there").unwrap() else { panic!() };
    let names = ["set", "add", "absent", "there", "gone", "empty", "away", "host", "content-length"];
    assert_eq!(short(&request, &names), "-set,absent,there,empty,away +set: 1;add: 1;absent: 1;there: 2;");
    assert_eq!(short(&response, &["r-add", "r-set"]), "-r-set +r-add: 1;r-set: 1;");
}

#[test]
fn a_field_that_no_message_can_have_fails_the_check() {
    for (name, value) in [("a b", "1"), ("a", "1\r\nb: 2"), ("", "1")] {
        let headers = vec![option(name, value, None, Action::Append)];
        let ok = OkHttpResponse { headers: headers.clone(), ..Default::default() };
        assert!(granted(ok, |_| false).is_err(), "{name:?}: {value:?}");
        assert!(denial(DeniedHttpResponse { headers, ..Default::default() }).is_err(), "{name:?}: {value:?}");
    }
}

#[test]
fn only_a_whole_message_of_a_call_that_has_succeeded_is_an_answer() {
    let answer = |status: u16, content: &[u8], trailers: &str| Answer {
        status,
        fields: Vec::new(),
        content: Some(content.to_vec()),
        trailers: trailers.as_bytes().to_vec(),
    };
    let good = "grpc-status: 0\r\n";
    assert!(response(answer(200, &[0, 0, 0, 0, 0], good)).is_some());
    assert!(response(answer(200, &[0, 0, 0, 0, 2, 10, 0], good)).is_some());
    assert!(response(answer(503, &[0, 0, 0, 0, 0], good)).is_none());
    assert!(response(answer(200, &[0, 0, 0, 0, 0], "grpc-status: 14\r\n")).is_none());
    assert!(response(answer(200, &[0, 0, 0, 0, 0], "")).is_none());
    assert!(response(answer(200, b"", good)).is_none());
    assert!(response(answer(200, &[1, 0, 0, 0, 0], good)).is_none(), "compressed");
    assert!(response(answer(200, &[0, 0, 0, 0, 9, 10, 0], good)).is_none(), "cut");
    assert!(response(answer(200, &[0, 0, 0, 0, 2, 10, 7], good)).is_none(), "malformed");
    assert!(response(Answer { content: None, ..answer(200, b"", good) }).is_none(), "too long");
}
