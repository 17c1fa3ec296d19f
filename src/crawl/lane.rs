//! What runs on a lane's thread: jobs in, answers out, one sandbox worker.

use super::about;
use super::mesh::{LaneJob, LaneReply, Message};
use super::node::Shared;
use crate::error::{PageCode, PageError, Stage};
use crate::extract::{Input, Worker};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::mailbox::{SendError, Sender};

/// What a lane does with a job.
pub type Handler = Box<dyn FnMut(LaneJob)>;

/// How long a lane waits before it tries a full mailbox again.
const MAILBOX_RETRY: Duration = Duration::from_micros(200);

/// Makes the lane's job handler, on the lane's own thread: it waits there for the extractor to be
/// loaded, and refuses every job where that failed.
pub fn factory(shared: &Arc<Shared>) -> impl FnOnce() -> Handler + Send + use<> {
    let shared = Arc::clone(shared);
    move || {
        let extractor = shared.extractor.wait().as_ref();
        let worker = extractor.map(|extractor| extractor.worker(uring::lane::thread_cpu_time));
        Box::new(handler(worker))
    }
}

fn handler(mut worker: Option<Worker>) -> impl FnMut(LaneJob) {
    move |job| {
        let started = Instant::now();
        let Some(worker) = &mut worker else {
            let reply_to = job.reply_to.clone();
            let ticket = job.ticket;
            return answer(&reply_to, ticket, job.refuse());
        };
        let outcome = work(worker, &job);
        let about = outcome.as_ref().ok().and_then(|page| page.about()).and_then(about::read);
        let reply = LaneReply {
            outcome,
            about,
            waited: started.saturating_duration_since(job.submitted),
            took: started.elapsed(),
        };
        answer(&job.reply_to, job.ticket, reply);
    }
}

fn work(worker: &mut Worker, job: &LaneJob) -> Result<crate::extract::Extracted, PageError> {
    if job.stream.as_ref().is_some_and(|stream| stream.aborted()) {
        let message = "the page was ended before the lane took it up";
        return Err(PageError::new(PageCode::Cancelled, Stage::ExtractWait, message));
    }
    worker.extract(&Input {
        body: &job.body,
        charset_label: job.charset.as_deref(),
        url: &job.url,
        options: &job.options,
        deadline: Some(job.deadline),
        cancel: job.stream.as_ref().map(|stream| stream.abort_flag()),
    })
}

/// A lane may wait for its loop; a loop never waits for a lane.
fn answer(reply_to: &Sender<Message>, ticket: usize, reply: LaneReply) {
    let mut message = Message::Extracted { ticket, reply: Box::new(reply) };
    loop {
        match reply_to.try_send(message) {
            Ok(()) | Err(SendError::Closed(_)) => return,
            Err(SendError::Full(refused)) => {
                message = refused;
                std::thread::sleep(MAILBOX_RETRY);
            }
        }
    }
}
