// Turns /status/figures into the rates, shares and words that the page shows.

const NOW_S = 30; // rates "now" are those of the last so many seconds
const KEPT_S = 15;

/** A number with its significant digits; a dash where there is none. */
export function brief(number) {
  if (number === null || !Number.isFinite(number)) return "–";
  const digits = number !== 0 && number < 1 ? 2 : number < 10 ? 1 : 0;
  return number.toLocaleString("en", { maximumFractionDigits: digits });
}

export const percent = (share) => (share === null ? "–" : `${brief(Math.min(1, share) * 100)} %`);

/** "1 request", "2 requests". */
export const counted = (number, noun) => `${brief(number)} ${noun}${number === 1 ? "" : "s"}`;

export const duration = (seconds) =>
  seconds < 120 ? `${brief(seconds)} s` : seconds < 7200 ? `${brief(seconds / 60)} min`
    : seconds < 172_800 ? `${brief(seconds / 3600)} h` : `${brief(seconds / 86_400)} days`;

/** A time to wait; a dash where there is none. */
export const milliseconds = (ms) => (ms === undefined ? "–" : ms < 1000 ? `${brief(ms)} ms` : duration(ms / 1000));

/** The model and version of a worker, in words. */
export const running = ({ figures }) => `${figures.model ?? "unknown model"}, version ${figures.version ?? "unknown"}`;

/** Bytes from a number of MiB. */
export const memory = (mib) => (mib < 1024 ? `${brief(mib)} MB` : `${brief(mib / 1024)} GB`);

/** Rates between two samples. */
function between(before, after) {
  const seconds = Math.max(1, after.time_s - before.time_s);
  const audio = after.audio_s - before.audio_s;
  return {
    seconds,
    answered: (after.answered - before.answered) / seconds,
    refused: (after.refused - before.refused) / seconds,
    failed: (after.failed - before.failed) / seconds,
    factor: audio > 0 ? (after.took_s - before.took_s) / audio : null,
  };
}

/** The rates of now: over the last NOW_S, or for as long as there are figures. */
export function rates(history) {
  const last = history.at(-1);
  const first = history.findLast((sample) => sample.time_s <= last.time_s - NOW_S) ?? history[0];
  return between(first, last);
}

/** One bar for each step of the history: its rates and its peaks. */
export function steps(history) {
  return history.slice(1).map((after, n) => ({ ...after, ...between(history[n], after) }));
}

/** Requests refused since the history began, and their share of all. */
export function shed(history) {
  const [first, last] = [history[0], history.at(-1)];
  const refused = last.refused - first.refused;
  const all = refused + last.answered - first.answered + last.failed - first.failed;
  return { refused, share: all ? refused / all : 0, seconds: last.time_s - first.time_s };
}

/** The state of the whole pool (good, strained or bad), and a sentence on it. */
export function verdict(found) {
  const { up, free } = found.totals;
  const all = found.workers.length;
  if (up === 0) return ["bad", "No worker is up: every request is refused."];
  if (up < all) return ["strained", `${counted(all - up, "worker")} of ${all} ${all - up === 1 ? "takes" : "take"} no requests.`];
  if (found.live?.gateways_up === 0) return ["strained", "No gateway is up: live sessions are refused."];
  if (rates(found.history).refused > 0) return ["strained", "Working at the limit: requests are being refused."];
  if (free === 0) return ["strained", "Every slot is taken."];
  return ["good", `${all} of ${all} workers up.`];
}

/** How busy each worker's device was between readings of this page; null until there are two. */
export class Occupancy {
  #readings = [];

  add(found) {
    this.#readings.push(found);
    const oldest = found.time_s - KEPT_S;
    while (this.#readings.length > 2 && this.#readings[0].time_s < oldest) this.#readings.shift();
  }

  of(name) {
    const [first, last] = [this.#readings[0], this.#readings.at(-1)];
    const [before, after] = [first, last].map((reading) => reading?.workers.find((worker) => worker.name === name)?.figures);
    const seconds = last ? last.time_s - first.time_s : 0;
    if (!seconds || !after?.calls || before?.busy === undefined || after.busy < before.busy) return null;
    return (after.busy - before.busy) / seconds / after.calls;
  }
}
