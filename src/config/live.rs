//! The settings of a running server, as the last reload left them.

use super::{Config, SETTINGS};
use arc_swap::ArcSwap;
use std::ops::Deref;
use std::sync::Arc;

/// The settings in force; reads as a `&Config` that stays what it is for as long as it is held.
///
/// A reload that changes something leaves the settings before it in memory for good, some 2 KiB, so
/// that whoever reads a setting needs neither a lock nor a count. `RELOADS_MAX` bounds it.
#[derive(Debug)]
pub struct Live {
    now: ArcSwap<&'static Config>,
    reloads: std::sync::atomic::AtomicUsize,
}

/// Reloads with a change that one process makes: above it, it wants a restart.
const RELOADS_MAX: usize = 10_000;

/// A setting that a reload found changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub setting: &'static str,
    /// What it was; a secret is not shown.
    pub from: String,
    /// What it is, or would be after a restart.
    pub to: String,
}

impl Live {
    /// The settings that a server starts with.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let now = ArcSwap::from_pointee(&*Box::leak(Box::new(config)));
        Self { now, reloads: std::sync::atomic::AtomicUsize::new(0) }
    }

    /// What would change: settings that a running server takes, and settings that it does not.
    #[must_use]
    pub fn compare(&self, new: &Config) -> (Vec<Change>, Vec<Change>) {
        let now: &Config = self;
        let changed = SETTINGS.iter().filter_map(|setting| {
            let (from, to) = (now.show(setting.name)?, new.show(setting.name)?);
            let shown = |text: String| if setting.secret { hidden(&text) } else { text };
            let change =
                Change { setting: setting.name, from: shown(from.clone()), to: shown(to.clone()) };
            (from != to).then_some((setting.reloadable(), change))
        });
        let (live, fixed): (Vec<_>, Vec<_>) = changed.partition(|(reloadable, _)| *reloadable);
        let changes =
            |all: Vec<(bool, Change)>| all.into_iter().map(|(_, change)| change).collect();
        (changes(live), changes(fixed))
    }

    /// Puts the reloadable settings of `new` in force; the others stay as they are.
    ///
    /// # Errors
    /// The process has reloaded too often.
    pub fn replace(&self, new: &Config) -> Result<(), &'static str> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut config = Config::clone(self);
        for setting in SETTINGS.iter().filter(|setting| setting.reloadable()) {
            let value = new.show(setting.name).expect("a setting of the table is there");
            config.set(setting.name, &value).expect("what is shown can be set");
        }
        if config == **self {
            return Ok(());
        }
        if self.reloads.fetch_add(1, Relaxed) >= RELOADS_MAX {
            return Err("this process has reloaded too often: restart it");
        }
        self.now.store(Arc::new(&*Box::leak(Box::new(config))));
        Ok(())
    }
}

impl Deref for Live {
    type Target = Config;

    fn deref(&self) -> &Config {
        **self.now.load()
    }
}

/// What is shown of a secret: whether there is one.
#[must_use]
pub(super) fn hidden(text: &str) -> String {
    if text.is_empty() { String::new() } else { "***".to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_can_change_changes_and_what_cannot_is_named() {
        let live = Live::new(Config::default());
        let before: &Config = &live;
        let new = Config {
            urls_max: 7,
            cores: 3,
            egress_proxy: "http://u:p@proxy:1".into(),
            ..Config::default()
        };
        let (changed, refused) = live.compare(&new);
        let names = |changes: &[Change]| changes.iter().map(|c| c.setting).collect::<Vec<_>>();
        assert_eq!(names(&changed), ["stream.urls_max"]);
        assert_eq!((&*changed[0].from, &*changed[0].to), ("1000", "7"));
        assert_eq!(names(&refused), ["server.cores", "egress.proxy"]);
        assert_eq!((&*refused[1].from, &*refused[1].to), ("", "***"));
        let (_, refused) = Live::new(new.clone())
            .compare(&Config { egress_proxy: "http://u:q@proxy:1".into(), ..new.clone() });
        assert_eq!((&*refused[0].from, &*refused[0].to), ("***", "***"), "one secret for another");
        live.replace(&new).unwrap();
        assert_eq!((live.urls_max, live.cores), (7, 0));
        assert_eq!(before.urls_max, 1000, "what is held stays what it is");
    }

    #[test]
    fn every_reloadable_setting_can_be_replaced() {
        let live = Live::new(Config::default());
        live.replace(&Config::default()).unwrap();
        assert_eq!(*live, Config::default());
        assert!(SETTINGS.iter().filter(|setting| setting.reloadable()).count() > 30);
    }
}
