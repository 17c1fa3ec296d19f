// When the page asks the server how it is: seldom, only while somebody looks, and later where the
// server has had enough.

const TICK_MS = 3000;
const TICK_MS_MAX = 60000;
/** Between two asks, whatever the reader does. */
const TICK_MS_MIN = 1000;

/** Calls `ask(turn)` again and again while the page is shown and `wanted()`. */
class Poll {
  constructor(ask, wanted) {
    this.ask = ask;
    this.wanted = wanted;
    this.turn = 0;
    this.pause = TICK_MS;
    this.notBefore = 0;
    this.last = -Infinity;
    this.timer = 0;
    this.busy = false;
    document.addEventListener("visibilitychange", () => this.now());
  }

  async now() {
    clearTimeout(this.timer);
    if (this.busy || document.hidden || !this.wanted()) return;
    const early = Math.max(this.notBefore, this.last + TICK_MS_MIN) - performance.now();
    if (early > 0) {
      this.timer = setTimeout(() => this.now(), early);
      return;
    }
    this.busy = true;
    this.last = performance.now();
    try {
      await this.ask(this.turn);
      this.pause = TICK_MS;
    } catch (error) {
      // A key that lacks a scope lacks it next time, too: no reason to ask as often.
      this.pause = Math.min(this.pause * 2, TICK_MS_MAX);
      if (error instanceof Refused && (error.status === 429 || error.status === 503)) {
        this.pause = Math.max(this.pause, error.retryAfter * 1000);
        this.notBefore = performance.now() + this.pause;
      }
    }
    this.turn += 1;
    this.busy = false;
    this.timer = setTimeout(() => this.now(), this.pause);
  }

  /** Asks for everything at once, as at the start. */
  anew() {
    this.turn = this.busy ? -1 : 0;
    this.pause = TICK_MS;
    return this.now();
  }
}

/** Whether a part of the page is in sight, or nearly. */
function sight(node, came) {
  const seen = { now: false };
  const look = ([entry]) => {
    seen.now = entry.isIntersecting;
    if (seen.now) came();
  };
  new IntersectionObserver((entries) => look(entries.slice(-1)), { rootMargin: "200px" }).observe(node);
  return seen;
}
