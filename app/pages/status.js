// Reads the balancer's figures every other second and shows them.
import { Chart } from "./chart.js";
import { at, element, shape } from "./dom.js";
import { Occupancy, brief, counted, duration, memory, milliseconds, percent, rates, running, shed, steps, verdict } from "./figures.js";
import { keepKey, keyHeaders, savedKey } from "./key.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 5000;

const occupancy = new Occupancy();
const ago = ({ time_s }, last) => (time_s === last.time_s ? "now" : `${duration(last.time_s - time_s)} ago`);
const requests = new Chart(at("requests-chart"), at("requests-step"), ["answered", "refused", "failed"], (step, last) =>
  `${ago(step, last)}: ${brief(step.answered)} answered, ${brief(step.refused)} refused, ${brief(step.failed)} failed`);
const slots = new Chart(at("slots-chart"), at("slots-step"), ["used", "waiting"], (step, last) =>
  `${ago(step, last)}: ${brief(step.used)} in a slot, ${brief(step.waiting)} waiting`);
let timer = 0;
let paused = false;
let shown = 0; // when the figures on the page were read

/** Set a text only if it changes, because a screen reader announces each change. */
function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

function judge(kind, sentence) {
  at("verdict").className = `verdict ${kind}`;
  say("verdict", sentence);
}

/** A share as a bar; the text next to it has the value. */
function bar(share) {
  return shape(
    "svg",
    { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { width: 100 * Math.min(1, share ?? 0), height: 8 }),
  );
}

function gauge(name, text, share) {
  const label = element("span", { class: "label" }, element("span", {}, name), element("span", {}, text));
  return element("div", { class: "gauge" }, label, ...(share === undefined ? [] : [bar(share)]));
}

/** The times of the slowest requests and of deferred ones. */
function latencies({ realtime, deferred }) {
  const slow = `95 % within ${milliseconds(realtime.p95_ms)}`;
  return deferred.requests ? `${slow}; deferred ${milliseconds(deferred.p50_ms)}, ${milliseconds(deferred.p95_ms)}` : slow;
}

function tiles(found) {
  const now = rates(found.history);
  const gone = shed(found.history);
  const { inside, slots: all, free } = found.totals;
  const { queue, deferred } = found.queues;
  say("rate", brief(now.answered));
  say("rate-note", now.failed > 0 ? `and ${brief(now.failed)} failed` : `over the last ${duration(now.seconds)}`);
  say("factor", brief(now.factor));
  say("latency", milliseconds(found.latency.realtime.p50_ms));
  say("latency-note", latencies(found.latency));
  say("slots", brief(inside));
  say("slots-of", `of ${brief(all)}`);
  at("slots-bar").replaceChildren(bar(all ? 1 - free / all : 0));
  say("waiting", brief(queue + deferred));
  say("waiting-note", `${brief(queue)} for a slot, ${brief(deferred)} deferred`);
  say("shed", brief(gone.refused));
  say("shed-note", gone.refused ? `${percent(gone.share)} of all in the last ${duration(gone.seconds)}` : `in the last ${duration(gone.seconds)}`);
}

/** The tiles of live sessions, where the service has them. */
function live(found) {
  for (const id of ["sessions", "delay", "behind"]) at(`${id}-tile`).hidden = !found;
  if (!found) return;
  say("sessions", brief(found.sessions));
  say("sessions-note", `${brief(found.gateways_up)} of ${counted(found.gateways, "gateway")} up`);
  say("delay", milliseconds(found.p50_ms));
  say("delay-note", found.p95_ms === undefined ? "no words in the last five minutes" : `95 % within ${milliseconds(found.p95_ms)}`);
  say("behind", duration(found.behind_s));
}

function charts(history) {
  const bars = steps(history);
  const top = requests.draw(bars);
  const high = slots.draw(bars);
  const now = rates(history);
  say("requests-top", brief(top));
  say("slots-top", brief(high));
  at("requests-chart").setAttribute(
    "aria-label",
    `Now ${brief(now.answered)} answered, ${brief(now.refused)} refused, ${brief(now.failed)} failed a second; at most ${brief(top)} in five minutes.`,
  );
  at("slots-chart").setAttribute(
    "aria-label",
    `Now ${brief(history.at(-1).used)} in slots, ${brief(history.at(-1).waiting)} waiting; at most ${brief(high)} in five minutes.`,
  );
}

