//! Every fixed maximum in one place, with the relations between them checked when they compile.
//!
//! What an operator may change is a setting in `config.rs`; a setting's upper bound stands here.

use std::time::Duration;

/// Bytes of a request head (request line and fields), server side; above it 431 or 414.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a request head; above it 431.
pub const REQUEST_FIELDS_MAX: usize = 100;
/// Bytes of a request target; above it 414 (RFC 9110 §15.5.15).
pub const REQUEST_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one chunk-size line with its extensions (RFC 9112 §7.1.1).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of a chunked body's trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Requests that may wait, parsed or not, behind the one in progress on one connection, in bytes.
pub const PIPELINE_BYTES_MAX: usize = 64 * 1024;

/// Empty lines (CRLF) that a server skips before a request line (RFC 9112 §2.2).
pub const REQUEST_EMPTY_LINES_MAX: usize = 2;
/// Bytes of a request line without its CRLF: a target of full length, a method and a version.
pub const REQUEST_LINE_BYTES_MAX: usize = REQUEST_TARGET_BYTES_MAX + 64;
/// Names that an open server may go by.
pub const HOSTS_NAMED_MAX: usize = 64;
/// Bytes of a host name in a `Host` field or an absolute target (RFC 1035 §2.3.4).
pub const HOST_BYTES_MAX: usize = 255;
/// Bytes by which chunk-size lines may outweigh the data that they announce, over a whole body.
pub const CHUNK_OVERHEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an unread request body that are read away to keep a connection; more closes it.
pub const DRAIN_BYTES_MAX: u64 = 256 * 1024;
/// Bytes that are read and dropped after the last answer, so that no RST destroys it.
pub const LINGER_BYTES_MAX: u64 = 1024 * 1024;
/// Slowest upload that is waited for, in bytes per second, once the body timeout has passed.
pub const BODY_BYTES_PER_S_MIN: u64 = 4 * 1024;
/// Bytes of a body's JSON up to which a loop reads it itself; a longer one is read beside it.
pub const READ_HERE_BYTES_MAX: usize = 64 * 1024;
/// The same of bodies that are read more than once: a job's, and an agent's call.
pub const READ_TWICE_HERE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body above which it waits for those of its kind, and not before shorter ones.
pub const READING_LONG_BYTES: usize = 1024 * 1024;
/// Bodies that may wait to be read beside the loops; above it `overloaded`.
pub const READING_SHORT_MAX: usize = 256;
/// The same of those above [`READING_LONG_BYTES`].
pub const READING_LONG_MAX: usize = 32;

/// Bytes of an origin's response head; above it `http_malformed`.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of an origin's response head.
pub const RESPONSE_FIELDS_MAX: usize = 128;
/// Interim (1xx) responses before the final one.
pub const INTERIM_RESPONSES_MAX: usize = 8;
/// Redirect hops, upper bound of `options.redirects`.
pub const REDIRECTS_MAX: u32 = 20;
/// Bytes of one URL, given or from a `Location` field.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// Upper bound of `max_body_bytes`, per page and after decoding.
pub const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Decoded bytes per encoded byte above which a body is taken for a decompression bomb, once it
/// has passed [`DECODE_RATIO_FREE_BYTES`].
pub const DECODE_RATIO_MAX: u64 = 200;
/// Decoded bytes that are free of the ratio check, because tiny bodies compress without bounds.
pub const DECODE_RATIO_FREE_BYTES: u64 = 1024 * 1024;
/// Encoded bytes that a body may have above `max_body_bytes`: a body that does not compress grows a
/// little, and one that is mostly empty frames ends here.
pub const ENCODED_SLACK_BYTES: u64 = 64 * 1024;
/// Binary logarithm of the largest zstd window: 8 MiB (RFC 9659 §3).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes that are decoded at most before the loop does something else: about 100 µs of work.
pub const DECODE_TURN_BYTES: usize = 64 * 1024;
/// Stacked content codings (`Content-Encoding: gzip, br`), innermost first.
pub const CONTENT_CODINGS_MAX: usize = 2;

