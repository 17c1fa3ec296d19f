//! Request targets: the path, and the query as decoded pairs.

/// A target split into its percent-decoded path and its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// The path, decoded, beginning with `/`.
    pub(crate) path: String,
    /// Name and value of each query pair, decoded, in order.
    pub(crate) query: Vec<(String, String)>,
}

impl Target {
    /// Reads an origin-form target; an absolute form loses its scheme and authority.
    pub(crate) fn parse(raw: &str) -> Self {
        let raw = match raw.find("://") {
            Some(at) if !raw.starts_with('/') => {
                raw[at + 3..].find('/').map_or("/", |slash| &raw[at + 3 + slash..])
            }
            _ => raw,
        };
        let raw = raw.split('#').next().unwrap_or(raw);
        let (path, query) = raw.split_once('?').unwrap_or((raw, ""));
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(name, true), percent_decode(value, true))
            })
            .collect();
        Self { path: percent_decode(path, false), query }
    }

    /// The last value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes `%XX` (and `+` as a space in a query); what is not an escape stays as it is.
fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if plus_is_space && bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_decode() {
        let target = Target::parse("/a%20b/c?x=1&y=%2Fz+q&x=2&flag&%zz=%4");
        assert_eq!(target.path, "/a b/c");
        assert_eq!(target.get("x"), Some("2"));
        assert_eq!(target.get("y"), Some("/z q"));
        assert_eq!(target.get("flag"), Some(""));
        assert_eq!(target.get("%zz"), Some("%4"));
        assert_eq!(target.get("absent"), None);
        assert_eq!(Target::parse("http://host:1/p?q=1").path, "/p");
        assert_eq!(Target::parse("http://host").path, "/");
    }
}
