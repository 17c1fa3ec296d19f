"""API section 3 as a function over the events of one stream: `broken(events, urls)` lists what does
not hold. Used on every stream that any test reads. Each event also fits the schema that the server
publishes for it."""

import schemas

DURABLE = {"metadata", "search", "result", "gap", "error", "summary"}
EPHEMERAL = {"progress", "heartbeat"}
PAGE_CODES = set(
    """dns_failed connect_failed connect_timeout tls_failed read_timeout url_timeout body_too_large
    too_many_redirects blocked_egress robots_disallowed host_throttled unsupported_type decode_failed
    http_malformed extract_failed extract_timeout extract_memory cancelled deadline_exceeded
    internal_error""".split()
)
STAGES = "queue pace dns connect tls ttfb body extract_wait extract emit_wait".split()
DOCUMENT = set(
    "title byline published language description site_name image markdown text links word_count".split()
)
GATES = {"approved", "cached", "rejected", "failed", "skipped"}


def broken(events, total, begins=None):
    """What is wrong with a finished stream of `total` URLs; nothing, if the list is empty. A stream
    that finds URLs on its way begins with fewer: `begins`."""
    if not events:
        return ["no events"]
    return [
        *_kinds(events),
        *(wrong for event in events for wrong in schemas.wrong("Event", event)),
        *_sequence(events),
        *_ends(events, total if begins is None else begins),
        *_counts(events, total, total if begins is None else begins),
        *(wrong for event in events if event["type"] == "result" for wrong in _result(event, total)),
    ]


def _kinds(events):
    for event in events:
        kind = event.get("type")
        if kind not in DURABLE | EPHEMERAL:
            yield f"type {kind!r}"
        elif (kind in DURABLE) != ("seq" in event):
            yield f"{kind} {'with' if 'seq' in event else 'without'} seq"


def _sequence(events):
    """Invariant 1: seq is 0, 1, 2, … without holes unless a gap covers them."""
    expected = 0
    for event in events:
        if "seq" not in event:
            continue
        if event["type"] == "gap":
            # The gap stands in the place of the last event that is gone.
            if event["from_seq"] != expected or event["to_seq"] != max(event["seq"] - 1, expected):
                yield f"gap {event['from_seq']}..{event['to_seq']}, expected from {expected}"
        elif event["seq"] != expected:
            yield f"seq {event['seq']} of {event['type']}, expected {expected}"
        expected = event["seq"] + 1


def _ends(events, total):
    """Metadata first; invariant 3: exactly one summary or error, last."""
    first, last = events[0], events[-1]
    if first["type"] != "metadata":
        yield f"begins with {first['type']}"
    elif first["total_urls"] != total:
        yield f"metadata says {first['total_urls']} URLs of {total}"
    kinds = [event["type"] for event in events]
    if kinds.count("metadata") != 1:
        yield f"{kinds.count('metadata')} metadata"
    ends = [kind for kind in kinds if kind in ("summary", "error")]
    if len(ends) != 1 or kinds[-1] != ends[0]:
        yield f"ends {ends}, last is {kinds[-1]}"
    elif last["type"] == "summary" and last["last_seq"] != last["seq"]:
        yield f"last_seq {last['last_seq']} of {last['seq']}"


def _counts(events, total, begins):
    """Invariant 2: one result per index, and sums that are true."""
    found = [event for event in events if event["type"] == "result"]
    indices = sorted(event["index"] for event in found)
    last = events[-1]
    if len(set(indices)) != len(indices):
        yield f"an index twice: {indices}"
    if last["type"] == "error":
        if "completed" in last and last["completed"] != len(found):
            yield f"error says {last['completed']} completed, there are {len(found)} results"
        return
    if indices != list(range(total)):
        yield f"{len(indices)} results for {total} URLs"
    if last["type"] != "summary":
        return
    good = sum(event["result"]["error"] is None for event in found)
    if last["total_urls"] != total:
        yield f"summary says {last['total_urls']} URLs of {total}"
    if last["successful"] + last["failed"] + last["cancelled"] != total:
        yield f"sum of {last}"
    if last["successful"] != good:
        yield f"{last['successful']} successful in the summary, {good} results without error"
    if last["from_cache"] != sum(event["result"]["from_cache"] for event in found):
        yield f"from_cache {last['from_cache']}"
    for n, event in enumerate(found, 1):
        progress = event["progress"]
        if progress["completed"] != n or not max(begins, n) <= progress["total"] <= total:
            yield f"progress {progress} of result {n}"
        begins = progress["total"]


def _result(event, total):
    """One result: either a document or an error, with every field in its range."""
    result, where = event["result"], f"index {event['index']}"
    if not 0 <= event["index"] < total:
        yield f"{where} of {total}"
    if result["gate_decision"] not in GATES:
        yield f"{where}: gate_decision {result['gate_decision']!r}"
    if not 0.0 <= result["quality_score"] <= 1.0:
        yield f"{where}: quality_score {result['quality_score']}"
    error, document = result["error"], result["document"]
    if error is not None:
        if error["code"] not in PAGE_CODES or error["stage"] not in STAGES:
            yield f"{where}: error {error}"
        if not isinstance(error["retryable"], bool) or not error["message"]:
            yield f"{where}: error {error}"
        if document is not None or result["gate_decision"] not in ("rejected", "failed"):
            yield f"{where}: an error, and {result['gate_decision']} or a document"
    elif result["gate_decision"] == "skipped":
        if result["status"] != 0 or document is not None:
            yield f"{where}: skipped, with status {result['status']} or a document"
    elif result["status"] < 100:
        yield f"{where}: neither error nor status"
    if document is not None and not DOCUMENT <= set(document):
        yield f"{where}: the document lacks {DOCUMENT - set(document)}"
    timings = result.get("timings_us", {})
    if any(stage not in STAGES or not 0 <= micros < 3_600_000_000 for stage, micros in timings.items()):
        yield f"{where}: timings {timings}"
    # No part of the time is in no stage: a page's time is the sum of what its stages took.
    if abs(sum(timings.values()) / 1000 - result["processing_time_ms"]) > 1:
        yield f"{where}: {result['processing_time_ms']} ms of {timings}"