/// Bytes of a robots.txt that count (RFC 9309 §2.5); the rest is not read.
pub const ROBOTS_BYTES_MAX: usize = 500 * 1024;
/// Bytes of one of its patterns; a longer `Disallow` counts as far as that, a longer `Allow` not at all.
pub const ROBOTS_PATTERN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a robots.txt, or of a path against its rules, between two turns of the loop.
pub const ROBOTS_TURN_BYTES: usize = 32 * 1024;
/// Redirects from one robots.txt to the next (RFC 9309 §2.3.1.2).
pub const ROBOTS_REDIRECTS_MAX: u32 = 5;
/// Bytes of all read robots.txt files of the process; above it some are forgotten and asked again.
pub const ROBOTS_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a robots.txt is good for (RFC 9309 §2.4).
pub const ROBOTS_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a host that is in trouble over its robots.txt is left alone, before it is asked again.
pub const ROBOTS_RETRY: Duration = Duration::from_secs(30);
/// The same for a host that can't be reached at all: it may be back at any moment.
pub const ROBOTS_RECONNECT: Duration = Duration::from_secs(3);
/// Longest time for a robots.txt, redirects and all.
pub const ROBOTS_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `Crawl-delay` that is kept; a longer one counts as this one.
pub const CRAWL_DELAY_MAX: Duration = Duration::from_secs(3600);
/// Longest `Retry-After` that holds a host back; a longer one counts as this one.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Fetches of one core that may wait for a host's turn or its robots.txt at once; above it they end
/// with `host_throttled`.
pub const TURNS_WAITING_MAX: usize = 16_384;
/// Hosts that the process keeps times for while nothing is under way to them.
pub const HOSTS_MAX: usize = 65_536;

/// Bytes of a response's fields over HTTP/2, counted as RFC 9113 §6.5.2 does.
pub const H2_HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of one response that an origin may send over HTTP/2 before they are read.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of all responses of one HTTP/2 connection that may be sent before they are read.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Frames of an HTTP/2 body that may be empty.
pub const H2_EMPTY_FRAMES_MAX: usize = 1000;

/// Names that one core's DNS cache holds.
pub const DNS_CACHE_ENTRIES_MAX: usize = 4096;
/// Names that one core waits for at once; above it the fetch fails with `dns_failed`.
pub const DNS_FLIGHTS_MAX: usize = 4096;
/// Look-ups that the control thread makes at once; more wait, and who asks for them takes turns.
pub const DNS_LOOKUPS_MAX: usize = 1024;
/// The same for one stream: names of a zone that never answers hold no more places than these.
pub const DNS_LOOKUPS_PER_OWNER_MAX: usize = 32;
/// Addresses of one name that are tried.
pub const DNS_ADDRESSES_MAX: usize = 6;
/// Shortest and longest time in seconds that an answer is kept, whatever its TTL.
pub const DNS_TTL_MIN_S: u64 = 1;
/// See [`DNS_TTL_MIN_S`].
pub const DNS_TTL_MAX_S: u64 = 3600;

/// Readers of one stream or job at a time; above it `rate_limited`. Each is looked at for every event.
pub const READERS_PER_STREAM_MAX: usize = 64;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// URLs of one stream, upper bound of `urls_max`.
pub const URLS_PER_STREAM_MAX: usize = 10_000;
/// URLs of one job, upper bound of `jobs.urls_max`.
pub const URLS_PER_JOB_MAX: usize = 200_000;
/// Milliseconds that a stream may be given.
pub const DEADLINE_MS_MAX: u64 = 3_600_000;
/// Seconds that a job may be given, by `jobs.deadline_s` and by its request.
pub const JOB_DEADLINE_S_MAX: u64 = 2_592_000;
/// Jobs on one page of `GET /jobs`.
pub const JOBS_LISTED_MAX: usize = 100;
/// Times that a job's page is begun again after the node that worked on it was lost; then it is given
/// up. More than where nodes are killed every few seconds for other reasons a page will meet by chance.
pub const JOB_TAKEOVERS_MAX: u64 = 6;
/// Bytes of a webhook's URL.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2048;
/// Bytes of a webhook's secret; the least is what makes a guess hopeless.
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 256;
/// See [`WEBHOOK_SECRET_BYTES_MAX`].
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 16;
/// Webhooks of one process that are being delivered at a time.
pub const WEBHOOKS_FLYING_MAX: usize = 16;
/// Longest pause between two attempts to deliver a webhook.
pub const WEBHOOK_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Concurrent fetches of one stream, upper bound of `options.concurrency`.
pub const CONCURRENCY_MAX: u32 = 256;
/// Extra request header fields that a client may add to its fetches.
pub const FETCH_HEADERS_MAX: usize = 32;
/// Bytes of those fields together.
pub const FETCH_HEADERS_BYTES_MAX: usize = 8 * 1024;

