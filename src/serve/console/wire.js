// The three transports behind one face. A wire carries one stream over one connection:
// `take(text)` gets each event's JSON, `over(why)` the end of the connection; `cut()` ends it.

let apiKey = "";

function headers(more = {}) {
  return apiKey ? { ...more, Authorization: `Bearer ${apiKey}` } : more;
}

/** A refusal as an error with its details. */
class Refused extends Error {
  constructor(status, body, retryAfter = 0) {
    const told = body?.error ?? {};
    super(told.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = told.code ?? "";
    this.details = told.details ?? [];
    /** Whether the same request may work later. */
    this.retryable = told.retryable ?? [408, 429, 503].includes(status);
    /** Seconds. */
    this.retryAfter = retryAfter;
  }
}

/** What an answer of 204 means to somebody who has not read the end. */
const nothingLeft = () => new Refused(204, { error: { message: "The server has nothing behind what is here, and no summary came." } });

async function refusalOf(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {}
  return new Refused(response.status, body, Number(response.headers.get("Retry-After")) || 0);
}

/** What a request is, apart from its transport. */
const paths = { crawl: "/crawl", search: "/deepsearch" };

function openWire(transport, ask, ends) {
  if (transport === "ws") return webSocketWire(ask, ends);
  if (transport === "sse" && !apiKey && canBeQuery(ask)) return eventSourceWire(ask, ends);
  return fetchWire(transport, ask, ends);
}

/** NDJSON; and Server-Sent Events where `EventSource` can't send what is needed. */
function fetchWire(transport, ask, ends) {
  const stop = new AbortController();
  const sse = transport === "sse";
  const accept = sse ? "text/event-stream" : "application/x-ndjson";
  const run = async () => {
    const [path, init] = ask.resume
      ? [`/streams/${ask.resume.stream}/events?after=${ask.resume.after}`, { headers: headers({ Accept: accept }) }]
      : [
          `${paths[ask.mode]}/${sse ? "sse" : "stream"}`,
          {
            method: "POST",
            headers: headers({ Accept: accept, "Content-Type": "application/json" }),
            body: JSON.stringify(ask.body),
          },
        ];
    const response = await fetch(path, { ...init, signal: stop.signal, cache: "no-store" });
    if (!response.ok) throw await refusalOf(response);
    if (response.status === 204) throw nothingLeft();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    await readLines(reader, sse ? sseLines(ends.take) : (line) => line && ends.take(line));
  };
  run().then(
    () => ends.over(null),
    (error) => ends.over(stop.signal.aborted ? null : error),
  );
  return { cut: () => stop.abort(), how: sse ? "SSE by fetch" : "NDJSON by fetch" };
}

/** Hands out whole lines, and lets the page breathe when there are many at once. */
async function readLines(reader, line) {
  let rest = "";
  let since = performance.now();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const each of lines) {
      line(each);
      if (performance.now() - since > 10) {
        await breathe();
        since = performance.now();
      }
    }
  }
  if (rest) line(rest);
}

const breathe = () => new Promise((resolve) => setTimeout(resolve, 0));

function sseLines(take) {
  let data = "";
  return (line) => {
    if (line.startsWith("data: ")) data += line.slice(6);
    else if (line === "" && data) {
      take(data);
      data = "";
    }
  };
}

/** Whether an `EventSource`, which knows addresses alone, can ask for it. */
function canBeQuery(ask) {
  const { headers: fields, follow } = ask.body.options ?? {};
  return Boolean(ask.resume) || (!fields && !follow && queryOf(ask).length < 7000);
}

function queryOf(ask) {
  const { urls = [], options = {}, ...rest } = ask.body;
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...rest, ...options })) query.append(name, String(value));
  for (const url of urls) query.append("url", url);
  return query.toString();
}

