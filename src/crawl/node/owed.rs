//! A page's result is owed to its stream, whatever happens to the page's task: a stream that waits for
//! one that never comes would not end before its deadline.

use super::Node;
use crate::crawl::mesh::{Message, PageJob};
use crate::error::{PageCode, PageError, Stage};
use crate::local::Notify;
use crate::proto::events::PageResult;
use std::rc::Rc;
use ulid::Ulid;

impl Node {
    pub(super) fn work(self: &Rc<Self>, job: PageJob) {
        let node = Rc::clone(self);
        drop(uring::spawn(async move {
            let (owner, stream, index) = (job.stream.owner(), job.stream.id(), job.index);
            let page = ended_or(node.page(&job), || {
                let message = "the server failed on this page; its log says where";
                let error = PageError::new(PageCode::InternalError, Stage::Queue, message);
                let page = Box::new(PageResult::failed(job.url.clone(), error));
                node.post_soon(owner, Message::Done { stream, index, page });
            });
            let page = page.await;
            node.report(owner, stream, index, page).await;
            node.idle.notify();
        }));
    }
}

/// Runs `work` to its end; where it is dropped before, as by a panic, does something `else`.
async fn ended_or<T>(work: impl Future<Output = T>, otherwise: impl FnOnce()) -> T {
    let mut unless = Unless(Some(otherwise));
    let output = work.await;
    unless.0 = None;
    output
}

struct Unless<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Unless<F> {
    fn drop(&mut self) {
        if let Some(otherwise) = self.0.take() {
            otherwise();
        }
    }
}

/// A page that runs here, and can be told to end: known for as long as this lives.
pub(in crate::crawl) struct Here<'a> {
    node: &'a Node,
    stream: Ulid,
    /// Tells it to end.
    pub(in crate::crawl) abort: Rc<Notify>,
}

impl<'a> Here<'a> {
    pub(in crate::crawl) fn new(node: &'a Node, stream: Ulid) -> Self {
        let abort = Rc::new(Notify::default());
        node.pages.borrow_mut().entry(stream).or_default().push(Rc::clone(&abort));
        Self { node, stream, abort }
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.node.forget_page(self.stream, &self.abort);
        self.node.idle.notify();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::cell::Cell;
    use uring::core::CoreConfig;
    use uring::probe;

    #[test]
    fn what_is_owed_is_given_by_a_task_that_panics_and_by_no_other() {
        let driver = probe::choose(uring::Runtime::Auto, &probe::probe()).unwrap().driver;
        let core = uring::core::spawn(CoreConfig::new(0, driver), || async {
            let told = Rc::new(Cell::new(0));
            let task = |panics: bool| {
                let told = Rc::clone(&told);
                drop(uring::spawn(async move {
                    let work = async {
                        uring::yield_now().await;
                        assert!(!panics, "a page that is meant to make its task panic");
                        7
                    };
                    assert_eq!(ended_or(work, || told.set(told.get() + 1)).await, 7);
                }));
            };
            task(false);
            task(true);
            let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while Rc::strong_count(&told) > 1 && std::time::Instant::now() < end {
                uring::yield_now().await;
            }
            (Rc::strong_count(&told), told.get())
        });
        assert_eq!(core.unwrap().join().unwrap(), (1, 1));
    }
}
