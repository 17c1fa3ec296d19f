//! What must not reach a log: credentials in URLs and in header fields.
//!
//! Works on the raw text, well-formed or not, and errs towards hiding: a log line that shows too
//! little is a nuisance, one that shows a password is an incident.

use std::fmt;

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Bytes of a URL's authority, and of what stands behind it, that are looked at and shown.
const SHOWN_BYTES_MAX: usize = 2048;

/// Parts of names that mark a query parameter or header field as secret, once the name is in lower
/// case and without `-`, `_`, `.`, and brackets.
const SECRET_PARTS: [&str; 13] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "credential",
    "auth",
    "cookie",
    "session",
    "jwt",
];
/// Names that are secret as a whole.
const SECRET_NAMES: [&str; 11] =
    ["key", "pw", "pwd", "pass", "pin", "sid", "sig", "code", "otp", "nonce", "csrf"];
/// Bytes of a name that are looked at; longer ones count as secret.
const NAME_BYTES_MAX: usize = 64;

/// Whether a query parameter of that (percent-encoded) name holds a secret.
#[must_use]
pub fn is_secret_name(name: &[u8]) -> bool {
    let mut plain = [0; NAME_BYTES_MAX];
    let mut length = 0;
    for byte in Decoded(name) {
        if matches!(byte, b'-' | b'_' | b'.' | b'[' | b']' | b'+' | b' ') {
            continue;
        }
        let Some(slot) = plain.get_mut(length) else { return true };
        *slot = byte.to_ascii_lowercase();
        length += 1;
    }
    let plain = &plain[..length];
    // Two bytes first: a name of 64 bytes is compared with 13 parts at each of them.
    let holds = plain.windows(2).enumerate().any(|(at, two)| {
        let mut parts = SECRET_PARTS.iter().map(|part| part.as_bytes());
        parts.any(|part| part[..2] == *two && plain[at..].starts_with(part))
    });
    holds || SECRET_NAMES.iter().any(|name| plain == name.as_bytes())
}

/// Whether a header field holds a secret: `Authorization`, `Cookie`, `X-API-Key` and their kin. No
/// value of any field is ever logged; a redirect to another origin leaves these behind.
#[must_use]
pub fn is_secret_field(name: &str) -> bool {
    // `Idempotency-Key` is no secret, but it opens a stream to who has the credential too.
    // And a browser's WebSocket has its key among the subprotocols.
    is_secret_name(name.as_bytes())
        || ["idempotency-key", "sec-websocket-protocol"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
}

/// Text from outside in a log line: control characters are escaped, so that it can't forge a line
/// or drive a terminal, and it ends after 2 KiB.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(out, cut(self.0))?;
        if cut(self.0).len() < self.0.len() { out.write_str("…") } else { Ok(()) }
    }
}

/// A URL as it may be logged: without user name and password, without the values of secret
/// parameters in query and fragment.
#[derive(Debug, Clone, Copy)]
pub struct Url<'a>(pub &'a str);

impl fmt::Display for Url<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = authority(self.0);
        shown(out, cut(&self.0[..start]))?;
        let authority = &self.0[start..end];
        let host = authority.rfind('@').map_or(authority, |at| &authority[at + 1..]);
        if host.len() < authority.len() {
            out.write_str(HIDDEN)?;
            out.write_str("@")?;
        }
        shown(out, cut(host))?;
        parameters(out, &self.0[end..])
    }
}

/// Writes path, query and fragment. A parameter may begin anywhere (paths and fragments have them
/// too), but a secret one ends only where no server would take more into it: at `&` and `#`. What is
/// looked at is cut first, since this is work for whoever sends a URL, and what the cut may have
/// gone through is hidden: a cut never uncovers a secret.
fn parameters(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let looked_at = cut(text);
    let whole = looked_at.len() == text.len();
    for stretch in looked_at.split_inclusive(['&', '#']) {
        let inner = stretch.strip_suffix(['&', '#']);
        parameter(out, inner.unwrap_or(stretch), whole || inner.is_some())?;
        out.write_str(&stretch[inner.map_or(stretch.len(), str::len)..])?;
    }
    if whole { Ok(()) } else { out.write_str("…") }
}

/// Writes what stands between two of `&` and `#`; not `whole` where the text was cut in it.
///
/// The first value in it holds all later ones, and so every secret that one of them exposes: it alone
/// is searched, or `/=a/=a/=a…` would cost the square of its length.
fn parameter(out: &mut fmt::Formatter<'_>, mut rest: &str, whole: bool) -> fmt::Result {
    let mut searched = false;
    while !rest.is_empty() {
        let begin = rest.find(SEPARATORS).unwrap_or(rest.len());
        if let Some((name, _)) = rest[..begin].split_once('=') {
            let value = &rest[name.len() + 1..];
            let exposed = !searched && (!whole || exposes(value));
            searched = true;
            if exposed || is_secret_pair(name, value) {
                shown(out, name)?;
                return out.write_str("=***");
            }
        }
        let (before, after) = rest.split_at(rest.ceil_char_boundary(begin + 1));
        shown(out, before)?;
        rest = after;
    }
    Ok(())
}

