//! What runs on a lane's thread: jobs in, answers out, one sandbox worker.

use super::about;
use super::mesh::{LaneJob, LaneReply, Message};
use super::node::Shared;
use crate::error::{PageCode, PageError, Stage};
use crate::extract::{Extracted, Input, Worker};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::lane::thread_cpu_time;
use uring::mailbox::{SendError, Sender};

/// What a lane does with a job.
pub type Handler = Box<dyn FnMut(Handed)>;

/// How long a lane waits before it tries a full mailbox again.
const MAILBOX_RETRY: Duration = Duration::from_micros(200);

/// A page in a lane, with the duty to answer.
pub struct Handed {
    /// The page.
    pub job: LaneJob,
    /// Where the answer goes.
    pub owed: Owed,
}

/// The duty to answer for a page. Dropped, as by a panic, it answers that there is no document:
/// somebody waits, and the lane's places are counted by its answers.
pub struct Owed {
    to: Option<Sender<Message>>,
    ticket: usize,
    submitted: Instant,
}

impl Owed {
    /// To the core with this mailbox, which knows the page by `ticket`.
    #[must_use]
    pub fn new(to: Sender<Message>, ticket: usize, submitted: Instant) -> Self {
        Self { to: Some(to), ticket, submitted }
    }

    /// Answers. A lane may wait for its loop; a loop never waits for a lane.
    pub fn answer(mut self, reply: LaneReply) {
        self.send(reply);
    }

    /// The page was not taken: who handed it over knows.
    pub fn forgive(mut self) {
        self.to = None;
    }

