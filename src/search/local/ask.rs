//! Questions to the index. A query is a bag of words: nothing in it is syntax, so none can be wrong,
//! and its cost is bounded by the number of its words.

use super::Question;
use super::index::{Fields, Opened, owner_number};
use super::snippet::snippet;
use super::words::analyzer;
use crate::limits::SEARCH_TERMS_MAX;
use crate::search::{Hit, SearchError};
use std::time::Instant;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Value};
use tantivy::{IndexReader, Searcher, TantivyDocument, Term};

/// What a word in the title counts against one in the text.
const TITLE_BOOST: f32 = 3.0;

/// Answers questions, one after the other.
pub(super) struct Asker {
    reader: IndexReader,
    fields: Fields,
}

impl Asker {
    pub(super) fn new(opened: &Opened) -> Self {
        Self { reader: opened.reader.clone(), fields: opened.fields }
    }

    /// Answers a question whose asker still waits.
    pub(super) fn answer(&self, question: &Question) {
        if Instant::now() >= question.deadline || question.to.is_closed() {
            return;
        }
        let hits = self.hits(question).map_err(|error| {
            tracing::error!("the search index can't be read: {error}");
            SearchError::Broken
        });
        // Who has stopped waiting gets no answer.
        let _ = question.to.try_send(hits);
    }

    fn hits(&self, question: &Question) -> tantivy::Result<Vec<Hit>> {
        let terms = terms(&question.query.text);
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        let query = self.query(&terms, question.owner.as_deref());
        let searcher = self.reader.searcher();
        let best = TopDocs::with_limit(question.query.limit.max(1)).order_by_score();
        let found = searcher.search(&query, &best)?;
        let mut hits = Vec::with_capacity(found.len());
        for (_, address) in found {
            if Instant::now() >= question.deadline {
                break;
            }
            hits.push(self.hit(&searcher, address, &terms)?);
        }
        Ok(hits)
    }

    /// Any of the words, in title or text (BM25), of this owner's pages.
    fn query(&self, terms: &[String], owner: Option<&str>) -> BooleanQuery {
        let word = |field: Field, term: &str| -> Box<dyn Query> {
            let term = Term::from_field_text(field, term);
            Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
        };
        let mut any: Vec<(Occur, Box<dyn Query>)> = Vec::with_capacity(2 * terms.len());
        for term in terms {
            let title = BoostQuery::new(word(self.fields.title, term), TITLE_BOOST);
            any.push((Occur::Should, Box::new(title)));
            any.push((Occur::Should, word(self.fields.body, term)));
        }
        let any = BooleanQuery::new(any);
        let Some(owner) = owner else { return any };
        let owner = Term::from_field_u64(self.fields.owner, owner_number(owner));
        let owned = TermQuery::new(owner, IndexRecordOption::Basic);
        let owned = ConstScoreQuery::new(Box::new(owned), 0.0);
        BooleanQuery::new(vec![(Occur::Must, Box::new(any)), (Occur::Must, Box::new(owned))])
    }

    fn hit(
        &self,
        searcher: &Searcher,
        address: tantivy::DocAddress,
        terms: &[String],
    ) -> tantivy::Result<Hit> {
        let document: TantivyDocument = searcher.doc(address)?;
        let text = |field| document.get_first(field).and_then(|value| value.as_str());
        let shown = text(self.fields.shown).unwrap_or_default();
        Ok(Hit {
            url: text(self.fields.url).unwrap_or_default().to_owned(),
            title: text(self.fields.title).unwrap_or_default().to_owned(),
            snippet: snippet(&mut analyzer(), shown, terms),
        })
    }
}

/// The first different words of a query.
fn terms(text: &str) -> Vec<String> {
    let mut terms: Vec<String> = Vec::new();
    let mut analyzer = analyzer();
    let mut stream = analyzer.token_stream(text);
    while terms.len() < SEARCH_TERMS_MAX && stream.advance() {
        let term = &stream.token().text;
        if !terms.contains(term) {
            terms.push(term.clone());
        }
    }
    terms
}