/// What a parameter may begin after.
const SEPARATORS: [char; 6] = ['?', '#', '&', ';', '/', '\\'];

fn is_secret_pair(name: &str, value: &str) -> bool {
    !value.is_empty() && is_secret_name(name.as_bytes())
}

/// Whether a value holds a secret itself, as in `?url=https%3A%2F%2Fh%2F%3Ftoken%3Dt`; looked for
/// in three layers of percent-encoding; a fourth is taken for an attempt to hide one. Whatever a part
/// of it that begins behind a `=` exposes, it exposes too.
fn exposes(value: &str) -> bool {
    let mut plain = value.to_owned();
    for _ in 0..3 {
        let user = plain.find(':').is_some_and(|colon| plain[colon..].contains('@'));
        if user || plain.split(SEPARATORS).any(holds_secret_pair) {
            return true;
        }
        let decoded: Vec<u8> = Decoded(plain.as_bytes()).collect();
        if decoded == plain.as_bytes() {
            return false;
        }
        plain = String::from_utf8_lossy(&decoded).into_owned();
    }
    true
}

/// Whether one of the pairs in `a=b=c` is secret: `a` and all behind it, or `b` and all behind it.
fn holds_secret_pair(mut text: &str) -> bool {
    while let Some((name, value)) = text.split_once('=') {
        if is_secret_pair(name, value) {
            return true;
        }
        text = value;
    }
    false
}

/// Where the authority lies, as a browser would see it (WHATWG URL §4.4: any number of slashes of
/// either kind after a scheme, blanks before it, tabs and line ends anywhere).
fn authority(url: &str) -> (usize, usize) {
    let bytes = url.as_bytes();
    let slash = |byte: &u8| matches!(byte, b'/' | b'\\' | b'\t' | b'\r' | b'\n');
    let scheme = bytes.iter().position(|byte| matches!(byte, b':' | b'/' | b'\\' | b'?' | b'#'));
    let start = match scheme {
        Some(at) if bytes[at] == b':' => at + 1,
        // `//user:password@host`, relative to a scheme; other relative URLs have no authority.
        _ if url.trim_start().starts_with("//") => url.len() - url.trim_start().len(),
        _ => return (0, 0),
    };
    let start = start + bytes[start..].iter().take_while(|byte| slash(byte)).count();
    let end = bytes[start..].iter().position(|byte| matches!(byte, b'/' | b'\\' | b'?' | b'#'));
    (start, end.map_or(bytes.len(), |end| start + end))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

fn shown(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            write!(out, "{}", character.escape_default())?;
        } else {
            out.write_char(character)?;
        }
    }
    Ok(())
}

