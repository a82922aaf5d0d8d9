//! Conditions beside host and path: method, header fields, query parameters, and the regular
//! expressions in them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use http::header::HeaderName;
use proxy_config::path::{PathError, encoded_byte};
use proxy_config::route::{Match, REGEX_DEPTH, REGEX_LENGTH, REGEX_SIZE, ValueMatch, ValuePattern};
use regex_automata::meta;
use regex_automata::util::syntax;

use super::request::RequestView;

/// The memory that all expressions of a proxy may take together, in bytes.
const REGEX_BUDGET: usize = 64 << 20;

/// How much of an expression a reason repeats, in characters.
const SHOWN: usize = 100;

/// Why a match can't be compiled. It takes no request then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MatchError {
    /// Not an expression that is matched in linear time, or too large a one.
    #[error("regular expression {pattern:?} can't be used: {reason}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are too many expressions already.
    #[error(
        "regular expression {0:?} can't be used: all expressions of this proxy would take more than their budget"
    )]
    Budget(String),
    /// Not a field name.
    #[error("header name {0:?} is not a token: use letters, digits and hyphens")]
    Header(String),
    /// Not a path that a request can have.
    #[error("path {path:?} can't be used: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: PathError,
    },
}

/// A regular expression that takes a whole value, in time linear in its length.
#[derive(Debug)]
pub(super) struct Regex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl Regex {
    fn compile(pattern: &str) -> Result<Self, MatchError> {
        let refused =
            |reason: String| MatchError::Regex { pattern: pattern.chars().take(SHOWN).collect(), reason };
        if pattern.len() > REGEX_LENGTH {
            return Err(refused(format!("it is longer than {REGEX_LENGTH} bytes")));
        }
        // Alone first: what is no expression by itself might be one between the parentheses.
        let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(REGEX_DEPTH);
        syntax::parse_with(pattern, &syntax).map_err(|error| refused(last_line(&error.to_string())))?;
        // Neither lazy automata nor a backtracker: both take memory by what clients send, per thread.
        let config = meta::Config::new()
            .hybrid(false)
            .dfa(false)
            .backtrack(false)
            .utf8_empty(false)
            .nfa_size_limit(Some(REGEX_SIZE))
            .onepass_size_limit(Some(REGEX_SIZE));
        let compiled = meta::Builder::new()
            .configure(config)
            .syntax(syntax)
            .build(&format!(r"\A(?:{pattern})\z"))
            .map_err(|error| refused(last_line(&error.to_string())))?;
        Ok(Self { pattern: pattern.into(), compiled })
    }

    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    pub(super) fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }
}

/// Syntax errors are drawn over several lines; the last one says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Expressions by text, so that routes with the same one share it, within a budget for all of them.
#[derive(Debug)]
pub(super) struct Regexes {
    known: HashMap<Box<str>, (Weak<Regex>, usize)>,
    size: usize,
    budget: usize,
}

impl Default for Regexes {
    fn default() -> Self {
        Self { known: HashMap::new(), size: 0, budget: REGEX_BUDGET }
    }
}

impl Regexes {
    pub(super) fn intern(&mut self, pattern: &str) -> Result<Arc<Regex>, MatchError> {
        if let Some(regex) = self.known.get(pattern).and_then(|(regex, _)| regex.upgrade()) {
            return Ok(regex);
        }
        let regex = Arc::new(Regex::compile(pattern)?);
        let size = regex.compiled.memory_usage();
        if self.size + size > self.budget {
            self.sweep();
        }
        if self.size + size > self.budget {
            return Err(MatchError::Budget(pattern.chars().take(SHOWN).collect()));
        }
        let replaced = self.known.insert(pattern.into(), (Arc::downgrade(&regex), size));
        self.size = self.size + size - replaced.map_or(0, |(_, size)| size);
        Ok(regex)
    }

    /// Forgets expressions that no route holds.
    pub(super) fn sweep(&mut self) {
        self.known.retain(|_, (regex, _)| regex.strong_count() > 0);
        self.size = self.known.values().map(|(_, size)| size).sum();
    }
}

#[derive(Debug)]
enum Value {
    Exact(Box<[u8]>),
    Regex(Arc<Regex>),
}

impl Value {
    fn compile(pattern: &ValuePattern, regexes: &mut Regexes) -> Result<Self, MatchError> {
        Ok(match pattern {
            ValuePattern::Exact(value) => Self::Exact(value.as_bytes().into()),
            ValuePattern::Regex(pattern) => Self::Regex(regexes.intern(pattern)?),
        })
    }

    fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// What a match asks of a request beside its path.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    method: Option<Box<[u8]>>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(Box<[u8]>, Value)]>,
}

