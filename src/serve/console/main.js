// The page: one stream at a time, over as many connections as the reader likes.

let ledger = new Ledger();
let wire = null;
let current = null;
let state = "idle";
let drawing = false;
/** For tests: events, how often the page was drawn, and the longest time in ms from an event to the
 * page's next chance to draw it. */
const frames = { drawn: 0, events: 0, longest: 0 };

const form = new Form();
const eventList = new EventList($("events"), (row) => showDetail($("detail"), row));
const latency = new Latency();
const gauges = new Gauges();

const STATES = {
  idle: ["idle", "idle"],
  open: ["connecting", "live"],
  live: ["live", "live"],
  retry: ["reconnecting", "warn"],
  cut: ["cut", "warn"],
  done: ["complete", "good"],
  failed: ["failed", "bad"],
};

/** What a screen reader is told: the states, and how it ended, not every event. */
function say(text) {
  if ($("said").textContent !== text) $("said").textContent = text;
}

function setState(next) {
  state = next;
  const pill = $("state");
  [pill.textContent, pill.dataset.state] = STATES[next];
  say(ledger.over ? `${STATES[next][0]}. ${ledger.proof()[1]}` : STATES[next][0]);
  const running = ["open", "live", "retry"].includes(state);
  $("cut").disabled = !running;
  $("resume").disabled = !(state === "cut" && ledger.stream && !ledger.over);
  $("cancel").disabled = !(ledger.stream && !ledger.over);
  $("start").textContent = running ? "Start anew" : "Start";
}

function alertWith(error, kind = "") {
  const box = $("alert");
  box.hidden = !error;
  box.dataset.kind = kind;
  if (!error) return box.replaceChildren();
  const help = {
    not_found: current?.mode === "search" ? "This server has no search." : "It may have ended longer ago than its resume window.",
    search_unavailable: "No search engine answers; an operator sets one up.",
    authentication_error: "Enter an API key at the top.",
    forbidden: "The key lacks a scope, or this page's origin is not allowed (cors.origins).",
    rate_limited: "Too much at a time; wait a moment.",
  }[error.code];
  const lines = (error.details ?? []).map(({ field, expected }) => h("li", {}, h("code", {}, field), `: ${expected}`));
  box.replaceChildren(
    ...[h("strong", {}, error.code ? `${error.code}: ` : ""), error.message, help ? ` ${help}` : "", lines.length ? h("ul", {}, lines) : null].filter((part) => part !== null),
  );
}

/** Draws once a frame, however many events came. */
function draw() {
  if (drawing) return;
  drawing = true;
  const asked = performance.now();
  const seen = !document.hidden;
  requestAnimationFrame(() => {
    drawing = false;
    frames.drawn += 1;
    // A tab that nobody looks at is drawn when somebody does.
    if (seen) frames.longest = Math.max(frames.longest, performance.now() - asked);
    const all = $("ephemeral").checked;
    const rows = all ? ledger.events : ledger.events.filter((row) => row.seq !== null);
    eventList.show(rows, $("follow").checked && !ledger.over ? true : false);
    $("empty").hidden = rows.length > 0;
    $("shown").textContent = rows.length ? `${count(rows.length)} events` : "";
    $("stream-id").textContent = ledger.stream;
    const [kind, text] = ledger.proof();
    $("proof").dataset.state = kind;
    if ($("proof").textContent !== text) $("proof").textContent = ledger.connections ? text : $("proof").textContent;
    drawTiles();
  });
}