function eventSourceWire(ask, ends) {
  const path = ask.resume
    ? `/streams/${ask.resume.stream}/events?after=${ask.resume.after}`
    : `${paths[ask.mode]}/sse?${queryOf(ask)}`;
  const source = new EventSource(path);
  let heard = false;
  let over = false;
  let opened = 0;
  source.onopen = () => {
    opened += 1;
    if (opened > 1) ends.resumed();
  };
  const end = (error) => {
    if (over) return;
    over = true;
    source.close();
    ends.over(error);
  };
  for (const type of ["metadata", "search", "result", "gap", "error", "summary", "progress"]) {
    source.addEventListener(type, (message) => {
      // A lost connection is an `error`, too, but has no data.
      if (message.data === undefined || over) return;
      heard = true;
      ends.take(message.data);
      if (type === "summary" || type === "error") end(null);
    });
  }
  source.onerror = async () => {
    if (over) return;
    if (source.readyState !== EventSource.CLOSED) return ends.retrying();
    // What came before this connection can be resumed; who asks for that learns whether it still can.
    if (heard) return end(null);
    // An EventSource does not say why it was refused: ask once more, to read the refusal.
    const stop = new AbortController();
    try {
      const response = await fetch(path, { signal: stop.signal, headers: { Accept: "text/event-stream" } });
      if (response.status === 204) end(nothingLeft());
      else end(response.ok ? new Error("the connection was lost") : await refusalOf(response));
    } catch (error) {
      end(error);
    }
    stop.abort();
  };
  return { cut: () => end(null), how: "EventSource" };
}

function webSocketWire(ask, ends) {
  const name = "console";
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  // A browser can send no field of its own here: a key goes among the subprotocols, where the server
  // looks for it and never agrees on it.
  const protocols = apiKey ? ["crawl.v1", `fb.key.${apiKey}`] : "crawl.v1";
  let socket;
  try {
    socket = new WebSocket(`${scheme}//${location.host}/crawl/ws`, protocols);
  } catch {
    // A key with characters that no key has.
    queueMicrotask(() => ends.over(new Error("this API key can't be one")));
    return { cut: () => {}, how: "WebSocket" };
  }
  let opened = false;
  let over = false;
  const end = (error) => {
    if (over) return;
    over = true;
    socket.close();
    ends.over(error);
  };
  socket.onopen = () => {
    opened = true;
    const op = ask.resume
      ? { op: "resume", id: name, stream_id: ask.resume.stream, after: ask.resume.after }
      : { op: ask.mode === "search" ? "deepsearch" : "crawl", id: name, data: ask.body };
    socket.send(JSON.stringify(op));
  };
  socket.onmessage = (message) => {
    if (over) return;
    const event = JSON.parse(message.data);
    // An op that was not obeyed has no place in the stream.
    if (event.type === "error" && event.seq === undefined) {
      return end(new Refused(event.error.status, { error: event.error }));
    }
    ends.take(message.data, event);
    if (event.type === "summary" || event.type === "error") end(null);
  };
  socket.onclose = async () => {
    if (opened || over) return end(null);
    // A WebSocket does not say why it was refused: the same request without an upgrade does.
    let why = new Error("no WebSocket to this server");
    try {
      const response = await fetch("/crawl/ws", { headers: headers(), cache: "no-store" });
      if (response.status !== 426) why = await refusalOf(response);
    } catch {}
    end(why);
  };
  return { cut: () => end(null), how: "WebSocket" };
}

/** The same request for a terminal. */
function curlOf(transport, ask) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const accept = transport === "sse" ? ` \\\n  -H 'Accept: text/event-stream'` : "";
  const key = apiKey ? ` \\\n  -H "Authorization: Bearer $API_KEY"` : "";
  return (
    `curl -N ${quote(`${location.origin}${paths[ask.mode]}/stream`)} \\\n` +
    `  -H 'Content-Type: application/json'${accept}${key} \\\n  -d ${quote(JSON.stringify(ask.body))}`
  );
}
