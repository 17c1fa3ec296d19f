//! Where Redis is: `redis.url` read into a place to connect to.
//!
//! ```text
//! redis://[user[:password]@]host[:port][/database]            one node; rediss:// with TLS
//! unix:///path/of/socket[?db=1&user=name&password=secret]     one node, on this machine
//! redis+sentinel://[user[:password]@]host[:port],…/name[/db]  the primary that the sentinels name
//! redis+cluster://[user[:password]@]host[:port],…             Redis Cluster, by some of its nodes
//! ```
//!
//! `rediss+sentinel` and `rediss+cluster` speak TLS to the nodes, and to the sentinels as well. User,
//! password and name are percent-encoded (RFC 3986 §2.1).

use redis::{ConnectionAddr, RedisConnectionInfo};
use std::fmt;
use std::path::PathBuf;

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 4096;
/// Nodes that one URL may name.
const NODES_MAX: usize = 64;
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What kind of Redis there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One node.
    One,
    /// One node behind a socket of this machine.
    Unix(PathBuf),
    /// The primary of this name, as the sentinels know it.
    Sentinel(String),
    /// A cluster.
    Cluster,
}

/// A place to connect to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// What is there.
    pub kind: Kind,
    /// Nodes, or sentinels, that are asked first.
    pub nodes: Vec<(String, u16)>,
    /// Whether connections speak TLS.
    pub tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without any part that may be secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!("redis.url is longer than {URL_BYTES_MAX} bytes"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("redis.url has no scheme, as in redis://host:6379".to_owned());
        };
        let (tls, kind) = match scheme {
            "redis" => (false, Kind::One),
            "rediss" => (true, Kind::One),
            "redis+sentinel" => (false, Kind::Sentinel(String::new())),
            "rediss+sentinel" => (true, Kind::Sentinel(String::new())),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            "unix" | "redis+unix" => return Self::parse_unix(rest),
            _ => {
                return Err(
                    "redis.url begins with redis://, rediss://, unix://, redis+sentinel:// \
                            or redis+cluster://"
                        .to_owned(),
                );
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let mut target =
            Self { kind, nodes: Vec::new(), tls, user: None, password: None, database: 0 };
        if let Some(credentials) = credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            target.user = some(decode(user)?);
            target.password = some(decode(password)?);
        }
        target.parse_path(path)?;
        let port = if matches!(target.kind, Kind::Sentinel(_)) { SENTINEL_PORT } else { PORT };
        target.nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<_, _>>()?;
        if target.nodes.len() > NODES_MAX {
            return Err(format!("redis.url names more than {NODES_MAX} nodes"));
        }
        if target.kind == Kind::One && target.nodes.len() > 1 {
            return Err(
                "redis.url names several nodes: redis+cluster:// or redis+sentinel://".to_owned()
            );
        }
        Ok(target)
    }

    fn parse_path(&mut self, path: &str) -> Result<(), String> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        if let Kind::Sentinel(name) = &mut self.kind {
            let given = parts.next().map(decode).transpose()?;
            *name = given.ok_or("redis.url of sentinels ends in the name of the primary")?;
        }
        if let Some(text) = parts.next() {
            self.database = database(text)?;
        }
        match parts.next() {
            _ if self.kind == Kind::Cluster && self.database != 0 => {
                Err("a Redis Cluster has no database but 0".to_owned())
            }
            Some(_) => Err("redis.url has too long a path".to_owned()),
            None => Ok(()),
        }
    }

    fn parse_unix(rest: &str) -> Result<Self, String> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err(
                "redis.url of a socket names its whole path: unix:///run/redis.sock".to_owned()
            );
        }
        let kind = Kind::Unix(PathBuf::from(decode(path)?));
        let mut target =
            Self { kind, nodes: Vec::new(), tls: false, user: None, password: None, database: 0 };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "db" => target.database = database(value)?,
                "user" => target.user = some(decode(value)?),
                "password" => target.password = some(decode(value)?),
                _ => return Err("redis.url of a socket takes db, user and password".to_owned()),
            }
        }
        Ok(target)
    }

    /// Who we are to Redis.
    #[must_use]
    pub fn identity(&self) -> RedisConnectionInfo {
        let mut identity = RedisConnectionInfo::default().set_db(self.database);
        if let Some(user) = &self.user {
            identity = identity.set_username(user);
        }
        if let Some(password) = &self.password {
            identity = identity.set_password(password);
        }
        identity
    }

    /// The ACL user, the password and the database.
    #[must_use]
    pub fn credentials(&self) -> (Option<&str>, Option<&str>, i64) {
        (self.user.as_deref(), self.password.as_deref(), self.database)
    }

    /// The addresses of its nodes, or its socket.
    #[must_use]
    pub fn addresses(&self) -> Vec<ConnectionAddr> {
        if let Kind::Unix(path) = &self.kind {
            return vec![ConnectionAddr::Unix(path.clone())];
        }
        let address = |(host, port): &(String, u16)| match self.tls {
            false => ConnectionAddr::Tcp(host.clone(), *port),
            true => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        self.nodes.iter().map(address).collect()
    }
}

