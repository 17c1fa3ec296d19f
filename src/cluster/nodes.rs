//! Nodes among each other: who is alive, and short letters from one to another. An expiring key and a
//! list for each node; nobody keeps a list of nodes.

use super::link::{Does, Link, Trouble};
use redis::{cmd, pipe};
use std::time::Duration;
use ulid::Ulid;

/// How often a node says that it is alive.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Milliseconds after its last word for which it is taken to be.
const ALIVE_MS: u64 = 5_000;
/// Letters that may wait for one node; the oldest go first.
const LETTERS_MAX: isize = 4_096;
/// Milliseconds for which a letter waits for a node that takes none.
const LETTERS_MS: u64 = 60_000;
/// Letters that are taken at a time.
const TAKE_MAX: usize = 256;

/// Says that a node is alive for as long as it is.
pub(super) async fn live(link: Link, node: Ulid) {
    loop {
        let mut set = cmd("SET");
        set.arg(link.key(&alive(node))).arg("1").arg("PX").arg(ALIVE_MS);
        // Where it can't be said, it will be.
        let _ = link.ask::<String>(Does::Write, &set).await;
        tokio::time::sleep(SAY_EVERY).await;
    }
}

impl Link {
    /// Whether a node has said lately that it is alive.
    ///
    /// # Errors
    /// [`Trouble`]: it is not known.
    pub async fn is_alive(&self, node: Ulid) -> Result<bool, Trouble> {
        self.ask(Does::Read, cmd("EXISTS").arg(self.key(&alive(node)))).await
    }

    /// Leaves a letter for a node, which takes it soon, or never.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post(&self, node: Ulid, letter: &str) -> Result<(), Trouble> {
        let key = self.key(&letters(node));
        let mut all = pipe();
        all.cmd("RPUSH").arg(&key).arg(letter);
        all.cmd("LTRIM").arg(&key).arg(-LETTERS_MAX).arg(-1);
        all.cmd("PEXPIRE").arg(&key).arg(LETTERS_MS);
        self.ask_all::<(i64, String, i64)>(Does::Write, &all).await.map(drop)
    }

    /// Takes the letters for a node, some at a time.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn take(&self, node: Ulid) -> Result<Vec<String>, Trouble> {
        let mut pop = cmd("LPOP");
        pop.arg(self.key(&letters(node))).arg(TAKE_MAX);
        self.ask::<Option<Vec<String>>>(Does::Write, &pop).await.map(Option::unwrap_or_default)
    }
}

fn alive(node: Ulid) -> String {
    format!("node:{node}:alive")
}

fn letters(node: Ulid) -> String {
    format!("node:{node}:letters")
}
