//! A unit: the smallest part of a configuration, which travels, is compiled and fails alone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::backend::{Backend, BackendTls, EndpointSlice};
use crate::certificate::{Authority, Certificate, PrivateKey};
use crate::l4::L4Route;
use crate::listener::Listener;
use crate::name::UnitId;
use crate::route::RouteUnit;

/// A unit, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// A private key.
    Key(PrivateKey),
    /// A certificate chain.
    Certificate(Certificate),
    /// A bundle of certification authorities.
    Authority(Authority),
    /// The endpoints of a Service.
    Endpoints(EndpointSlice),
    /// A port of a Service, or of a host outside the cluster.
    Backend(Backend),
    /// A listener of a Gateway.
    Listener(Listener),
    /// A route of HTTP requests.
    Route(RouteUnit),
    /// A route of streams or datagrams.
    L4Route(L4Route),
}

impl Unit {
    /// The certificates, keys and authorities without which a listener or a certificate is of no use.
    pub fn needs(&self) -> Vec<UnitId> {
        match self {
            Self::Listener(listener) => {
                let authorities = listener.client_validation.iter().flat_map(|one| &one.authorities);
                let certificates = listener.certificates.iter().chain(&listener.backend_certificate);
                certificates.chain(authorities).cloned().collect()
            }
            Self::Certificate(certificate) => vec![certificate.key.clone()],
            Self::Backend(Backend { tls: Some(BackendTls::Verified(verification)), .. }) => {
                let shown = verification.client_certificate.iter();
                verification.authorities.iter().chain(shown).cloned().collect()
            }
            Self::Backend(_)
            | Self::Key(_)
            | Self::Authority(_)
            | Self::Endpoints(_)
            | Self::Route(_)
            | Self::L4Route(_) => Vec::new(),
        }
    }
}

/// The SHA-256 of a unit's id and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of a unit: its id counts, so that equal contents of two units differ.
    pub fn of(id: &UnitId, body: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(id.as_str().as_bytes());
        hash.update([0]);
        hash.update(body.as_bytes());
        Self(hash.finalize().into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a hash is 64 hexadecimal digits"))
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A unit as it travels: encoded once, shared by all pushes. Cloning is cheap.
#[derive(Clone)]
pub struct EncodedUnit {
    /// Its name.
    pub id: UnitId,
    /// The hash of name and bytes.
    pub hash: ContentHash,
    /// The unit as JSON.
    pub body: Arc<RawValue>,
}

impl EncodedUnit {
    /// Encodes a unit. Equal units give equal bytes on every replica.
    pub fn new(id: UnitId, unit: &Unit) -> Self {
        let body = serde_json::value::to_raw_value(unit)
            .expect("units are plain data with string keys, which JSON can always hold");
        Self { hash: ContentHash::of(&id, body.get()), id, body: body.into() }
    }

    /// A unit of which the hash alone is known: it counts in a set, and never travels.
    pub fn known_by_hash(id: UnitId, hash: ContentHash) -> Self {
        Self { id, hash, body: RawValue::NULL.to_owned().into() }
    }

    /// Decodes the unit.
    ///
    /// # Errors
    /// Where the bytes are not a unit that this version knows.
    pub fn decode(&self) -> Result<Unit, serde_json::Error> {
        serde_json::from_str(self.body.get())
    }

    /// Whether the bytes are those that the hash names.
    pub fn is_intact(&self) -> bool {
        ContentHash::of(&self.id, self.body.get()) == self.hash
    }
}

impl PartialEq for EncodedUnit {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.id == other.id
    }
}

impl Eq for EncodedUnit {}

/// Shows no content: it may be a private key.
impl fmt::Debug for EncodedUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:.12}", self.id, self.hash.to_string())
    }
}

impl Serialize for EncodedUnit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            id: &'a UnitId,
            hash: ContentHash,
            body: &'a RawValue,
        }
        Borrowed { id: &self.id, hash: self.hash, body: &self.body }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EncodedUnit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Owned {
            id: UnitId,
            hash: ContentHash,
            body: Box<RawValue>,
        }
        let Owned { id, hash, body } = Owned::deserialize(deserializer)?;
        Ok(Self { id, hash, body: body.into() })
    }
}
