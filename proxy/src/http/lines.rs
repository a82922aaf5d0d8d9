//! Owns fields on their way between the lines of HTTP/1 and the maps of HTTP/2.
//!
//! Pure. Called where one protocol becomes the other; what may pass is decided there.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Appends a field as a line.
pub fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Adds a field whose name and value were checked when they were read or compiled.
pub fn push(name: &[u8], value: &[u8], fields: &mut HeaderMap) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}

/// The fields of lines.
pub fn fields(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Some(colon) = memchr::memchr(b':', line) {
            push(&line[..colon], line[colon + 1..].trim_ascii(), &mut fields);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields_and_fields_lines() {
        let text = b"grpc-status: 0\r\nX-A: 1\r\nx-a: 2\r\n";
        let fields = fields(text);
        assert_eq!(fields["grpc-status"], "0");
        assert_eq!(fields.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        let mut back = Vec::new();
        for (name, value) in &fields {
            line(name.as_str().as_bytes(), value.as_bytes(), &mut back);
        }
        assert_eq!(back, b"grpc-status: 0\r\nx-a: 1\r\nx-a: 2\r\n");
    }
}
