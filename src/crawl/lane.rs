//! What runs on a lane's thread: jobs in, answers out, one sandbox worker.

use super::mesh::{LaneJob, LaneReply, Message};
use crate::error::{PageCode, PageError, Stage};
use crate::extract::{Extractor, Input, Worker};
use std::time::{Duration, Instant};
use uring::mailbox::SendError;

/// How long a lane waits before it tries a full mailbox again.
const MAILBOX_RETRY: Duration = Duration::from_micros(200);

/// Makes the lane's job handler; called on the lane's own thread.
pub fn handler(extractor: &Extractor) -> impl FnMut(LaneJob) + use<> {
    let mut worker = extractor.worker();
    move |job| {
        let started = Instant::now();
        let outcome = work(&mut worker, &job);
        let reply = LaneReply {
            outcome,
            waited: started.saturating_duration_since(job.submitted),
            took: started.elapsed(),
        };
        answer(&job, reply);
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
        cancel: job.stream.as_ref().map(|stream| stream.abort_flag()),
    })
}

/// A lane may wait for its loop; a loop never waits for a lane.
fn answer(job: &LaneJob, reply: LaneReply) {
    let mut message = Message::Extracted { ticket: job.ticket, reply: Box::new(reply) };
    loop {
        match job.reply_to.try_send(message) {
            Ok(()) | Err(SendError::Closed(_)) => return,
            Err(SendError::Full(refused)) => {
                message = refused;
                std::thread::sleep(MAILBOX_RETRY);
            }
        }
    }
}