function workerRow(worker, differ) {
  const title = element("div", { class: "name" }, worker.name, " ", element("span", { class: `state ${worker.state}` }, worker.state));
  const what = differ ? `${running(worker)}, ` : "";
  title.append(element("small", {}, `${what}for ${duration(worker.since_s)}`));
  const row = element("li", {}, title);
  if (worker.reason) row.append(element("p", { class: "reason" }, worker.reason));
  if (worker.state !== "up") return row;
  const { device, used, free } = worker.figures;
  const busy = occupancy.of(worker.name);
  row.append(gauge("Slots", `${worker.used} of ${worker.slots}`, worker.used / worker.slots));
  if (device) row.append(gauge(device === "cpu" ? "CPU busy" : "GPU busy", percent(busy), busy));
  if (used !== undefined) row.append(gauge("GPU memory", `${memory(used)} of ${memory(used + free)}`, used / (used + free)));
  return row;
}

function refusalRow(refusal) {
  return element(
    "li",
    {},
    element("span", {}, element("span", { class: "what" }, refusal.reason), `, ${refusal.tier}`),
    element("span", { class: "count" }, brief(refusal.requests)),
  );
}

function faultRow(fault) {
  const when = new Date(fault.time_s * 1000).toLocaleTimeString();
  const places = [when, fault.tier, fault.worker && `at ${fault.worker}`, `id ${fault.id}`];
  return element(
    "li",
    {},
    element("span", { class: "what" }, `${fault.status} ${fault.code}`),
    element("span", { class: "count" }, fault.times > 1 ? `${brief(fault.times)} times` : ""),
    element("small", {}, places.filter(Boolean).join(", ")),
  );
}

/** A list's lines, or a sentence where there are none. */
function list(id, found, line, none) {
  at(id).replaceChildren(...(found.length ? found.map(line) : [element("li", { class: "quiet" }, none)]));
}

function show(found) {
  occupancy.add(found);
  judge(...verdict(found));
  tiles(found);
  live(found.live);
  charts(found.history);
  const models = [...new Set(found.workers.filter(({ state }) => state === "up").map(running))];
  say("running", [...models, `balancer up for ${duration(found.uptime_s)}`].join("; "));
  list("workers", found.workers, (worker) => workerRow(worker, models.length > 1), "None.");
  list("refused", found.refused, refusalRow, "None.");
  list("faults", found.faults, faultRow, "None since the balancer started.");
  at("figures").hidden = false;
  shown = Date.now();
}

/** A sentence on why there are no figures. */
async function refused(answer) {
  const body = await answer.json().catch(() => null);
  return body?.error?.message ?? `The balancer answered with status ${answer.status}.`;
}

/** The service asks for a key, or does not know the one in the field. */
function askForKey() {
  at("key-form").hidden = false;
  at("figures").hidden = true;
  judge("", savedKey() ? "The API key is wrong." : "This service shows its figures to those who have an API key.");
}

async function read() {
  const answer = await fetch("/status/figures", { headers: keyHeaders(), signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) return askForKey();
  if (!answer.ok) return judge("bad", await refused(answer));
  at("key-form").hidden = true;
  return show(await answer.json());
}

async function refresh() {
  clearTimeout(timer);
  if (!paused && !document.hidden) {
    await read().catch(() => judge("bad", "The balancer does not answer."));
  }
  const seconds = Math.round((Date.now() - shown) / 1000);
  const isShown = shown !== 0 && !at("figures").hidden;
  say("age", !isShown ? "" : paused ? "Paused" : seconds < 5 ? "Live" : `${counted(seconds, "second")} old`);
  at("pause").hidden = !isShown;
  timer = setTimeout(refresh, EVERY_MS);
}

keepKey();
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});
at("pause").addEventListener("click", () => {
  paused = !paused;
  say("pause", paused ? "Go on" : "Pause");
  say("age", paused ? "Paused" : "Live");
});
refresh();
