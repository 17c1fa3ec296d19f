//! The types that a setting may have, and how each is read from text.

use crate::observe::logging::LogFormat;
use crate::observe::span::Ratio;
use crate::proto::forwarded::ForwardedField;
use std::net::SocketAddr;
use std::path::PathBuf;
use uring::lane::Class;
use uring::probe::Runtime;

/// A setting's type: text in, text out.
pub trait Value: Sized {
    /// What a value looks like, for help and errors.
    const EXPECTED: &'static str;

    /// Whether a value is never shown to anybody.
    const SECRET: bool = false;

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

impl Value for Ratio {
    const EXPECTED: &'static str = "a number from 0 to 1, as 0.05";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }

    fn show(&self) -> String {
        self.get().to_string()
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

/// Resident bytes above which no new work is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Four fifths of what the machine, or this process' control group, has.
    Auto,
    /// So many; 0 for no limit.
    Bytes(u64),
}

impl Value for MemoryLimit {
    const EXPECTED: &'static str = "auto, or a whole number";

    fn read(text: &str) -> Option<Self> {
        if text == "auto" { Some(Self::Auto) } else { u64::read(text).map(Self::Bytes) }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Bytes(bytes) => bytes.show(),
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Auto => None,
            Self::Bytes(bytes) => Some(*bytes),
        }
    }
}

/// A text that nobody is shown: a key, or a URL with a password in it. Every setting of this type is
/// hidden wherever settings are told ([`super::Config::shown`]).
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

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "***" })
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "text";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
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
