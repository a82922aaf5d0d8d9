//! Kubeconfig files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use crate::pki::{Authority, Pair};

/// Writes a kubeconfig for `user` of the API server at `server` (a URL) to `path`. JSON is YAML.
pub(crate) fn write(path: &Path, server: &str, authority: &Authority, user: &Pair) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {
            "server": server, "certificate-authority-data": base64(authority.pem()),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": base64(&user.certificate_pem), "client-key-data": base64(&user.key_pem),
        }}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
    });
    fs::write(path, serde_json::to_string_pretty(&config)?)?;
    Ok(path.to_owned())
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