function drawTiles() {
  const done = ledger.good + ledger.failed;
  const spent = ((ledger.ended ?? performance.now()) - ledger.began) / 1000;
  const first = ledger.firstResultAt === null ? "–" : micros((ledger.firstResultAt - ledger.began) * 1000);
  const tiles = [
    ["Pages", ledger.stream ? count(done) : "–", ledger.stream ? `of ${count(ledger.total)}` : ""],
    ["Documents", ledger.stream ? count(ledger.good) : "–", ""],
    ["Failed", ledger.stream ? count(ledger.failed) : "–", ""],
    ["First result", first, ""],
    ["Pages a second", done ? three(done / Math.max(spent, 0.001)) : "–", ""],
    ["From origins", ledger.stream ? bytes(ledger.bytes) : "–", ""],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", h("small", {}, note)))));
  const bar = $("progress");
  bar.setAttribute("aria-valuemax", ledger.total || 1);
  bar.setAttribute("aria-valuenow", done);
  bar.firstElementChild.style.width = `${ledger.total ? (done / ledger.total) * 100 : 0}%`;
}

/** Opens a connection for the current request, from its beginning or behind what is here. */
function connect(resume) {
  const mine = ledger;
  mine.connections += 1;
  let told = null;
  const ends = {
    take(text, parsed) {
      if (ledger !== mine || wire !== told) return;
      mine.add(text, parsed);
      frames.events += 1;
      if (state !== "live") setState("live");
      if (mine.over) {
        setState(mine.error ? "failed" : "done");
        // What the stream has changed is in the plots when it ends.
        poll.anew();
      }
      draw();
    },
    retrying() {
      if (ledger === mine && wire === told && !mine.over) setState("retry");
    },
    resumed() {
      if (ledger === mine && wire === told) mine.connections += 1;
    },
    over(error) {
      if (ledger !== mine || wire !== told) return;
      wire = null;
      if (mine.over) setState(mine.error ? "failed" : "done");
      else if (error instanceof Refused || !mine.stream) {
        alertWith(error ?? new Error("the connection ended before the first event"));
        setState(mine.stream && error?.retryable ? "cut" : "failed");
      } else if (resume && mine.next === resume.after + 1) {
        setState("cut");
        alertWith(new Error("The server can't be reached, or ended the connection. Try Resume again in a while."), "note");
      } else {
        setState("cut");
        alertWith(new Error("The connection ended early. The stream goes on without it: press Resume."), "note");
      }
      if (mine.error) alertWith(mine.error);
      draw();
    },
  };
  setState("open");
  told = openWire(current.transport, { ...current, resume }, ends);
  wire = told;
}

function start() {
  const missing = form.missing();
  if (missing) {
    alertWith(new Error(missing));
    form.first().focus();
    return;
  }
  alertWith(null);
  const old = wire;
  wire = null;
  old?.cut();
  if (ledger.stream && !ledger.over) cancel(ledger.stream);
  ledger = new Ledger();
  current = { ...form.ask(), transport: form.transport };
  eventList.reset(ledger);
  showDetail($("detail"), null);
  connect(null);
  draw();
}

function cut() {
  const old = wire;
  wire = null;
  ledger.cuts += 1;
  old?.cut();
  setState(ledger.stream ? "cut" : "idle");
  draw();
}

async function cancel(stream) {
  try {
    const response = await fetch(`/streams/${stream}`, { method: "DELETE", headers: headers() });
    if (!response.ok && stream === ledger.stream) alertWith(await refusalOf(response));
  } catch (error) {
    alertWith(error);
  }
}

/** What was left when the connection was cut still has to be read: its summary proves the end. */
async function cancelled() {
  const { stream } = ledger;
  await cancel(stream);
  if (state === "cut" && stream === ledger.stream) resume();
}

function resume() {
  alertWith(null);
  connect({ stream: ledger.stream, after: ledger.next - 1 });
}

function setKey(key) {
  apiKey = key.trim();
  try {
    if (apiKey) sessionStorage.setItem("forebay-key", apiKey);
    else sessionStorage.removeItem("forebay-key");
  } catch {}
  $("key").value = "";
  $("key-state").textContent = apiKey ? "· set" : "";
  $("key-box").open = false;
  poll.anew();
}

async function copyCurl() {
  const text = curlOf(form.transport, form.ask());
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = "Copied.";
  } catch {
    $("copied").textContent = text;
  }
}

/** Turns after which what is dear is asked for again: plots in sight, and the state at the top. */
const TURNS_PLOTS = 3;
const TURNS_HEALTH = 4;

async function ask(turn) {
  try {
    if (turn === 0 || gaugesSeen.now) await gauges.refresh(ledger.stream && !ledger.over ? ledger.stream : null);
    else if (turn % TURNS_HEALTH === 0) await gauges.health();
    await latency.refresh(turn === 0 || (latencySeen.now && turn % TURNS_PLOTS === 0));
    $("gauges-note").textContent = "";
  } catch (error) {
    $("gauges-note").textContent = error instanceof Refused ? error.message : "the server can't be reached";
    if (!(error instanceof Refused)) [$("health").textContent, $("health").dataset.state] = ["unreachable", "bad"];
    throw error;
  }
}

const poll = new Poll(ask, () => $("live").checked);
const gaugesSeen = sight($("meters"), () => poll.anew());
const latencySeen = sight($("plots"), () => poll.anew());

setUpTheme($("theme"));
legend($("legend"));
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("urls").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
});
$("cut").addEventListener("click", cut);
$("resume").addEventListener("click", resume);
$("cancel").addEventListener("click", cancelled);
$("curl").addEventListener("click", copyCurl);
$("follow").addEventListener("change", draw);
$("ephemeral").addEventListener("change", draw);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value);
});
$("key-forget").addEventListener("click", () => setKey(""));
$("live").addEventListener("change", () => poll.anew());
try {
  apiKey = sessionStorage.getItem("forebay-key") ?? "";
} catch {}
$("key-state").textContent = apiKey ? "· set" : "";
drawTiles();
drawPercentiles($("percentiles"), []);
drawTimeline($("timeline"), [], Date.now());
setState("idle");
poll.now();
addEventListener("resize", () => latency.draw());
// What a test looks at; nothing in the page reads it.
window.forebayConsole = { frames, ledger: () => ledger };
