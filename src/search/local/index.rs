//! The index itself: its fields, what is written into it, and what goes to make room.

use super::ledger::Ledger;
use super::words::analyzer;
use super::{Page, Shared};
use crate::limits::{
    INDEX_COMMIT_PAGES, INDEX_SHOWN_BYTES_MAX, INDEX_TEXT_BYTES_MAX, SEARCH_TITLE_BYTES_MAX,
};
use crate::search::answer::{cut, plain};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tantivy::directory::{MmapDirectory, RamDirectory};
use tantivy::merge_policy::LogMergePolicy;
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::{
    Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError,
    Term,
};

/// The writer's buffers, the smallest that the library takes.
const WRITER_BYTES: usize = 15_000_000;
/// Blocks of stored texts that a reader keeps unpacked.
const BLOCKS_KEPT: usize = 16;
/// The analyzer's name in the schema.
const WORDS: &str = "words";
const OTHER_VERSION: &str = "it was made by another version; remove it, and it fills again";
/// Share of deleted pages above which a segment is written anew.
const DELETED_SHARE_MAX: f32 = 0.3;
/// Eighths of its bytes at which the index makes room, and those that it makes room down to.
const FULL_EIGHTHS: u64 = 7;
const ROOMY_EIGHTHS: u64 = 5;

/// Names of the fields in the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    /// Number of the page, by URL and owner.
    page: Field,
    pub(super) owner: Field,
    arrival: Field,
    weight: Field,
    pub(super) url: Field,
    pub(super) title: Field,
    pub(super) body: Field,
    /// The start of the text, for snippets.
    pub(super) shown: Field,
}

/// An index that was opened.
pub(super) struct Opened {
    index: Index,
    pub(super) reader: IndexReader,
    pub(super) fields: Fields,
    home: Home,
}

/// Where an index lies.
enum Home {
    Memory(RamDirectory),
    Disk(PathBuf),
}

impl Home {
    /// Bytes of all its files.
    fn bytes(&self) -> u64 {
        match self {
            Self::Memory(ram) => ram.total_mem_usage() as u64,
            Self::Disk(folder) => {
                let Ok(files) = std::fs::read_dir(folder) else { return 0 };
                let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
                sizes.sum()
            }
        }
    }
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    // No positions: phrases are not asked for, and they would be half of the index.
    let words = TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_index_option(IndexRecordOption::WithFreqs);
    let searched = TextOptions::default().set_indexing_options(words);
    let fields = Fields {
        page: schema.add_u64_field("page", INDEXED | FAST),
        owner: schema.add_u64_field("owner", INDEXED),
        arrival: schema.add_u64_field("arrival", FAST),
        weight: schema.add_u64_field("weight", FAST),
        url: schema.add_text_field("url", STORED),
        title: schema.add_text_field("title", searched.clone().set_stored()),
        body: schema.add_text_field("body", searched),
        shown: schema.add_text_field("shown", STORED),
    };
    (schema.build(), fields)
}

/// Whether the folder has an index that can be used, or could have one; makes nothing and takes no
/// lock.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    match std::fs::metadata(folder) {
        // It will be made, with the folders above it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match folder.parent().filter(|above| !above.as_os_str().is_empty()) {
                Some(above) => check_folder(above),
                None => Ok(()),
            };
        }
        _ => check_folder(folder)?,
    }
    let mapped = MmapDirectory::open(folder).map_err(|error| error.to_string())?;
    if !Index::exists(&mapped).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let index = Index::open(mapped).map_err(|error| error.to_string())?;
    if index.schema() == schema().0 { Ok(()) } else { Err(OTHER_VERSION.to_owned()) }
}

/// Whether the path, or the first that there is above it, is a folder.
fn check_folder(path: &Path) -> Result<(), String> {
    let there = path.ancestors().find_map(|above| std::fs::metadata(above).ok());
    match there {
        Some(found) if !found.is_dir() => Err("not a folder".to_owned()),
        _ => Ok(()),
    }
}

