//! Message heads (RFC 9112 §2–5): the client reads responses with it, the origin reads requests.

use memchr::memmem;

/// Bytes that a head may take before it counts as malformed.
pub(crate) const HEAD_BYTES_MAX: usize = 256 * 1024;

/// A parsed head: three words of the start line, then the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The start line: method, target and version, or version, status and reason.
    pub(crate) start: [String; 3],
    /// Names in lower case with their values, in order.
    pub(crate) fields: Vec<(String, String)>,
    /// Bytes of the head with its empty line.
    pub(crate) len: usize,
}

impl Head {
    /// Looks for a whole head at the start of `bytes`; `from` is where the last look ended, so
    /// that a head which comes byte by byte costs linear time.
    ///
    /// # Errors
    /// What is malformed, for a person to read.
    pub(crate) fn parse(bytes: &[u8], from: usize) -> Result<Option<Self>, String> {
        let from = from.saturating_sub(3).min(bytes.len());
        let Some(end) = memmem::find(&bytes[from..], b"\r\n\r\n") else {
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(format!("head above {HEAD_BYTES_MAX} bytes"));
            }
            return Ok(None);
        };
        let end = from + end;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let start = [word(), word(), word()];
        if start[1].is_empty() {
            return Err(format!("start line `{}`", first.escape_debug()));
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty() && !name.contains([' ', '\t']))
                .ok_or_else(|| format!("field line `{}`", line.escape_debug()))?;
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Some(Self { start, fields, len: end + 4 }))
    }

    /// The first value of a field; the name in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated field has this token, in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.fields
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// The status of a response head.
    ///
    /// # Errors
    /// When the start line is not `HTTP/1.x NNN …` (RFC 9112 §4).
    pub(crate) fn status(&self) -> Result<u16, String> {
        let version = &self.start[0];
        let code = &self.start[1];
        match code.parse::<u16>() {
            Ok(status)
                if version.starts_with("HTTP/1.")
                    && code.len() == 3
                    && (100..=999).contains(&status) =>
            {
                Ok(status)
            }
            _ => Err(format!("status line `{} {}`", version.escape_debug(), code.escape_debug())),
        }
    }

    /// The declared length of the body, where there is one.
    ///
    /// # Errors
    /// When it is not a number, or two of them differ (RFC 9112 §6.3).
    pub(crate) fn content_length(&self) -> Result<Option<u64>, String> {
        let mut found = None;
        for (_, value) in self.fields.iter().filter(|(name, _)| name == "content-length") {
            let length: u64 = Some(value)
                .filter(|value| value.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| format!("Content-Length `{}`", value.escape_debug()))?;
            if found.is_some_and(|other| other != length) {
                return Err("two Content-Lengths that differ".to_owned());
            }
            found = Some(length);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::Head;

    #[test]
    fn a_head_byte_by_byte_parses_once_whole() {
        let bytes = b"HTTP/1.1 200 OK then\r\nA: b\r\nTransfer-Encoding: gzip, Chunked\r\n\r\nbody";
        let whole = bytes.len() - 4;
        for end in 0..whole {
            assert_eq!(Head::parse(&bytes[..end], end.saturating_sub(1)), Ok(None));
        }
        let head = Head::parse(bytes, whole - 1).unwrap().unwrap();
        assert_eq!((head.len, head.status()), (whole, Ok(200)));
        assert_eq!(head.start[2], "OK then");
        assert_eq!(head.field("a"), Some("b"));
        assert!(head.has_token("transfer-encoding", "chunked"));
    }

    #[test]
    fn what_is_malformed_is_named() {
        assert!(Head::parse(b"nonsense\r\n\r\n", 0).unwrap_err().contains("start line"));
        let folded = Head::parse(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 0);
        assert!(folded.unwrap_err().contains("field line"));
        let twice = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert!(Head::parse(twice, 0).unwrap().unwrap().content_length().is_err());
        let signed = b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n";
        assert!(Head::parse(signed, 0).unwrap().unwrap().content_length().is_err());
        assert!(Head::parse(b"HTTP/2 OK x\r\n\r\n", 0).unwrap().unwrap().status().is_err());
    }
}