/// How specific conditions are: a method, then the number of header fields, then of query parameters.
pub(super) type Specificity = (bool, usize, usize);

impl Conditions {
    /// Of several conditions with one name only the first counts.
    /// Source: Gateway API `HTTPRouteMatch.headers` and `.queryParams`.
    pub(super) fn compile(unit: &Match, regexes: &mut Regexes) -> Result<Self, MatchError> {
        let mut headers: Vec<(HeaderName, Value)> = Vec::with_capacity(unit.headers.len());
        for ValueMatch { name, value } in &unit.headers {
            let parsed =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| MatchError::Header(name.clone()))?;
            if !headers.iter().any(|(known, _)| *known == parsed) {
                headers.push((parsed, Value::compile(value, regexes)?));
            }
        }
        let mut query: Vec<(Box<[u8]>, Value)> = Vec::with_capacity(unit.query.len());
        for ValueMatch { name, value } in &unit.query {
            if !query.iter().any(|(known, _)| **known == *name.as_bytes()) {
                query.push((name.as_bytes().into(), Value::compile(value, regexes)?));
            }
        }
        let method = unit.method.as_ref().map(|method| method.as_bytes().into());
        Ok(Self { method, headers: headers.into(), query: query.into() })
    }

    pub(super) fn specificity(&self) -> Specificity {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    pub(super) fn hold<R: RequestView + ?Sized>(&self, request: &R) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method())
            && self
                .headers
                .iter()
                .all(|(name, value)| request.header(name.as_str()).is_some_and(|sent| value.is_match(&sent)))
            && self.query.iter().all(|(name, value)| {
                parameter(request.query(), name).is_some_and(|sent| value.is_match(&sent))
            })
    }
}

/// The first parameter of that name, decoded: its backend will read it so.
fn parameter<'q>(query: &'q [u8], name: &[u8]) -> Option<Cow<'q, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        (*decoded(key) == *name).then(|| decoded(value))
    })
}

/// Percent signs and plus signs decoded as in a form (WHATWG URL, application/x-www-form-urlencoded).
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let encoded = if *byte == b'%' { encoded_byte(text, at) } else { None };
        out.push(encoded.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        at += if encoded.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_regex(pattern: &str, value: &str, want: bool) {
        assert_eq!(Regex::compile(pattern).unwrap().is_match(value.as_bytes()), want, "{pattern} on {value}");
    }

    #[test]
    fn an_expression_takes_the_whole_value() {
        check_regex("a|ab", "ab", true);
        check_regex("a", "ab", false);
        check_regex("/v[0-9]+/.*", "/v12/x", true);
        check_regex("a|b", "ab", false);
        check_regex("", "", true);
    }

    #[test]
    fn an_expression_can_not_break_out_of_its_place() {
        for pattern in ["a)|(?:b", "(?x) a # comment", "(", "a{10}{10}{10}{10}{10}", r"\p{Greek}"] {
            assert!(matches!(Regex::compile(pattern), Err(MatchError::Regex { .. })), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_value_costs_linear_time() {
        let regex = Regex::compile("(a*)*b").unwrap();
        let started = std::time::Instant::now();
        assert!(!regex.is_match(&[b'a'; 8192]));
        assert!(started.elapsed().as_secs() < 2, "backtracking would never end");
    }

    #[test]
    fn equal_expressions_are_one_until_nobody_holds_them() {
        let mut regexes = Regexes::default();
        let one = regexes.intern("a+").unwrap();
        assert!(Arc::ptr_eq(&one, &regexes.intern("a+").unwrap()));
        drop(one);
        regexes.sweep();
        assert!(regexes.known.is_empty());
    }

    #[test]
    fn expressions_share_a_budget_that_is_given_back() {
        let size = Regex::compile("a+").unwrap().compiled.memory_usage();
        let mut regexes = Regexes { budget: size + size / 2, ..Regexes::default() };
        let one = regexes.intern("a+").unwrap();
        assert_eq!(regexes.intern("b+").unwrap_err(), MatchError::Budget("b+".into()));
        assert!(regexes.intern("a+").is_ok(), "it is there already");
        drop(one);
        assert!(regexes.intern("b+").is_ok());
    }

    #[track_caller]
    fn check_parameter(query: &str, name: &str, want: Option<&str>) {
        let got = parameter(query.as_bytes(), name.as_bytes());
        assert_eq!(got.as_deref(), want.map(str::as_bytes), "{name} in {query}");
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_decoded() {
        check_parameter("a=1&b=2&a=3", "a", Some("1"));
        check_parameter("a", "a", Some(""));
        check_parameter("a=b+c%20d%2", "a", Some("b c d%2"));
        check_parameter("%61=x", "a", Some("x"));
        check_parameter("", "a", None);
    }
}
