//! robots.txt (RFC 9309): what a file says, and whether it lets a crawler have a path.
//!
//! Without IO, and without a call that takes long: a file of half a megabyte is read in turns
//! ([`Parser::step`]), and a path is held against its rules in turns ([`Check::step`]), so that a
//! loop can do something else in between. Memory is at most a small multiple of
//! [`ROBOTS_BYTES_MAX`].
//!
//! Beyond the standard's records only `Crawl-delay` and `Sitemap` are read; like any other record they
//! never end a group (§2.2.4). The rules are those of the groups that name the crawler's product token, all of
//! them together, or of those for `*` where none names it (§2.2.1).

use crate::limits::{
    CRAWL_DELAY_MAX, FOLLOW_URL_BYTES_MAX, ROBOTS_BYTES_MAX, ROBOTS_PATTERN_BYTES_MAX,
    ROBOTS_SITEMAPS_MAX, ROBOTS_TURN_BYTES,
};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

/// A read file. The default one says nothing and so allows everything.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Robots {
    groups: Vec<Group>,
    /// The groups of each product token, lower case; of `*` for any. A file may have forty thousand.
    named: HashMap<Box<str>, Vec<usize>>,
    rules: Vec<Rule>,
    /// The patterns of all rules, normalised, one behind the other.
    patterns: Vec<u8>,
    /// The `Sitemap` lines, of whatever group.
    sitemaps: Vec<Box<str>>,
}

/// The lines for one set of crawlers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Group {
    /// Its rules among all.
    rules: Range<usize>,
    delay: Option<Duration>,
}

/// One `Allow` or `Disallow`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    pattern: Range<usize>,
}

impl Robots {
    /// Reads a whole file at once, for whom time does not matter.
    #[must_use]
    pub fn read(file: &[u8]) -> Self {
        let mut parser = Parser::new(file);
        while !parser.step() {}
        parser.finish()
    }

    /// The groups for a crawler whose product token is `agent` (in any case): those that name it,
    /// else those for everyone.
    fn groups_of(&self, agent: &str) -> &[usize] {
        let own = self.named.get(&*agent.to_ascii_lowercase()).filter(|_| !agent.is_empty());
        own.or_else(|| self.named.get("*")).map_or(&[], Vec::as_slice)
    }

    /// The longest `Crawl-delay` for a crawler, at most [`CRAWL_DELAY_MAX`].
    #[must_use]
    pub fn crawl_delay(&self, agent: &str) -> Option<Duration> {
        self.groups_of(agent).iter().filter_map(|at| self.groups[*at].delay).max()
    }

    /// The URLs of its `Sitemap` lines (sitemaps.org), as they are written.
    #[must_use]
    pub fn sitemaps(&self) -> &[Box<str>] {
        &self.sitemaps
    }

    /// Whether `agent` may fetch a path (with its query, as on a request line); see [`Check`].
    #[must_use]
    pub fn allows(&self, agent: &str, path_and_query: &str) -> bool {
        let mut check = Check::new(self, agent, path_and_query);
        loop {
            if let Some(allowed) = check.step(self) {
                return allowed;
            }
        }
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let names = self.named.iter();
        let named: usize = names.map(|(name, groups)| name.len() + 48 + 8 * groups.len()).sum();
        let sitemaps: usize = self.sitemaps.iter().map(|url| url.len() + 16).sum();
        self.patterns.len()
            + sitemaps
            + self.rules.len() * size_of::<Rule>()
            + self.groups.len() * size_of::<Group>()
            + named
    }
}

/// A file that is being read. Order of calls: [`step`](Self::step) until it says `true`, then
/// [`finish`](Self::finish).
pub struct Parser<'f> {
    rest: &'f [u8],
    robots: Robots,
    /// The last line that counts was a `User-agent`.
    in_agents: bool,
    /// The pattern that is being written.
    written: Vec<u8>,
}

