//! The types that a setting may have, and how each is read from text.

use crate::observe::logging::LogFormat;
use crate::proto::forwarded::ForwardedField;
use std::net::SocketAddr;
use std::path::PathBuf;
use uring::lane::Class;
use uring::probe::Runtime;

/// A setting's type: text in, text out.
pub trait Value: Sized {
    /// What a value looks like, for help and errors.
    const EXPECTED: &'static str;

    /// Reads a value, or `None` where the text is none.
    fn read(text: &str) -> Option<Self>;

    /// Writes a value so that [`Value::read`] takes it.
    fn show(&self) -> String;

    /// The value as a number, where bounds apply to it.
    fn number(&self) -> Option<u64> {
        None
    }
}

/// Reads a value and holds it to its bounds.
pub(super) fn parse<V: Value>(text: &str, bounds: Option<(u64, u64)>) -> Result<V, String> {
    let text = text.trim();
    let value = V::read(text).ok_or_else(|| format!("expected {}, found {text:?}", V::EXPECTED))?;
    if let (Some((min, max)), Some(number)) = (bounds, value.number())
        && !(min..=max).contains(&number)
    {
        return Err(format!("expected {min} to {max}, found {number}"));
    }
    Ok(value)
}

macro_rules! number {
    ($($ty:ty),+) => { $(
        impl Value for $ty {
            const EXPECTED: &'static str = "a whole number";

            fn read(text: &str) -> Option<Self> {
                text.replace('_', "").parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+ };
}

number!(u16, u32, u64, usize);

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const EXPECTED: &'static str = "text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// A URL with a password in it; it is shown without.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.show())
    }
}

impl Value for SecretUrl {
    const EXPECTED: &'static str = "a URL";

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    /// Without what stands before the last `@`, and without a query.
    fn show(&self) -> String {
        let shown = self.0.split_once('?').map_or(&*self.0, |(shown, _)| shown);
        match (shown.split_once("://"), shown.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
            _ => shown.to_owned(),
        }
    }
}

impl Value for Option<PathBuf> {
    const EXPECTED: &'static str = "a file's path";

    fn read(text: &str) -> Option<Self> {
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address with a port, as 127.0.0.1:8080 or [::1]:8080";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! list {
    ($ty:ty, $expected:literal) => {
        impl Value for Vec<$ty> {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| <$ty as Value>::read(item)).collect()
            }

            fn show(&self) -> String {
                self.iter().map(Value::show).collect::<Vec<_>>().join(",")
            }
        }
    };
}

list!(String, "a list, separated by commas");
list!(u16, "a list of whole numbers up to 65535, separated by commas");

macro_rules! choice {
    ($ty:ty, $expected:literal, $($name:literal => $value:path),+) => {
        impl Value for $ty {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                match text {
                    $( $name => Some($value), )+
                    _ => None,
                }
            }

            fn show(&self) -> String {
                match self {
                    $( $value => $name.to_owned(), )+
                }
            }
        }
    };
}

/// Which roots https certificates are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's list, built into the binary.
    Webpki,
    /// What the operating system trusts.
    Platform,
}

/// How WebSocket messages are compressed (RFC 7692) for clients that offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deflate {
    /// Not at all.
    Off,
    /// Each message by itself: a quiet connection holds no compressor.
    Message,
    /// With the messages before it in view, in both directions.
    Takeover,
}

choice!(
    Deflate, "off, message or takeover",
    "off" => Self::Off, "message" => Self::Message, "takeover" => Self::Takeover
);
/// Who resolves the names of URLs where there is a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// This server.
    Local,
    /// The proxy.
    Remote,
}

choice!(Names, "local or remote", "local" => Self::Local, "remote" => Self::Remote);
/// Where deepsearch finds its hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchProvider {
    /// The index of the pages that this server has extracted.
    Local,
    /// A SearXNG instance.
    Searxng,
    /// Serper (google.serper.dev).
    Serper,
    /// Brave's Web Search API.
    Brave,
    /// Nowhere.
    Off,
}

impl SearchProvider {
    /// The name in settings and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Searxng => "searxng",
            Self::Serper => "serper",
            Self::Brave => "brave",
            Self::Off => "off",
        }
    }
}

choice!(
    SearchProvider, "local, searxng, serper, brave or off",
    "local" => Self::Local, "searxng" => Self::Searxng, "serper" => Self::Serper,
    "brave" => Self::Brave, "off" => Self::Off
);

/// A text that is shown nowhere: not in logs, not by `forebay check`, not in errors.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for who has to send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "(set)" })
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "printable ASCII without spaces";

    fn read(text: &str) -> Option<Self> {
        text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        if self.is_empty() { String::new() } else { "(set)".to_owned() }
    }
}

choice!(LogFormat, "human or json", "human" => Self::Human, "json" => Self::Json);
choice!(Roots, "webpki or platform", "webpki" => Self::Webpki, "platform" => Self::Platform);
choice!(
    ForwardedField, "x_forwarded_for or forwarded",
    "x_forwarded_for" => Self::XForwardedFor, "forwarded" => Self::Forwarded
);
choice!(
    Runtime, "auto, io_uring or epoll",
    "auto" => Self::Auto, "io_uring" => Self::IoUring, "epoll" => Self::Epoll
);
choice!(
    Class, "nice19, batch, idle or normal",
    "nice19" => Self::Nice19, "batch" => Self::Batch, "idle" => Self::Idle, "normal" => Self::Normal
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (text, shown) in [
            ("", ""),
            ("redis://ann:hunter2@a:1/2", "redis://***@a:1/2"),
            ("redis://a:hunter@2@a:1/2", "redis://***@a:1/2"),
            ("redis://a:1", "redis://a:1"),
            ("unix:///a?password=hunter2", "unix:///a"),
        ] {
            let secret = SecretUrl(text.to_owned());
            assert_eq!(
                (secret.show(), format!("{secret:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
    }
}