/// Links between a page and the URLs of its request, upper bound of `options.follow.depth`.
pub const FOLLOW_DEPTH_MAX: u8 = 20;
/// Patterns of `options.follow.include` and of `exclude`, each.
pub const FOLLOW_GLOBS_MAX: usize = 32;
/// Bytes of one of them.
pub const FOLLOW_GLOB_BYTES_MAX: usize = 256;
/// Links of one page that are looked at.
pub const FOLLOW_LINKS_MAX: usize = 2_000;
/// Bytes of a URL that is followed.
pub const FOLLOW_URL_BYTES_MAX: usize = 2 * 1024;
/// Bytes of its query.
pub const FOLLOW_QUERY_BYTES_MAX: usize = 512;
/// Segments of its path.
pub const FOLLOW_SEGMENTS_MAX: usize = 16;
/// How often a segment may stand in one path.
pub const FOLLOW_SEGMENT_REPEATS_MAX: usize = 2;
/// Queries that are followed for one path.
pub const FOLLOW_QUERIES_PER_PATH_MAX: usize = 50;
/// Pages of a host that was only met on the way, at least; above it a quarter of `max_pages`.
pub const FOLLOW_HOST_PAGES_MIN: usize = 10;
/// Hosts of one request whose sitemaps are read.
pub const SITEMAP_HOSTS_MAX: usize = 8;
/// Sitemap files of one host, indexes included.
pub const SITEMAP_FILES_MAX: usize = 16;
/// Bytes of one sitemap, decoded; of a longer one nothing is read.
pub const SITEMAP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Pages that one sitemap may name (sitemaps.org).
pub const SITEMAP_URLS_MAX: usize = 50_000;
/// Bytes of a sitemap that a loop reads itself; a longer one is read beside it.
pub const SITEMAP_HERE_BYTES_MAX: usize = 8 * 1024;
/// Longest time for one sitemap.
pub const SITEMAP_TIMEOUT: Duration = Duration::from_secs(15);
/// `Sitemap` lines of one robots.txt that count.
pub const ROBOTS_SITEMAPS_MAX: usize = 16;

/// Bytes of a search query.
pub const SEARCH_QUERY_BYTES_MAX: usize = 1024;
/// Hits of one deepsearch, upper bound of its `limit`.
pub const SEARCH_HITS_MAX: usize = 100;
/// Different words of a query that count.
pub const SEARCH_TERMS_MAX: usize = 16;
/// Bytes of a search provider's answer, decoded.
pub const SEARCH_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a hit's title.
pub const SEARCH_TITLE_BYTES_MAX: usize = 300;
/// Bytes of a hit's snippet.
pub const SEARCH_SNIPPET_BYTES_MAX: usize = 300;
/// Pages that may wait for the local index, and their bytes; more are dropped and counted.
pub const INDEX_QUEUE_MAX: usize = 1024;
/// See [`INDEX_QUEUE_MAX`].
pub const INDEX_QUEUE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Questions that may wait for the local index; above it `search_unavailable`.
pub const INDEX_QUESTIONS_MAX: usize = 256;
/// Bytes of a document's JSON; a larger one is not indexed.
pub const INDEX_DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of a page's text that are searched.
pub const INDEX_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a page's text that snippets are cut from.
pub const INDEX_SHOWN_BYTES_MAX: usize = 8 * 1024;
/// Pages after which the local index is committed without waiting for its time.
pub const INDEX_COMMIT_PAGES: usize = 512;

