//! Reading the settings again while the server runs: on SIGHUP, and on `POST /admin/reload`.
//!
//! All or nothing: the file, the keys and the certificate are read and checked before anything of
//! them is in force. Streams and connections go on; what changes counts from the next one on.

use crate::checks;
use crate::config::reload::{Outcome, Recipe, Request};
use crate::config::{Config, Problem};
use crate::crawl::node::Shared;
use crate::notify::Notifier;
use crate::observe::logging;
use crate::serve::access::{Access, ReadAgain};
use crate::serve::pages::Site;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// What a reload works on.
pub struct Reloader {
    /// Where the settings come from.
    pub recipe: Recipe,
    /// Has the settings in force.
    pub shared: Arc<Shared>,
    /// Has keys and certificate in force.
    pub access: Arc<Access>,
    /// Tells of the settings in force.
    pub site: Arc<Site>,
    /// Is told that a reload is under way.
    pub notifier: Notifier,
}

impl Reloader {
    /// Reads everything again. Blocks for some files: for the control thread.
    #[must_use]
    pub fn reload(&self, cause: &str) -> Outcome {
        self.notifier.reloading();
        let outcome = self.try_reload().unwrap_or_else(Outcome::Refused);
        if matches!(self.shared.extractor.get(), Some(Some(_))) {
            self.notifier.ready();
        }
        log(cause, &outcome);
        outcome
    }

    fn try_reload(&self) -> Result<Outcome, Vec<String>> {
        let (config, read) = if self.recipe.fixed {
            // A server that a command of ours has set up: its keys and certificate only.
            let config = Config::clone(&self.shared.config);
            let read = self.access.read_again(&config)?;
            (config, read)
        } else {
            self.read()?
        };
        let (changed, restart) = self.shared.config.compare(&config);
        self.shared.config.replace(&config).map_err(|why| vec![why.to_owned()])?;
        let files = self.access.take_over(read);
        if !changed.is_empty() {
            self.site.renew(&self.shared.config);
        }
        if changed.iter().any(|change| change.setting == "log.level") {
            match logging::set_level(&config.log_level) {
                Ok(true) => {}
                Ok(false) => tracing::warn!("log.level: RUST_LOG is set and stays the last word"),
                Err(error) => tracing::error!("log.level: {error}"),
            }
        }
        Ok(Outcome::Done { changed, restart, files })
    }

    /// Settings and files, or a sentence for each mistake in them: whatever would keep a server from
    /// starting is one, in a setting that needs a restart as well.
    fn read(&self) -> Result<(Config, ReadAgain), Vec<String>> {
        let checked = checks::read(&self.recipe);
        let config = match &checked {
            Ok(loaded) => Config::clone(&loaded.config),
            Err(_) => Config::clone(&self.shared.config),
        };
        match (checked, self.access.read_again(&config)) {
            (Ok(_), Ok(read)) => Ok((config, read)),
            (Ok(_), Err(files)) => Err(files),
            (Err(problems), read) => {
                // Files in force that are at fault have said so already.
                let files = read.err().unwrap_or_default();
                let told =
                    |problem: &&Problem| files.iter().any(|file| file.ends_with(&problem.message));
                let rest = problems.iter().filter(|problem| !told(problem));
                Err(files.iter().cloned().chain(rest.map(ToString::to_string)).collect())
            }
        }
    }
}

/// Answers requests for a reload until every core is gone.
pub async fn serve(reloader: Arc<Reloader>, mut asked: Receiver<Request>) {
    while let Some(request) = asked.recv().await {
        let outcome = reloader.reload("POST /admin/reload");
        // A client that has stopped waiting gets no answer; the log has it.
        let _ = request.reply.try_send(outcome);
    }
}

fn log(cause: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Done { changed, restart, files } => {
            for change in changed {
                let (from, to) = (&change.from, &change.to);
                tracing::info!(setting = change.setting, from, to, "{cause}: changed");
            }
            for change in restart {
                let (from, to) = (&change.from, &change.to);
                tracing::warn!(setting = change.setting, from, to, "{cause}: needs a restart");
            }
            let files = files.join(", ");
            tracing::info!(changed = changed.len(), files, "{cause}: the settings were read again");
        }
        Outcome::Refused(problems) => {
            for problem in problems {
                tracing::error!("{cause}: nothing has changed: {problem}");
            }
        }
    }
}