impl<'f> Parser<'f> {
    /// Starts on a file, of which only the first [`ROBOTS_BYTES_MAX`] bytes count (§2.5): up to
    /// the last line that is whole, because half a line may mean the opposite.
    #[must_use]
    pub fn new(file: &'f [u8]) -> Self {
        let mut rest = &file[..file.len().min(ROBOTS_BYTES_MAX)];
        if rest.len() < file.len() {
            let end = rest.iter().rposition(|b| is_line_end(*b)).unwrap_or(0);
            rest = &rest[..end];
        }
        let rest = rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest);
        Self { rest, robots: Robots::default(), in_agents: false, written: Vec::new() }
    }

    /// Reads a turn's worth of lines; `true` at the end of the file.
    pub fn step(&mut self) -> bool {
        let before = self.rest.len();
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|b| is_line_end(*b)).unwrap_or(self.rest.len());
            let line = &self.rest[..end];
            self.rest = &self.rest[(end + 1).min(self.rest.len())..];
            self.line(line);
            if before - self.rest.len() >= ROBOTS_TURN_BYTES {
                break;
            }
        }
        self.rest.is_empty()
    }

    /// What the file says.
    #[must_use]
    pub fn finish(mut self) -> Robots {
        self.robots.rules.shrink_to_fit();
        self.robots.patterns.shrink_to_fit();
        self.robots
    }

    fn line(&mut self, line: &[u8]) {
        let end = line.iter().position(|b| *b == b'#').unwrap_or(line.len());
        let Some(colon) = line[..end].iter().position(|b| *b == b':') else { return };
        let (key, value) = (line[..colon].trim_ascii(), line[colon + 1..end].trim_ascii());
        let is = |name: &[u8]| key.eq_ignore_ascii_case(name);
        if is(b"user-agent") {
            self.agent(value);
        } else if is(b"allow") {
            self.rule(true, value);
        } else if is(b"disallow") {
            self.rule(false, value);
        } else if is(b"sitemap") {
            self.sitemap(value);
        } else if is(b"crawl-delay")
            && let Some(group) = self.robots.groups.last_mut()
            && let Some(delay) = delay(value)
        {
            group.delay = group.delay.max(Some(delay));
        }
    }

    fn sitemap(&mut self, value: &[u8]) {
        let sitemaps = &mut self.robots.sitemaps;
        if sitemaps.len() < ROBOTS_SITEMAPS_MAX
            && value.len() <= FOLLOW_URL_BYTES_MAX
            && let Ok(url) = std::str::from_utf8(value)
        {
            sitemaps.push(url.into());
        }
    }

    /// §2.2.1: neighbouring `User-agent` lines open one group.
    fn agent(&mut self, value: &[u8]) {
        if !self.in_agents {
            let start = self.robots.rules.len();
            self.robots.groups.push(Group { rules: start..start, ..Group::default() });
            self.in_agents = true;
        }
        let agent = if value.starts_with(b"*") { "*" } else { token(value) };
        let at = self.robots.groups.len() - 1;
        if !agent.is_empty() {
            let groups = self.robots.named.entry(agent.to_ascii_lowercase().into()).or_default();
            if groups.last() != Some(&at) {
                groups.push(at);
            }
        }
    }

    /// A rule before the first group belongs to nobody; an empty one says nothing. One that is too long
    /// is cut where it forbids, and so forbids more, and is left out where it allows.
    fn rule(&mut self, allow: bool, value: &[u8]) {
        self.in_agents = false;
        let Some(group) = self.robots.groups.last_mut() else { return };
        if value.is_empty() {
            return;
        }
        let start = self.robots.patterns.len();
        let (value, anchored) = match value.strip_suffix(b"$") {
            Some(value) => (value, true),
            None => (value, false),
        };
        let most = value.len().min(ROBOTS_PATTERN_BYTES_MAX);
        let cut = most < value.len();
        if cut && allow {
            return;
        }
        self.written.clear();
        normalise(&value[..most], |byte| byte == b'$', &mut self.written);
        // Two `*` say no more than one, and half a million of them cost a search each.
        self.written.dedup_by(|next, last| *next == b'*' && *last == b'*');
        self.robots.patterns.extend_from_slice(&self.written);
        if anchored && !cut {
            self.robots.patterns.push(b'$');
        }
        self.robots.rules.push(Rule { allow, pattern: start..self.robots.patterns.len() });
        group.rules.end = self.robots.rules.len();
    }
}

/// A path that is being held against a file's rules. The longest pattern that fits decides, and
/// `Allow` where two of one length fit (§2.2.2); where none fits, the path is allowed.
pub struct Check {
    path: Vec<u8>,
    agent: Box<str>,
    /// The group and the rule that come next: a place in the list of the agent's groups, and one in
    /// the group.
    next: (usize, usize),
    best: Option<(usize, bool)>,
}