    fn send(&mut self, reply: LaneReply) {
        let Some(to) = self.to.take() else { return };
        let mut message = Message::Extracted { ticket: self.ticket, reply: Box::new(reply) };
        loop {
            match to.try_send(message) {
                Ok(()) | Err(SendError::Closed(_)) => return,
                Err(SendError::Full(refused)) => {
                    message = refused;
                    std::thread::sleep(MAILBOX_RETRY);
                }
            }
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.to.is_none() {
            return;
        }
        let (stage, message) = if std::thread::panicking() {
            (Stage::Extract, "the server failed on this page; its log says where")
        } else {
            (Stage::ExtractWait, "the extraction lane has ended")
        };
        self.send(LaneReply {
            outcome: Err(PageError::new(PageCode::ExtractFailed, stage, message)),
            about: None,
            waited: self.submitted.elapsed(),
            took: Duration::ZERO,
            used: Duration::ZERO,
        });
    }
}

/// Makes the lane's job handler, on the lane's own thread: it waits there for the extractor to be
/// loaded, and refuses every job where that failed.
pub fn factory(shared: &Arc<Shared>) -> impl FnOnce() -> Handler + Send + use<> {
    let shared = Arc::clone(shared);
    move || {
        let extractor = shared.extractor.wait().as_ref();
        let Some(mut worker) = extractor.map(|extractor| extractor.worker(thread_cpu_time)) else {
            let message = "the extractor could not be loaded";
            return Box::new(move |Handed { job, owed }| {
                owed.answer(job.refuse(PageCode::ExtractFailed, message));
            });
        };
        Box::new(handler(move |job| extract(&mut worker, job)))
    }
}

fn handler(
    mut extract: impl FnMut(&LaneJob) -> Result<Extracted, PageError>,
) -> impl FnMut(Handed) {
    move |Handed { job, owed }| {
        let (started, used) = (Instant::now(), thread_cpu_time());
        let outcome = match unwanted(&job) {
            Some(error) => Err(error),
            None => extract(&job),
        };
        let about = outcome.as_ref().ok().and_then(|page| page.about()).and_then(about::read);
        owed.answer(LaneReply {
            outcome,
            about,
            waited: started.saturating_duration_since(job.submitted),
            took: started.elapsed(),
            used: thread_cpu_time().saturating_sub(used),
        });
    }
}

/// Why nobody wants a page's document any more, if that is so.
fn unwanted(job: &LaneJob) -> Option<PageError> {
    let (code, message) = if job.stream.as_ref().is_some_and(|stream| stream.aborted()) {
        (PageCode::Cancelled, "the page was ended before the lane took it up")
    } else if Instant::now() >= job.deadline {
        (PageCode::DeadlineExceeded, "the page's time was up before the lane took it up")
    } else {
        return None;
    };
    Some(PageError::new(code, Stage::ExtractWait, message))
}

fn extract(worker: &mut Worker, job: &LaneJob) -> Result<Extracted, PageError> {
    worker.extract(&Input {
        body: &job.body,
        charset_label: job.charset.as_deref(),
        url: &job.url,
        options: &job.options,
        deadline: Some(job.deadline),
        cancel: job.stream.as_ref().map(|stream| stream.abort_flag()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::extract::Options;
    use uring::lane::{Lane, LaneConfig};

    fn job(url: &str) -> LaneJob {
        LaneJob {
            body: Vec::new(),
            charset: None,
            url: url.to_owned(),
            options: Options::default(),
            stream: None,
            deadline: Instant::now() + Duration::from_secs(60),
            submitted: Instant::now(),
        }
    }

    /// The answers to these jobs, by a lane that panics at `http://panic/`.
    fn answers(jobs: Vec<LaneJob>) -> Vec<(usize, PageError)> {
        let (to, mut from) = uring::mailbox::channel(jobs.len());
        let lane = Lane::start(LaneConfig::default(), jobs.len(), || {
            handler(|job| {
                assert!(job.url != "http://panic/", "a page that is meant to make it panic");
                Err(PageError::new(PageCode::ExtractFailed, Stage::Extract, "done"))
            })
        });
        let lane = lane.unwrap();
        for (ticket, job) in jobs.into_iter().enumerate() {
            let owed = Owed::new(to.clone(), ticket, job.submitted);
            assert!(lane.try_submit(Handed { job, owed }).is_ok());
        }
        lane.stop();
        let mut answers = Vec::new();
        while let Some(Message::Extracted { ticket, reply }) = from.try_recv() {
            answers.push((ticket, reply.outcome.unwrap_err()));
        }
        answers
    }

    #[test]
    fn a_page_that_makes_the_lane_panic_is_answered_like_any_other() {
        let all = answers(["http://a/", "http://panic/", "http://b/"].map(job).into());
        let tickets: Vec<_> = all.iter().map(|(ticket, _)| *ticket).collect();
        assert_eq!(tickets, [0, 1, 2]);
        assert!(all.iter().all(|(_, error)| error.code == PageCode::ExtractFailed));
        assert_eq!(all[0].1.message, "done");
        assert!(all[1].1.message.starts_with("the server failed"), "{}", all[1].1.message);
        assert_eq!(all[2].1.message, "done", "it costs itself only");
    }

    #[test]
    fn a_page_whose_time_is_up_is_not_begun() {
        let late = LaneJob { deadline: Instant::now(), ..job("http://panic/") };
        let all = answers(vec![late]);
        assert_eq!(
            (all[0].1.code, all[0].1.stage),
            (PageCode::DeadlineExceeded, Stage::ExtractWait)
        );
    }

    #[test]
    fn a_lane_that_drops_its_pages_answers_them() {
        let (to, mut from) = uring::mailbox::channel(2);
        let first = job("http://a/");
        drop(Handed { owed: Owed::new(to.clone(), 7, first.submitted), job: first });
        let Some(Message::Extracted { ticket: 7, reply }) = from.try_recv() else { panic!("none") };
        assert_eq!(reply.outcome.unwrap_err().stage, Stage::ExtractWait);
        let second = job("http://b/");
        Owed::new(to, 8, second.submitted).forgive();
        assert!(from.try_recv().is_none());
    }
}
