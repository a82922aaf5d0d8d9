//! Owns what may happen next in an exchange: one state machine for every protocol.
//!
//! Two halves of a request (from the client, to the upstream) and two of a response (from the upstream,
//! to the client). Codecs report what they saw and did; the machine says what a response's framing is,
//! what a failure becomes, and which connections may be used again. Pure: no I/O, no clock.
//! Source: RFC 9110 sections 7 to 15, RFC 9112 sections 6 and 9.

use super::respond::Reason;
use super::validate::framing::Framing;
use super::validate::{Method, Version};
use crate::upstream::pool::OpenError;

/// The most interim responses that are passed on in one exchange.
pub const MAX_INTERIM: u8 = 10;

/// The most attempts at sending one request.
pub const MAX_ATTEMPTS: u8 = 3;

/// How far one half has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    /// Nothing has been read or sent.
    Untouched,
    /// Some of it has.
    Begun,
    /// All of it has.
    Ended,
    /// It broke off.
    Failed,
}

/// What is known of a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its method.
    pub method: Method,
    /// The client's version.
    pub version: Version,
    /// Whether it has content that has not been read.
    pub has_content: bool,
    /// Whether the client offered another protocol.
    pub upgrade: bool,
    /// Whether the client's connection ends with this exchange.
    pub close: bool,
}

/// What failed on the side of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The endpoint did not prove what its policy says that it must, or speaks no TLS that we do.
    Tls,
    /// The endpoint serves as many requests as it may.
    EndpointFull,
    /// There are as many connections to endpoints as may be.
    Exhausted,
    /// The connection ended or was reset.
    Reset,
    /// The upstream says that it has not looked at the request (HTTP/2: REFUSED_STREAM, or GOAWAY).
    Unprocessed,
    /// What was read can't be passed on.
    Malformed,
    /// The time for an attempt is over.
    AttemptTimeout,
    /// The time for the whole request is over.
    RequestTimeout,
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Connect(_) => Self::Connect,
            OpenError::Tls(_) => Self::Tls,
            OpenError::Exhausted => Self::Exhausted,
        }
    }
}

impl Failure {
    /// The failure of a connection that has ended.
    pub fn ended(is_unprocessed: bool) -> Self {
        if is_unprocessed { Self::Unprocessed } else { Self::Reset }
    }
}

/// What a failure becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try another endpoint or connection.
    Retry,
    /// Answer the client.
    Answer(Reason),
    /// Part of the response is sent: cut it, so that the client sees that it is incomplete.
    Cut,
}

/// What a response's head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// An interim response, which is passed on.
    Interim,
    /// An interim response, which is not passed on.
    Ignored,
    /// The upstream speaks the offered protocol from here on.
    Switched,
    /// The response, with its framing.
    Final(Framing),
}

/// Which connections may serve another exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The client's.
    pub keep_client: bool,
    /// The upstream's.
    pub keep_upstream: bool,
}

/// The framing of a response to a method with a status, whose fields say `fields`.
/// Source: RFC 9112 section 6.3.
pub fn response_framing(method: Method, status: u16, fields: Framing) -> Framing {
    let never_has_content = method == Method::Head || status < 200 || matches!(status, 204 | 304);
    if never_has_content { Framing::None } else { fields }
}

/// An exchange.
#[derive(Debug)]
pub struct Exchange {
    facts: Facts,
    request_in: Half,
    request_out: Half,
    response_in: Half,
    response_out: Half,
    interim: u8,
    attempts: u8,
    has_sent: bool,
    upstream_closes: bool,
}

impl Exchange {
    /// An exchange whose request's head has been read.
    pub fn new(facts: Facts) -> Self {
        let request_in = if facts.has_content { Half::Begun } else { Half::Ended };
        Self {
            facts,
            request_in,
            request_out: Half::Untouched,
            response_in: Half::Untouched,
            response_out: Half::Untouched,
            interim: 0,
            attempts: 0,
            has_sent: false,
            upstream_closes: false,
        }
    }

    /// An attempt begins.
    pub fn attempt(&mut self) {
        self.attempts += 1;
        self.request_out = Half::Untouched;
        self.response_in = Half::Untouched;
        self.has_sent = false;
        self.upstream_closes = false;
    }

    /// Bytes of the request have been handed to the network.
    pub fn sent(&mut self) {
        self.has_sent = true;
    }

    /// All of the request has been handed to the network.
    pub fn request_sent(&mut self) {
        self.has_sent = true;
        self.request_out = Half::Ended;
    }