/// Bytes of a percent-encoded name.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |at: usize| char::from(*self.0.get(at)?).to_digit(16);
        let coded = self.0.first() == Some(&b'%');
        let byte = coded.then(|| u8::try_from(digit(1)? * 16 + digit(2)?).ok()).flatten();
        let (&first, _) = self.0.split_first()?;
        self.0 = &self.0[if byte.is_some() { 3 } else { 1 }..];
        Some(byte.unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> String {
        Url(text).to_string()
    }

    #[test]
    fn user_names_and_passwords_go() {
        for (from, to) in [
            ("https://u:p@h/x", "https://***@h/x"),
            ("https://u:p@q@h:1/x@y?z@=1", "https://***@h:1/x@y?z@=1"),
            ("http:u:p@h/", "http:***@h/"),
            ("http:\\\\u:p@h/", "http:\\\\***@h/"),
            ("//u:p@h/", "//***@h/"),
            ("http://[::1]:8/x", "http://[::1]:8/x"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("https://h", "https://h"),
        ] {
            assert_eq!(url(from), to);
        }
    }

    #[test]
    fn secret_parameters_lose_their_values() {
        for (from, to) in [
            ("https://h/?a=1&token=t&b=2", "https://h/?a=1&token=***&b=2"),
            ("https://h/?API-Key=k", "https://h/?API-Key=***"),
            ("https://h/?%74oken=t", "https://h/?%74oken=***"),
            ("https://h/?X-Amz-Signature=s;sig=t", "https://h/?X-Amz-Signature=***"),
            ("https://h/#access_token=t&x=y", "https://h/#access_token=***&x=y"),
            ("https://h/?user[password]=p", "https://h/?user[password]=***"),
            (
                "/v1/crawl/sse?url=https://h/?key=k&url=https://i/",
                "/v1/crawl/sse?url=***&url=https://i/",
            ),
            ("/s?url=https%3A%2F%2Fh%2F%3Ftoken%3Dt&a=50%25", "/s?url=***&a=50%25"),
            ("/s?url=https%253A%252F%252Fu%253Ap%2540h", "/s?url=***"),
            ("/s?url=https://u:p@h/", "/s?url=***"),
            ("https://h/?token=a/b?c;d&e=f", "https://h/?token=***&e=f"),
            ("https://h/a;sid=1/b&c", "https://h/a;sid=***&c"),
            ("https://h/?monkey=1&q=token", "https://h/?monkey=1&q=token"),
            ("https://h/?token=", "https://h/?token="),
        ] {
            assert_eq!(url(from), to);
        }
    }

    #[test]
    fn secret_fields_are_known() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "set-cookie",
            "X-API-Key",
            "Sec-WebSocket-Protocol",
        ] {
            assert!(is_secret_field(name), "{name}");
        }
        for name in ["Accept", "Host", "User-Agent", "traceparent", "X-Request-ID"] {
            assert!(!is_secret_field(name), "{name}");
        }
    }

    #[test]
    fn text_from_outside_cannot_forge_a_line() {
        assert_eq!(Shown("a\r\nb\u{1b}[1m").to_string(), "a\\r\\nb\\u{1b}[1m");
    }

    #[test]
    fn long_urls_are_cut() {
        let long = format!("https://h/{}?token=t", "a".repeat(10_000));
        assert!(url(&long).len() < SHOWN_BYTES_MAX + 100);
    }

    #[test]
    fn a_cut_uncovers_no_secret() {
        for inner in ["u:SECRET@h", "SECRET%3D%26token%3Dt", "SECRET;token=t"] {
            let filler = "a".repeat(SHOWN_BYTES_MAX - "/?a=b&url=".len() - 9);
            let text = format!("https://h/?a=b&url={filler}{inner}/x&c=d");
            assert_eq!(url(&text), "https://h/?a=b&url=***…");
        }
    }

    /// The obvious twin: every value is searched for itself.
    fn slowly(mut rest: &str) -> String {
        let mut out = String::new();
        while !rest.is_empty() {
            let begin = rest.find(SEPARATORS).unwrap_or(rest.len());
            let value_end = rest.find(['&', '#']).unwrap_or(rest.len());
            let pair = rest[..value_end].split_once('=').filter(|(name, _)| name.len() < begin);
            let secret =
                |(name, value): &(&str, &str)| is_secret_pair(name, value) || exposes(value);
            let end = if let Some((name, _)) = pair.filter(secret) {
                out.push_str(&format!("{name}=***"));
                value_end
            } else {
                out.push_str(&rest[..begin]);
                begin
            };
            let separator = rest[end..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[end..end + separator]);
            rest = &rest[end + separator..];
        }
        out
    }

    #[test]
    fn twice_as_much_costs_no_four_times_as_much() {
        let text = |unit: &str, bytes| format!("https://h/{}", unit.repeat(bytes / unit.len()));
        let cost = |text: &str| {
            let begun = std::time::Instant::now();
            (0..4).for_each(|_| drop(url(text)));
            begun.elapsed()
        };
        for unit in ["=b/", "/", "a=b%25;", "=", "a=b&", "?%3D"] {
            let (half, full) = (text(unit, SHOWN_BYTES_MAX / 2), text(unit, SHOWN_BYTES_MAX - 8));
            // The least of some, since others work on this machine, too.
            let measure = |_| {
                let costs: Vec<_> = (0..8).map(|_| (cost(&half), cost(&full))).collect();
                let half = costs.iter().map(|(half, _)| *half).min().unwrap_or_default();
                let full = costs.iter().map(|(_, full)| *full).min().unwrap_or_default();
                full < half * 3
            };
            assert!((0..5).any(measure), "{unit}");
            let shown = url(&text(unit, SHOWN_BYTES_MAX * 4));
            assert!(shown.len() <= SHOWN_BYTES_MAX * 2 && shown.ends_with('…'), "{unit}");
        }
    }

    proptest! {
        #[test]
        fn no_password_is_shown(
            user in "[a-z:@]{0,9}", path in "[a-z/@:?&=#]{0,20}", name in "(my_)?[tT]oken",
        ) {
            let text = format!("https://{user}:SECRET@host/{path}&{name}=SECRET#{name}=SECRET");
            prop_assert!(!url(&text).contains("SECRET"), "{}", url(&text));
        }

        #[test]
        fn one_search_finds_what_a_search_of_each_value_finds(
            text in "(/|\\?|&|;|#|=|:|@|%3D|%2F|%253D|%40|%3A|a|b|token|key|pin|é){0,24}",
        ) {
            let text = format!("/x{text}");
            prop_assert_eq!(url(&text), slowly(&text));
        }

        #[test]
        fn any_text_is_taken_and_shows_no_control(text in any::<String>()) {
            prop_assert!(!url(&text).chars().any(char::is_control));
        }
    }
}
