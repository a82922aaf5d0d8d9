//! Certificates, their private keys, and the authorities that sign them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::UnitId;

/// A certificate chain, leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The chain as PEM.
    pub chain: String,
    /// The unit that holds its private key.
    pub key: UnitId,
}

/// A bundle of certification authorities, from the `ca.crt` of a ConfigMap or Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Their certificates as PEM.
    pub bundle: String,
}

/// A private key; it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// The key as PEM (PKCS#1, PKCS#8 or SEC1).
    pub pem: String,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey { .. }")
    }
}