/// Opens the index in a folder, or makes one.
pub(super) fn open(folder: Option<&Path>) -> Result<Opened, String> {
    let (schema, fields) = schema();
    let told = |error: TantivyError| match error {
        TantivyError::SchemaError(_) => OTHER_VERSION.to_owned(),
        other => other.to_string(),
    };
    let (index, home) = match folder {
        None => {
            let ram = RamDirectory::create();
            let index = Index::create(ram.clone(), schema, IndexSettings::default());
            (index.map_err(told)?, Home::Memory(ram))
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|error: io::Error| error.to_string())?;
            let mapped = MmapDirectory::open(folder).map_err(|error| error.to_string())?;
            (Index::open_or_create(mapped, schema).map_err(told)?, Home::Disk(folder.to_owned()))
        }
    };
    index.tokenizers().register(WORDS, analyzer());
    let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
    let reader = reader.doc_store_cache_num_blocks(BLOCKS_KEPT).try_into().map_err(told)?;
    Ok(Opened { index, reader, fields, home })
}

/// What is read of a document's JSON.
#[derive(Deserialize)]
struct Read {
    title: Option<String>,
    description: Option<String>,
    markdown: Option<String>,
    text: Option<String>,
}

/// The index's one writer.
pub(super) struct Writer {
    index: Index,
    /// Made with the first page: its threads and buffers are not free.
    writer: Option<IndexWriter>,
    reader: IndexReader,
    fields: Fields,
    home: Home,
    ledger: Ledger,
    bytes_max: u64,
    uncommitted: usize,
    /// Nothing is added until there is room again.
    over: bool,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(opened: Opened, bytes_max: u64, shared: Arc<Shared>) -> Result<Self, String> {
        let Opened { index, reader, fields, home } = opened;
        if matches!(home, Home::Disk(_)) {
            // Another process that has it says so now, and not with the first page.
            let writer = index.writer_with_num_threads::<TantivyDocument>(1, WRITER_BYTES);
            drop(writer.map_err(|error| error.to_string())?);
        }
        let mut ledger = Ledger::default();
        restore(&reader, &mut ledger).map_err(|error| error.to_string())?;
        let writer = None;
        let (uncommitted, over) = (0, false);
        let made = Self {
            index,
            writer,
            reader,
            fields,
            home,
            ledger,
            bytes_max,
            uncommitted,
            over,
            shared,
        };
        made.publish();
        Ok(made)
    }