    /// The upstream takes no more of the request: it may still answer (RFC 9112 section 9.6).
    pub fn request_refused(&mut self) {
        self.request_out = Half::Failed;
    }

    /// All of the request has been read.
    pub fn request_received(&mut self) {
        self.request_in = Half::Ended;
    }

    /// Whether all of the request has been read.
    pub fn is_request_received(&self) -> bool {
        self.request_in == Half::Ended
    }

    /// A response's head has been read. `closes`: its connection ends with it.
    ///
    /// # Errors
    /// Where it must not be passed on: 101 that nobody asked for, or too many interim responses.
    pub fn response_head(&mut self, status: u16, fields: Framing, closes: bool) -> Result<Received, Failure> {
        self.response_in = Half::Begun;
        if status == 101 {
            return if self.facts.upgrade { Ok(Received::Switched) } else { Err(Failure::Malformed) };
        }
        if status < 200 {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Failure::Malformed);
            }
            let passes = self.facts.version != Version::Http10;
            return Ok(if passes { Received::Interim } else { Received::Ignored });
        }
        let framing = response_framing(self.facts.method, status, fields);
        // RFC 9110 section 15.3.5: 204 has no content. Bytes that an upstream announces all the same may come
        // late, and would be taken for the next response.
        let announced = matches!(fields, Framing::Chunked | Framing::Length(1..));
        self.upstream_closes = closes || framing == Framing::UntilClose || (status == 204 && announced);
        Ok(Received::Final(framing))
    }

    /// Bytes of the response, interim ones included, are being sent to the client.
    pub fn response_begun(&mut self) {
        self.response_out = self.response_out.max(Half::Begun);
    }

    /// Whether the client has been sent anything of a response.
    pub fn is_response_begun(&self) -> bool {
        self.response_out != Half::Untouched
    }

    /// All of the response has been read.
    pub fn response_received(&mut self) {
        self.response_in = Half::Ended;
    }

    /// All of the response has been sent.
    pub fn response_sent(&mut self) {
        self.response_out = Half::Ended;
    }

    /// What a failure of the upstream becomes. `reused`: its connection had served before, so the
    /// upstream may have closed it before it saw the request. `replayable`: nothing of the request's
    /// content has left our hands.
    pub fn upstream_failed(&mut self, failure: Failure, reused: bool, replayable: bool) -> Next {
        let had_answered = self.response_in != Half::Untouched;
        self.response_in = Half::Failed;
        if self.response_out != Half::Untouched {
            return Next::Cut;
        }
        let safe = match failure {
            Failure::Connect | Failure::Tls | Failure::EndpointFull => true,
            Failure::Unprocessed => !had_answered,
            Failure::Reset => {
                reused && !had_answered && (self.facts.method.is_idempotent() || !self.has_sent)
            }
            _ => false,
        };
        if safe && replayable && self.attempts < MAX_ATTEMPTS {
            return Next::Retry;
        }
        Next::Answer(match failure {
            Failure::Connect => Reason::ConnectFailed,
            Failure::Tls => Reason::UpstreamTlsFailed,
            Failure::EndpointFull => Reason::EndpointsFull,
            Failure::Exhausted => Reason::UpstreamExhausted,
            Failure::Reset | Failure::Unprocessed => Reason::UpstreamReset,
            Failure::Malformed => Reason::UpstreamMalformed,
            Failure::AttemptTimeout => Reason::UpstreamTimeout,
            Failure::RequestTimeout => Reason::RequestTimeout,
        })
    }

    /// The client's connection ends with this exchange, for reasons of the connection.
    pub fn close_client(&mut self) {
        self.facts.close = true;
    }

    /// Whether the client must be told, in the response's head, that its connection ends. It does where the
    /// request is answered before it has been read to its end: what is left of it might never be.
    pub fn must_close_client(&self) -> bool {
        self.facts.close || self.request_in != Half::Ended
    }

    /// Which connections may serve another exchange, now that this one is over.
    pub fn ending(&self) -> Ending {
        let request_over = self.request_in == Half::Ended;
        let all_sent = self.request_out == Half::Ended;
        let all_answered = self.response_in == Half::Ended && self.response_out == Half::Ended;
        Ending {
            keep_client: request_over && self.response_out == Half::Ended && !self.facts.close,
            // What follows a request to switch protocols is not ours to frame, whatever came of it.
            keep_upstream: all_sent && all_answered && !self.upstream_closes && !self.facts.upgrade,
        }
    }
}

#[cfg(test)]
mod tests;
