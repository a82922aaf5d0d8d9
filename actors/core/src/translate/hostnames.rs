//! Hostnames as objects write them.
//!
//! Source: Gateway API `Hostname`: an RFC 1123 subdomain, `*` as the whole first label, no IP address.

/// What is wrong with a hostname that is not empty.
pub(super) fn fault(hostname: &str) -> Option<String> {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if hostname.len() > 253 || !name.split('.').all(is_label) {
        return Some(format!("`{hostname}` is not a DNS name, with or without `*.` in front"));
    }
    (name.parse::<std::net::IpAddr>().is_ok())
        .then(|| format!("`{hostname}` is an IP address: use a DNS name"))
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn names_are_dns_names_with_at_most_one_wildcard_in_front() {
        for good in ["example.com", "*.example.com", "a", "xn--4ca.example", "Shop.Example.com"] {
            assert_eq!(fault(good), None);
        }
        for bad in ["*", "*.*.example.com", "a.*.b", "10.0.0.1", "a_b.example", "a..b", "-a.b", "a.b.", "a b"]
        {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