    /// Takes a page in; it is found after the next commit.
    pub(super) fn add(&mut self, page: &Page) {
        let bytes = page.document.len() as u64;
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.over {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Err(error) = self.try_add(page) {
            self.fail(&error);
        }
    }

    fn try_add(&mut self, page: &Page) -> tantivy::Result<()> {
        let mut json = page.document.to_vec();
        let Ok(read) = simd_json::serde::from_slice::<Read>(&mut json) else { return Ok(()) };
        drop(json);
        let text = read.text.or(read.markdown).unwrap_or_default();
        let text = cut(&text, INDEX_TEXT_BYTES_MAX);
        let title = plain(&read.title.unwrap_or_default(), SEARCH_TITLE_BYTES_MAX);
        if text.trim().is_empty() && title.is_empty() {
            return Ok(());
        }
        let shown = match cut(text, INDEX_SHOWN_BYTES_MAX) {
            "" => read.description.as_deref().unwrap_or_default(),
            start => start,
        };
        let fields = self.fields;
        let (number, owner) = (number_of(&page.owner, &page.url), owner_number(&page.owner));
        let weight = (text.len() + title.len() + page.url.len() + shown.len()) as u64;
        let arrival = self.ledger.add(number, weight);
        let mut document = TantivyDocument::default();
        document.add_u64(fields.page, number);
        document.add_u64(fields.owner, owner);
        document.add_u64(fields.arrival, arrival);
        document.add_u64(fields.weight, weight);
        document.add_text(fields.url, &page.url);
        document.add_text(fields.title, &title);
        document.add_text(fields.body, text);
        document.add_text(fields.shown, shown);
        let page_field = self.fields.page;
        let writer = self.writer()?;
        writer.delete_term(Term::from_field_u64(page_field, number));
        writer.add_document(document)?;
        self.uncommitted += 1;
        self.shared.dirty.store(true, Ordering::Relaxed);
        self.shared.pages.store(self.ledger.len() as u64, Ordering::Relaxed);
        if self.uncommitted >= INDEX_COMMIT_PAGES {
            self.try_commit()?;
        }
        Ok(())
    }

    /// Makes findable what has come, and makes room where there is too little.
    pub(super) fn commit(&mut self) {
        if (self.uncommitted > 0 || self.over)
            && let Err(error) = self.try_commit()
        {
            self.fail(&error);
        }
    }

    fn try_commit(&mut self) -> tantivy::Result<()> {
        self.uncommitted = 0;
        self.shared.dirty.store(false, Ordering::Relaxed);
        self.writer()?.commit()?;
        self.reader.reload()?;
        let used = self.home.bytes();
        if used > self.bytes_max / 8 * FULL_EIGHTHS {
            self.make_room(used)?;
        }
        self.over = self.home.bytes() > self.bytes_max;
        // The next tick looks again whether merges have made room.
        self.shared.dirty.fetch_or(self.over, Ordering::Relaxed);
        self.publish();
        Ok(())
    }

    /// Lets the oldest pages go, in the proportion in which the index is too large, and writes the
    /// segments that held them anew, one after the other.
    fn make_room(&mut self, used: u64) -> tantivy::Result<()> {
        let keep = u128::from(self.ledger.weight())
            * u128::from(self.bytes_max / 8 * ROOMY_EIGHTHS)
            / u128::from(used.max(1));
        let gone = self.ledger.shrink_to(u64::try_from(keep).unwrap_or(u64::MAX));
        self.shared.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        let page_field = self.fields.page;
        let writer = self.writer()?;
        for page in gone {
            writer.delete_term(Term::from_field_u64(page_field, page));
        }
        writer.commit()?;
        let segments = self.index.searchable_segment_metas()?;
        for segment in segments.iter().filter(|segment| segment.num_deleted_docs() > 0) {
            // A segment that a merge of the library's own has taken is written anew by that.
            let _ = self.writer()?.merge(&[segment.id()]).wait();
        }
        self.reader.reload()?;
        let _ = self.writer()?.garbage_collect_files().wait();
        Ok(())
    }

    fn writer(&mut self) -> tantivy::Result<&mut IndexWriter> {
        if self.writer.is_none() {
            let writer = self.index.writer_with_num_threads(1, WRITER_BYTES)?;
            let mut policy = LogMergePolicy::default();
            policy.set_del_docs_ratio_before_merge(DELETED_SHARE_MAX);
            writer.set_merge_policy(Box::new(policy));
            self.writer = Some(writer);
        }
        Ok(self.writer.as_mut().expect("made above"))
    }

    fn publish(&self) {
        self.shared.pages.store(self.ledger.len() as u64, Ordering::Relaxed);
        self.shared.bytes.store(self.home.bytes(), Ordering::Relaxed);
    }

    /// A disk that is full, or a bug: the index is given up, the server goes on.
    fn fail(&mut self, error: &TantivyError) {
        if !self.shared.broken.swap(true, Ordering::Relaxed) {
            tracing::error!("the search index can't be written any more: {error}");
        }
        self.shared.dirty.store(false, Ordering::Relaxed);
        self.over = true;
    }
}

/// The pages of an index that is there already.
fn restore(reader: &IndexReader, ledger: &mut Ledger) -> tantivy::Result<()> {
    let mut pages = Vec::new();
    for segment in reader.searcher().segment_readers() {
        let fast = segment.fast_fields();
        let (page, arrival, weight) =
            (fast.u64("page")?, fast.u64("arrival")?, fast.u64("weight")?);
        pages.extend(
            segment.doc_ids_alive().filter_map(|doc| {
                Some((arrival.first(doc)?, page.first(doc)?, weight.first(doc)?))
            }),
        );
    }
    pages.sort_unstable();
    for (arrival, page, weight) in pages {
        ledger.restore(arrival, page, weight);
    }
    Ok(())
}

/// What a page is known by: two owners' pages of one URL are two pages.
fn number_of(owner: &str, url: &str) -> u64 {
    hash(&[owner, url])
}

/// What an owner is known by.
pub(super) fn owner_number(owner: &str) -> u64 {
    hash(&[owner])
}

fn hash(parts: &[&str]) -> u64 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    u64::from_be_bytes(*digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
}