impl fmt::Display for Target {
    /// Without user and password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        match &self.kind {
            Kind::Unix(path) => return write!(out, "unix://{}", path.display()),
            Kind::One => write!(out, "redis{s}://")?,
            Kind::Sentinel(_) => write!(out, "redis{s}+sentinel://")?,
            Kind::Cluster => write!(out, "redis{s}+cluster://")?,
        }
        for (at, (host, port)) in self.nodes.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match host.contains(':') {
                true => write!(out, "{comma}[{host}]:{port}")?,
                false => write!(out, "{comma}{host}:{port}")?,
            }
        }
        if let Kind::Sentinel(name) = &self.kind {
            write!(out, "/{name}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn database(text: &str) -> Result<i64, String> {
    let number: Option<u16> = text.parse().ok();
    number.map(i64::from).ok_or_else(|| "redis.url: the database is no number".to_owned())
}

fn node(text: &str, port: u16) -> Result<(String, u16), String> {
    let wrong = || "redis.url: a node is host, host:port or [address]:port".to_owned();
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or_else(wrong)?,
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(wrong());
    }
    let port = match rest.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None if rest.is_empty() => port,
        None => return Err(wrong()),
    };
    Ok((host.to_owned(), port))
}

/// Percent-decoding (RFC 3986 §2.1) to UTF-8.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || "redis.url: a percent sign stands before two hexadecimal digits".to_owned();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        out.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = behind;
    }
    String::from_utf8(out).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use proptest::prelude::*;

    fn parsed(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let one = parsed("redis://ann:s%40cret@cache.example:7000/3");
        assert_eq!(one.kind, Kind::One);
        assert_eq!(one.nodes, [("cache.example".to_owned(), 7000)]);
        assert_eq!(one.credentials(), (Some("ann"), Some("s@cret"), 3));
        assert_eq!(one.to_string(), "redis://cache.example:7000");

        let tls = parsed("rediss://:secret@[::1]");
        assert!(tls.tls);
        assert_eq!(tls.credentials(), (None, Some("secret"), 0));
        assert_eq!(tls.to_string(), "rediss://[::1]:6379");
        assert!(matches!(tls.addresses()[0], ConnectionAddr::TcpTls { port: 6379, .. }));

        let sentinel = parsed("redis+sentinel://a,b:5000/main/2");
        assert_eq!(sentinel.kind, Kind::Sentinel("main".to_owned()));
        assert_eq!(sentinel.nodes, [("a".to_owned(), 26379), ("b".to_owned(), 5000)]);
        assert_eq!(sentinel.credentials().2, 2);
        assert_eq!(sentinel.to_string(), "redis+sentinel://a:26379,b:5000/main");

        let cluster = parsed("rediss+cluster://u:p@a:1,b:2");
        assert_eq!((cluster.kind.clone(), cluster.tls), (Kind::Cluster, true));
        let unix = parsed("unix:///run/a%20b.sock?db=1&password=x");
        assert_eq!(unix.kind, Kind::Unix(PathBuf::from("/run/a b.sock")));
        assert_eq!(unix.credentials(), (None, Some("x"), 1));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for url in [
            "",
            "localhost",
            "http://hunter2@a",
            "redis://",
            "redis://hunter2@",
            "redis://u:hunter2@a:0",
            "redis://u:hunter2@a:x",
            "redis://u:hunter%2@a",
            "redis://u:hunter2@a,b",
            "redis://u:hunter2@a/x",
            "redis://u:hunter2@a/1/2",
            "redis://u:hunter2@a b",
            "redis+sentinel://u:hunter2@a",
            "redis+cluster://u:hunter2@a/1",
            "unix://relative?password=hunter2",
            "unix:///a?key=hunter2",
        ] {
            let why = Target::parse(url).unwrap_err();
            assert!(!why.contains("hunter"), "{url}: {why}");
        }
        let shown = format!("{:?}", parsed("redis://u:hunter2@a"));
        assert!(!shown.contains("hunter"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}", rest in "[a-z%@:,/\\[\\]0-9?=&]{0,40}") {
            let _ = Target::parse(&text);
            for scheme in ["redis", "rediss", "unix", "redis+sentinel", "redis+cluster"] {
                if let Ok(target) = Target::parse(&format!("{scheme}://{rest}")) {
                    prop_assert!(!target.addresses().is_empty());
                }
            }
        }
    }
}