/// Bytes of linear memory that one guest instance may have.
pub const GUEST_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of HTML that a guest is given, upper bound of `extract.html_bytes_max`.
pub const HTML_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of stack that a guest may use; the thread it runs on needs twice that.
pub const GUEST_STACK_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an extractor module.
pub const GUEST_MODULE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of JSON that a guest may answer.
pub const GUEST_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of one WebSocket message from a client.
pub const WS_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of unfinished WebSocket messages that one core gathers; above it whose message grows is closed
/// with 1013. Some messages of full length fit.
pub const WS_GATHERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a compressed message may inflate to before the loop does something else.
pub const WS_INFLATE_TURN_BYTES: usize = 64 * 1024;
/// Compressed bytes that are inflated at a time: DEFLATE makes 1032 times as many of them at most.
pub const WS_INFLATE_PIECE_BYTES: usize = 128;
/// Fragments of one WebSocket message before the frame that ends it, which some senders leave
/// empty: 4 MiB in pieces of 64 bytes and an empty end are one case of the conformance suite.
pub const WS_FRAGMENTS_MAX: usize = 65_536;
/// Bytes of a WebSocket control frame's payload (RFC 6455 §5.5).
pub const WS_CONTROL_BYTES_MAX: usize = 125;
/// Bytes of control frames that wait to be sent on one WebSocket; above it only the newest pong is
/// kept (RFC 6455 §5.5.3), so that a flood of pings can't grow memory.
pub const WS_CONTROL_BACKLOG_BYTES_MAX: usize = 4 * 1024;
/// Extensions that one WebSocket handshake may offer.
pub const WS_OFFERS_MAX: usize = 16;
/// Final DEFLATE blocks within one compressed WebSocket message: each costs a new inflate state.
pub const WS_FINAL_BLOCKS_MAX: usize = 16;

/// Bytes of the name that a client gives a stream on its WebSocket.
pub const WS_ID_BYTES_MAX: usize = 128;
/// Upper bound of `ws.streams_max`.
pub const WS_STREAMS_MAX: usize = 1024;
/// Results that a client may ask for in one `credit`.
pub const WS_CREDIT_MAX: u32 = 1_000_000;

/// URLs of one call of an agent's tool: its answer comes as one piece.
pub const MCP_URLS_MAX: usize = 100;
/// Bytes of pages in the answer to an agent's call; what does not fit is cut off, and said. Clients
/// take events of 1 MiB, and what is told of each page beside its text has to fit, too.
pub const MCP_ANSWER_BYTES_MAX: usize = 640 * 1024;
/// Bytes of a call of `crawl` or `search`; one of `extract` has a page in it.
pub const MCP_CALL_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of any other JSON-RPC message.
pub const MCP_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Depth to which a JSON-RPC message may be nested.
pub const MCP_DEPTH_MAX: usize = 64;
/// Bytes of a JSON-RPC request's id.
pub const MCP_ID_BYTES_MAX: usize = 256;

/// How often a core's latency counts become an interval; what `/latency?window=` is coarse by.
pub const LATENCY_INTERVAL: Duration = Duration::from_secs(5);
/// How long intervals are told apart; the longest `/latency?window=`.
pub const LATENCY_RING_SPAN: Duration = Duration::from_secs(600);
/// Bytes of packed intervals that one core keeps; above it the oldest are no longer told apart.
pub const LATENCY_RING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Records of one stream's flight recorder; 16 bytes each.
pub const TRACE_RECORDS_MAX: usize = 4096;
/// Bytes of an `X-Request-ID`.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Bytes of a PROXY protocol header, its extensions (certificates among them) included.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
/// Proxies that are looked through in `X-Forwarded-For` and `Forwarded`.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// API keys of one keys file: each request's key is compared with every one of them.
pub const API_KEYS_MAX: usize = 1024;
/// Bytes of a keys file.
pub const API_KEYS_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Client addresses whose request rate is known at a time; some 40 bytes each.
pub const RATED_ADDRESSES_MAX: usize = 65_536;
/// Audit lines that may wait for their thread; above it they are dropped and counted.
pub const AUDIT_LINES_MAX: usize = 4096;
/// URLs of one request that its audit line names.
pub const AUDIT_URLS_MAX: usize = 8;
/// Origins that may be allowed cross-origin requests.
pub const CORS_ORIGINS_MAX: usize = 64;