impl Check {
    /// Starts the check of a path for a crawler's product token.
    #[must_use]
    pub fn new(robots: &Robots, agent: &str, path_and_query: &str) -> Self {
        let mut path = Vec::with_capacity(path_and_query.len());
        // In a path these two are only themselves (§2.2.3).
        normalise(path_and_query.as_bytes(), |byte| matches!(byte, b'*' | b'$'), &mut path);
        // §2.2.2: implicitly allowed
        let over = if path == b"/robots.txt" { robots.groups.len() } else { 0 };
        Self { path, agent: agent.into(), next: (over, 0), best: None }
    }

    /// Goes through a turn's worth of rules of the same file; the verdict once it is through.
    pub fn step(&mut self, robots: &Robots) -> Option<bool> {
        let mut spent = 0;
        let groups = robots.groups_of(&self.agent);
        while let Some(group) = groups.get(self.next.0).map(|at| &robots.groups[*at]) {
            for rule in &robots.rules[group.rules.clone()][self.next.1..] {
                if spent >= ROBOTS_TURN_BYTES {
                    return None;
                }
                self.next.1 += 1;
                spent += self.hold(rule, &robots.patterns[rule.pattern.clone()]);
            }
            self.next = (self.next.0 + 1, 0);
            spent += 16;
        }
        Some(self.best.is_none_or(|(_, allow)| allow))
    }

    /// Holds the path against one rule. Answers what that costs at most, in bytes of a plain search;
    /// most end at the first bytes.
    fn hold(&mut self, rule: &Rule, pattern: &[u8]) -> usize {
        let rank = (pattern.len(), rule.allow);
        // Between two `*` stands a character at least: what is longer than this has more characters
        // than the path.
        let too_long = pattern.len() > 2 * self.path.len() + 2;
        if too_long || self.best.is_some_and(|best| best >= rank) {
            return 16;
        }
        if fits(pattern, &self.path) {
            self.best = Some(rank);
        }
        let searches =
            if pattern.contains(&b'*') { self.path.len() + 16 * pattern.len() } else { 0 };
        16 + pattern.len() / 16 + searches
    }
}

/// The product token of a `User-Agent` value (§2.2.1): letters, hyphens and underscores at its
/// start.
#[must_use]
pub fn token(user_agent: &[u8]) -> &str {
    let good = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_');
    let end = user_agent.iter().position(|b| !good(b)).unwrap_or(user_agent.len());
    std::str::from_utf8(&user_agent[..end]).unwrap_or_default()
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn delay(value: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    let delay = (seconds >= 0.0).then_some(seconds.min(CRAWL_DELAY_MAX.as_secs_f64()))?;
    Duration::try_from_secs_f64(delay).ok()
}

/// One spelling for what is equivalent (§2.2.2): escapes of unreserved characters are undone, all
/// other escapes are in upper case, and what is not ASCII, no visible character, or `escaped` is
/// escaped.
fn normalise(text: &[u8], escaped: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut at = 0;
    while let Some(&first) = text.get(at) {
        let (byte, was_escaped) = match (first, text.get(at + 1), text.get(at + 2)) {
            (b'%', Some(&high), Some(&low)) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, true),
                _ => (first, false),
            },
            _ => (first, false),
        };
        at += if was_escaped { 3 } else { 1 };
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let plain =
            if was_escaped { unreserved } else { byte.is_ascii_graphic() && !escaped(byte) };
        if plain {
            out.push(byte);
        } else {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// §2.2.3: `*` stands for any characters, `$` at the end for the end; else a pattern fits every path
/// that starts with it. What stands between two `*` is looked for from the left: the first place
/// leaves the most for what follows.
fn fits(pattern: &[u8], path: &[u8]) -> bool {
    let (pattern, anchored) = match pattern.strip_suffix(b"$") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut pieces = pattern.split(|b| *b == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return !anchored || rest.is_empty() };
    for piece in pieces {
        let Some(at) = memchr::memmem::find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    if anchored { rest.ends_with(last) } else { memchr::memmem::find(rest, last).is_some() }
}

#[cfg(test)]
pub(crate) mod tests;
