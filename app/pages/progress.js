// How far a recording is: the share that is sent, then the place that is decoded, and the time left.
import { at } from "./dom.js";
import { clock } from "./transcript.js";

const ESTIMATE_AFTER_S = 3; // earlier than this the speed is a guess

/** Seconds rounded as far as they can be relied on. */
const roughly = (seconds) => (seconds < 10 ? "a few seconds" : seconds < 90 ? `about ${Math.round(seconds / 10) * 10} s` : `about ${Math.round(seconds / 60)} min`);

/**
 * Return the name of what is going on, its detail, and the share that is done; null: unknown.
 * @param duration of the recording in seconds; 0: unknown.
 * @param now milliseconds, as of performance.now().
 */
export function stage({ sentShare, sentAt, reached }, duration, now) {
  if (sentShare < 1 && !reached) return ["Sending …", `${Math.round(sentShare * 100)} %`, sentShare];
  if (!reached) return ["Listening …", `${Math.round((now - sentAt) / 1000)} s`, null];
  if (!duration) return ["Transcribing …", `${clock(reached.seconds)} so far`, null];
  const place = `${clock(reached.seconds)} of ${clock(duration)}`;
  const spent = (reached.at - sentAt) / 1000;
  const left = ((duration - reached.seconds) / reached.seconds) * spent - (now - reached.at) / 1000;
  const estimate = spent < ESTIMATE_AFTER_S || left <= 0 ? "" : `, ${roughly(left)} left`;
  return ["Transcribing …", place + estimate, Math.min(1, reached.seconds / duration)];
}

/** Show it; a screen reader hears the name alone. */
export function showProgress(recording, duration) {
  const [name, detail, share] = stage(recording, duration, performance.now());
  if (at("state").textContent !== name) at("state").textContent = name;
  at("detail").textContent = detail;
  if (share === null) at("progress").removeAttribute("value");
  else at("progress").value = share;
}
