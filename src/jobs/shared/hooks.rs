//! Webhooks of jobs in Redis: whichever node looks first when one is due delivers it; if it dies, another
//! does when its lease is over.

use super::read;
use super::store::{self, text};
use crate::cluster::{Link, Trouble};
use crate::jobs::deliver::Courier;
use crate::jobs::view::Delivery;
use crate::jobs::webhook::{Secret, Webhook};
use crate::stream::place::Place;
use std::rc::Rc;
use std::time::Duration;

/// For how long Redis is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a lease is longer than an attempt may take.
const LEASE_SLACK: Duration = Duration::from_secs(10);

impl Courier {
    /// Delivers what is due by Redis, until nothing is.
    pub(in crate::jobs) async fn launch_shared(self: Rc<Self>, place: Place) {
        if let Err(error) = self.deliver_due().await {
            tracing::debug!("webhooks of jobs: {error}");
        }
        drop(place);
    }

    async fn deliver_due(&self) -> Result<(), Trouble> {
        let cluster = &self.jobs.cluster;
        let lease = self.jobs.policy().timeout + LEASE_SLACK;
        while cluster.takes() && !self.node.draining() {
            let taking = cluster.ask(PATIENCE, move |link: Link| async move {
                let Some(id) = store::take_hook(&link, lease).await? else { return Ok(None) };
                Ok(Some((id, store::meta(&link, id).await?)))
            });
            let Some((id, meta)) = taking.await? else { return Ok(()) };
            let secret = Secret::read(&text(&meta, "hook_secret"));
            let view = read::view(id, &meta).filter(|view| view.status.ended());
            let (Some(view), Some(secret)) = (view, secret) else {
                // The job is gone, and what it had to tell.
                let forget =
                    move |link: Link| async move { store::set_hook(&link, id, None).await };
                cluster.ask(PATIENCE, forget).await?;
                continue;
            };
            let hook = Webhook { url: text(&meta, "hook_url"), secret, events: Vec::new() };
            let before = view.webhook.clone().unwrap_or_default();
            let (after, again) = self.attempt(id, &hook, &view.webhook_body(), before).await;
            let noting = cluster.ask(PATIENCE, move |link: Link| async move {
                let Delivery { state, attempts, status, error } = after;
                let error = error.unwrap_or_default();
                store::note_hook(&link, id, (&state, attempts, status, &error)).await?;
                store::set_hook(&link, id, again).await
            });
            noting.await?;
        }
        Ok(())
    }
}
