//! What each op does.

use super::super::access::peer::{Noted, Outcome};
use super::super::access::visit;
use super::super::handle::asked_for;
use super::super::sender::Reader;
use super::super::streams;
use super::attached::Attached;
use super::op::{Op, Refused};
use super::reply;
use super::socket::Socket;
use crate::crawl::live::{AddError, Live, Terms};
use crate::crawl::mirror;
use crate::crawl::request::{CrawlRequest, OrderName};
use crate::error::{ApiCode, ApiError};
use crate::observe::metrics::Counter;
use crate::observe::series::Endpoint;
use crate::proto::text::Text;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;

/// How long a resumed stream of another node may take to come to what its client has; the other
/// streams of the socket wait as well.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Socket {
    /// Obeys an op, or says why not.
    pub(super) async fn obey(&mut self, op: Op, now: Instant) {
        if !self.check_key() {
            return;
        }
        let mut noted = self.begin_note(&op, now);
        let stream_id = noted.as_ref().and_then(|_| self.stream_id(op.id()?));
        let answered = self.answered;
        let admitted = match op.works() {
            Some(works) => self.peer.admit(works).await,
            None => Ok(()),
        };
        let done = match admitted {
            Ok(()) => self.carry_out(op, now, &mut noted).await,
            Err(error) => Err(Refused::state(op.id().map(str::to_owned), error)),
        };
        self.peer.tell_nodes();
        let (word, status) = match &done {
            Ok(()) => ("ok", 200),
            Err(refused) => (refused.code.as_str(), refused.code.status()),
        };
        if let Err(refused) = &done {
            self.refuse(refused);
        }
        let bytes = self.answered - answered;
        let outcome = Outcome { word, status, stream_id: stream_id.as_deref(), bytes };
        self.count_note(self.peer.note(noted, &outcome));
    }

    /// Does what an op says. The note of one that begins to send a stream goes with that.
    async fn carry_out(
        &mut self,
        op: Op,
        now: Instant,
        noted: &mut Option<Noted>,
    ) -> Result<(), Refused> {
        match op {
            Op::Crawl { id, request, credit } | Op::Deepsearch { id, request, credit } => {
                self.crawl(id, request, credit, now, noted)
            }
            Op::Cancel { id } => self.cancel(&id),
            Op::Add { id, urls } => self.add(&id, &urls).await,
            Op::Ack { id, seq } => self.named(&id).map(|attached| attached.stream().ack(seq)),
            Op::Credit { id, n } => {
                let node = Rc::clone(&self.node);
                self.named(&id).map(|named| named.set_credit(&node, |credit| credit.grant(n)))
            }
            Op::Resume { id, stream_id, after, credit } => {
                let attached = self.resume(id, &stream_id, after, now).await?;
                self.join(attached, credit, noted);
                Ok(())
            }
            Op::Ping { id } => {
                self.answer(reply::pong(id.as_deref(), SystemTime::now()));
                Ok(())
            }
            Op::Status { id } => {
                let text = reply::status(id.as_deref(), self.streams.iter().map(|boxed| &**boxed));
                self.answer(text);
                Ok(())
            }
        }
    }

    /// Answers a message that is no op; it takes of the rates what an op would.
    pub(super) async fn refuse_unread(&mut self, refused: Refused, now: Instant) {
        if !self.check_key() {
            return;
        }
        let noted = self.peer.begin_note("unknown", std::iter::empty(), now);
        let refused = match self.peer.admit(false).await {
            Ok(()) => refused,
            Err(error) => Refused::state(refused.id, error),
        };
        self.peer.tell_nodes();
        let answered = self.answered;
        self.refuse(&refused);
        let (word, status) = (refused.code.as_str(), refused.code.status());
        let bytes = self.answered - answered;
        let outcome = Outcome { word, status, stream_id: None, bytes };
        self.count_note(self.peer.note(noted, &outcome));
    }

    /// Begins the line that an op has in the audit log, if it has one.
    fn begin_note(&self, op: &Op, now: Instant) -> Option<Noted> {
        let (peer, name) = (&self.peer, op.name());
        match op {
            Op::Crawl { request, .. } | Op::Deepsearch { request, .. } => {
                peer.begin_note(name, asked_for(request, &self.node.shared.config), now)
            }
            Op::Add { urls, .. } => peer.begin_note(name, urls.iter().map(|url| &**url), now),
            Op::Cancel { .. } | Op::Resume { .. } => peer.begin_note(name, std::iter::empty(), now),
            Op::Ack { .. } | Op::Credit { .. } | Op::Ping { .. } | Op::Status { .. } => None,
        }
    }

    fn stream_id(&self, id: &str) -> Option<Box<str>> {
        let named = self.streams.iter().find(|attached| *attached.id == *id)?;
        Some(named.stream().id_text.clone())
    }

    /// Answers an op that is not obeyed; the socket stays open.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        self.node.observe.count(Counter::ApiErrors(refused.code));
        self.answer(reply::error(refused));
    }

    fn crawl(
        &mut self,
        id: String,
        request: CrawlRequest,
        credit: Option<u32>,
        now: Instant,
        noted: &mut Option<Noted>,
    ) -> Result<(), Refused> {
        self.free_place(&id)?;
        self.node.admit().map_err(|error| Refused::state(Some(id.clone()), error))?;
        let key = self.peer.key().map(|key| &**key);
        let query = request.search.as_ref().map(|searched| &searched.query);
        let (searches, most) = (query.is_some(), request.urls_max(&self.node.shared.config));
        let place = visit::begin_stream(key)
            .and_then(|place| visit::take_urls(key, most).map(|()| place))
            .and_then(|place| {
                if let Some(query) = query {
                    self.node.shared.search.admit(query, now)?;
                }
                Ok(place)
            })
            .map_err(|error| Refused::state(Some(id.clone()), error))?;
        let endpoint = if searches { Endpoint::DeepsearchWs } else { Endpoint::CrawlWs };
        let terms = Terms {
            place: place.map(Arc::new),
            id: Ulid::generate(),
            principal: Arc::clone(&self.principal),
            idempotency_key: None,
            endpoint,
            background: None,
            order: OrderName::Completion,
            resumable: true,
            request_id: self.node.request_id(self.peer.request_id.clone()),
        };
        let (node, news) = (Rc::clone(&self.node), Rc::clone(&self.news));
        let reader = Live::start(&node, request, terms, |stream| {
            if let Some(trace) = self.peer.trace.as_deref() {
                stream.join_trace(trace);
            }
            Reader::attach_with(&node, stream, None, news)
        });
        self.join(Attached::new(id, reader, endpoint, now), credit, noted);
        Ok(())
    }

    async fn resume(
        &mut self,
        id: Option<String>,
        stream_id: &str,
        after: Option<u64>,
        now: Instant,
    ) -> Result<Attached, Refused> {
        let id = id.unwrap_or_else(|| stream_id.chars().take(ulid::ULID_LEN).collect());
        self.free_place(&id)?;
        let unknown = |_| ApiError::new(ApiCode::NotFound, "there is no stream of this id");
        let found = match Ulid::from_string(stream_id).map_err(unknown) {
            Ok(ulid) => self.node.find_anywhere(ulid, &self.principal).await,
            Err(error) => Err(error),
        };
        let stream = found.map_err(|error| Refused::state(Some(id.clone()), error))?;
        mirror::catch_up(&stream, after, CATCH_UP).await;
        // Who has the end already gets it once more: that there is nothing else is said by nothing else.
        let after = after.and_then(|seq| stream.with_log(|log| log.resumed(seq)));
        streams::check_readers(&stream).map_err(|error| Refused::state(Some(id.clone()), error))?;
        let reader = Reader::attach_with(&self.node, &stream, after, Rc::clone(&self.news));
        self.node.observe.count(Counter::StreamsResumed);
        // A crawl that waits for a reader may go on.
        self.node.look_at(stream.owner(), stream.id());
        Ok(Attached::new(id, reader, Endpoint::CrawlWs, now))
    }

    fn join(&mut self, attached: Attached, credit: Option<u32>, noted: &mut Option<Noted>) {
        let mut attached = Box::new(attached);
        attached.noted = noted.take();
        if let Some(n) = credit {
            attached.set_credit(&self.node, |credit| credit.grant(n));
        }
        self.streams.push_back(attached);
    }

    fn cancel(&mut self, id: &str) -> Result<(), Refused> {
        let node = Rc::clone(&self.node);
        let named = self.named(id)?;
        // Who wants the end of it wants its summary, whatever stands before that.
        named.set_credit(&node, super::attached::Credit::lift);
        node.cancel(named.stream());
        Ok(())
    }

    async fn add(&mut self, id: &str, urls: &[Text]) -> Result<(), Refused> {
        visit::take_urls(self.peer.key().map(|key| &**key), urls.len())
            .map_err(|error| Refused::state(Some(id.to_owned()), error))?;
        let named = self.named(id)?.stream();
        let place = (named.owner(), named.id());
        match self.node.add(place, urls.into()).await {
            Ok((index, total)) => {
                self.answer(reply::added(id, index, urls.len(), total));
                Ok(())
            }
            Err(why) => {
                let id = Some(id.to_owned());
                let text = why.to_string();
                Err(match why {
                    AddError::Ended(_) => {
                        let error = ApiError::new(ApiCode::ValidationError, text);
                        Refused::message(id, error.field("id", "a stream that runs"))
                    }
                    AddError::TooMany { max, .. } => {
                        let error = ApiError::new(ApiCode::TooManyUrls, text);
                        Refused::message(id, error.limit("urls", max))
                    }
                    AddError::Busy => {
                        let error = ApiError::new(ApiCode::Overloaded, text);
                        Refused::state(id, error.retry_after(Duration::from_secs(1)))
                    }
                })
            }
        }
    }

    /// The stream that the client calls so.
    fn named(&mut self, id: &str) -> Result<&mut Attached, Refused> {
        let found = self.streams.iter_mut().find(|attached| *attached.id == *id);
        found.map(|boxed| &mut **boxed).ok_or_else(|| {
            let text = "no stream of that id is on this socket; it may have ended";
            let error = ApiError::new(ApiCode::ValidationError, text);
            Refused::message(Some(id.to_owned()), error.field("id", "the id of a stream"))
        })
    }

    /// Whether a stream may be called so, and whether one more may be here.
    fn free_place(&self, id: &str) -> Result<(), Refused> {
        let taken = self.streams.iter().any(|attached| *attached.id == *id);
        if taken {
            let text = "a stream of that id is on this socket already";
            let error = ApiError::new(ApiCode::ValidationError, text);
            let error = error.field("id", "an id that no running stream has");
            return Err(Refused::message(Some(id.to_owned()), error));
        }
        let max = self.node.shared.config.ws_streams_max;
        if self.streams.len() >= max {
            let text = format!("{max} streams are on this socket, and no more may be");
            let error = ApiError::new(ApiCode::RateLimited, text);
            let error = error.retry_after(Duration::from_secs(1));
            return Err(Refused::state(Some(id.to_owned()), error));
        }
        Ok(())
    }
}
