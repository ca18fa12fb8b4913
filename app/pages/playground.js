// The playground: recordings go in, one after another, and their text comes out as it is decoded.
import { at } from "./dom.js";
import { showFiles } from "./files.js";
import { toggleCaptions } from "./live.js";
import { limitTo, prepareOptions, wish } from "./options.js";
import { Player } from "./player.js";
import { showProgress } from "./progress.js";
import { Recorder, canRecord } from "./recorder.js";
import { Recording } from "./recording.js";
import { Results } from "./results.js";
import { Search } from "./search.js";
import { abilities, asksForKey } from "./service.js";
import { clock } from "./transcript.js";

const TICK_MS = 500;
const STATES = { waiting: "Waits for the recording before it.", done: "Done.", cancelled: "Cancelled.", failed: "" };

const player = new Player((seconds, isPlaying) => shown?.transcript.light(seconds, isPlaying));
const recorder = new Recorder();
const search = new Search();

const recordings = [];
let shown = null; // the recording on the page; null: none, or the microphone
let needsKey = false;
let results = null;
let model = {};

/** Take recordings, show the first of them, and transcribe them one after another. */
function take(files) {
  const added = [...files].map((file) => new Recording(file, (seconds) => player.playFrom(seconds), changed));
  recordings.push(...added);
  show(added[0]);
  runNext();
}

async function runNext() {
  const next = recordings.find(({ state }) => state === "waiting");
  if (!next || recordings.some(({ state }) => state === "working")) return;
  await next.run(wish(next.file));
  runNext();
}

/** Transcribe the shown recording again, with the options as they are now. */
function again() {
  if (!shown || shown.state === "working") return;
  shown.state = "waiting";
  changed(shown);
  runNext();
}

/** Show another recording. */
function show(recording) {
  shown = recording;
  at("name").textContent = recording.file.name;
  at("work").hidden = false;
  at("resend").disabled = false;
  player.load(recording.file);
  changed(recording);
}

/** Draw what has changed: the list, and the recording if it is the one on the page. */
function changed(recording) {
  showFiles(recordings, shown, show);
  if (recording !== shown) return;
  const { transcript, state, facts } = recording;
  const isWorking = state === "working";
  at("cancel").hidden = !isWorking && state !== "waiting";
  at("progress").hidden = at("detail").hidden = !isWorking;
  at("resend").disabled = !at("cancel").hidden;
  if (isWorking) showProgress(recording, player.duration);
  else at("state").textContent = state === "done" && !facts.text ? "Done. It holds no speech." : STATES[state];
  if (transcript.list.parentElement !== at("transcript")) at("transcript").replaceChildren(transcript.list);
  player.segments(transcript.segments);
  at("find").hidden = !transcript.segments.length;
  search.in(transcript);
  showFailure(recording);
  showFacts(recording);
  results.show(recording);
}

function showFailure({ error, facts }) {
  at("failure").hidden = !error;
  at("player").hidden = Boolean(error?.isFinal && error.status === 400 && !facts);
  if (at("failure-text").textContent === (error?.message ?? "")) return;
  at("failure-text").textContent = error?.message ?? "";
  if (!error) return;
  at("again").hidden = error.isFinal;
  if (error.status !== 401) return;
  at("key-field").hidden = false;
  at("key").focus();
}

const percent = (share) => (share === null ? "–" : `${Math.round(share * 100)} %`);
const inSeconds = (ms) => (ms === null ? "–" : `${(ms / 1000).toFixed(1)} s`);

/** The language, and how probable it is where the model chose it among several. */
function language({ sent, facts }) {
  const name = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" }).of(facts.language);
  const wasChosen = model.multilingual !== false && (!sent.language || sent.translate);
  return wasChosen && facts.language_probability ? `${name}, ${percent(facts.language_probability)}` : name;
}

function showFacts(recording) {
  const { facts, transcript } = recording;
  at("facts").hidden = !facts;
  at("legend").hidden = !transcript.isUnsure;
  if (!facts) return;
  player.lasts(facts.duration);
  const texts = {
    spoken: language(recording), confidence: percent(transcript.confidence), length: clock(facts.duration),
    first: inSeconds(facts.first), all: inSeconds(facts.all), model: facts.model,
  };
  for (const [id, text] of Object.entries(texts)) at(id).textContent = text;
}

/** Show the microphone in place of the recording on the page. */
function showMicrophone() {
  shown = null;
  player.empty();
  at("transcript").replaceChildren();
  for (const id of ["failure", "facts", "results", "legend", "find", "cancel", "progress", "detail"]) at(id).hidden = true;
  at("player").hidden = at("work").hidden = false;
  at("name").textContent = "Microphone";
  at("state").textContent = "Recording.";
  at("record").textContent = "Stop and transcribe";
  at("record").classList.add("running");
  at("record").disabled = false;
}

async function record() {
  if (recorder.running) {
    recorder.stop();
    return;
  }
  at("record").disabled = true; // until the browser's user has answered
  try {
    take([await recorder.record(showMicrophone, (level, elapsed) => shown || player.hear(level, elapsed))]);
  } catch (error) {
    at("work").hidden = false;
    at("player").hidden = !shown;
    at("again").hidden = true;
    at("failure-text").textContent = error.name === "NotAllowedError" ? "The browser does not let this page use the microphone." : "No microphone was found.";
    at("failure").hidden = false;
  } finally {
    at("record").disabled = false;
    at("record").textContent = "Record";
    at("record").classList.remove("running");
  }
}

async function takeSample() {
  const answer = await fetch("/pages/sample.flac");
  take([new File([await answer.blob()], "sample.flac", { type: "audio/flac" })]);
}

/** The whole page takes what is dropped, so that the small field need not be hit. */
function watchDrops() {
  const over = (yes) => at("drop").classList.toggle("over", yes);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
}

function listen() {
  at("wishes").addEventListener("submit", (event) => {
    event.preventDefault();
    again();
  });
  at("file").addEventListener("change", () => {
    if (at("file").files.length) take(at("file").files);
    at("file").value = ""; // so that the same file can be chosen again
  });
  at("sample").addEventListener("click", takeSample);
  at("record").addEventListener("click", record);
  at("live").addEventListener("click", toggleCaptions);
  at("live").disabled = at("record").disabled = !canRecord();
  at("no-microphone").hidden = canRecord();
  at("cancel").addEventListener("click", () => shown.cancel());
  at("again").addEventListener("click", again);
  watchDrops();
  setInterval(() => shown?.state === "working" && showProgress(shown, player.duration), TICK_MS);
}

async function start() {
  results = new Results(() => needsKey, prepareOptions());
  listen();
  needsKey = await asksForKey().catch(() => false);
  if (needsKey) at("key-field").hidden = false;
  model = await abilities().catch(() => ({}));
  limitTo(model);
}

start();