/// Letters that may wait for Redis; above it there is no Redis for whoever comes.
pub const REDIS_LETTERS_MAX: usize = 4096;
/// Letters that Redis is asked about at a time.
pub const REDIS_FLIGHTS_MAX: usize = 256;
/// Bytes of pages that may wait to be stored in Redis; above it they are not.
pub const REDIS_PENDING_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Spans that may wait to be exported before the exporter takes them; above it they are dropped.
pub const SPANS_QUEUED_MAX: usize = 2048;
/// Spans that the exporter holds while the collector does not take them.
pub const SPANS_PENDING_MAX: usize = 4096;
/// Spans of one message to the collector.
pub const SPANS_PER_MESSAGE_MAX: usize = 512;

/// I/O vectors of one gather write (Linux: `IOV_MAX` is 1024).
pub const IOV_MAX: usize = 1024;

const _: () = {
    assert!(REQUEST_TARGET_BYTES_MAX < REQUEST_HEAD_BYTES_MAX, "a target fits in a head");
    assert!(REQUEST_LINE_BYTES_MAX < REQUEST_HEAD_BYTES_MAX, "a request line fits in a head");
    assert!(REQUEST_HEAD_BYTES_MAX <= PIPELINE_BYTES_MAX, "a whole head fits behind a request");
    assert!(URL_BYTES_MAX <= RESPONSE_HEAD_BYTES_MAX, "a Location fits in a response head");
    assert!(INDEX_SHOWN_BYTES_MAX <= INDEX_TEXT_BYTES_MAX, "what is shown is searched");
    assert!(INDEX_DOCUMENT_BYTES_MAX <= INDEX_QUEUE_BYTES_MAX, "every page that is taken fits");
    assert!(SEARCH_HITS_MAX <= URLS_PER_STREAM_MAX, "every hit can be crawled");
    assert!(URL_BYTES_MAX <= ROBOTS_PATTERN_BYTES_MAX, "a rule can name every URL");
    assert!(ROBOTS_BYTES_MAX as u64 <= BODY_BYTES_MAX, "a robots.txt can be fetched");
    assert!(H2_STREAM_WINDOW_BYTES <= H2_CONNECTION_WINDOW_BYTES, "one response alone has room");
    assert!(HTML_BYTES_MAX * 2 <= GUEST_MEMORY_BYTES_MAX, "a page and its tree have room");
    assert!(WS_MESSAGE_BYTES_MAX * 2 <= WS_GATHERED_BYTES_MAX, "two messages may arrive at once");
    assert!(WS_CONTROL_BYTES_MAX * 2 < WS_CONTROL_BACKLOG_BYTES_MAX, "a ping and a close fit");
    assert!(GUEST_OUTPUT_BYTES_MAX <= GUEST_MEMORY_BYTES_MAX, "an answer lies in guest memory");
    assert!(URLS_PER_STREAM_MAX < u16::MAX as usize, "a flight record names a URL in 16 bits");
    assert!(MCP_URLS_MAX <= URLS_PER_STREAM_MAX, "an agent's call is a stream");
    assert!(HTML_BYTES_MAX as u64 <= BODY_BYTES_MAX, "what is extracted was fetched");
    assert!(SPANS_PER_MESSAGE_MAX <= SPANS_PENDING_MAX, "a whole message may wait");
};
