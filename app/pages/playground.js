// The playground: a recording goes in, its text comes out as it is decoded.
import { at } from "./dom.js";
import { curl, python } from "./examples.js";
import { Player } from "./player.js";
import { Recorder, canRecord } from "./recorder.js";
import { ServiceError, asksForKey, transcribe, written } from "./service.js";
import { tabs } from "./tabs.js";
import { Transcript, clock } from "./transcript.js";

const KEY = "key"; // in the tab's own storage, gone with the tab
const SUBTITLES = ["srt", "vtt"]; // the service lays them out, so they are asked for
const ENDINGS = { text: "txt", json: "json", verbose_json: "json", srt: "srt", vtt: "vtt" };

const player = new Player((seconds) => transcript.light(seconds));
const transcript = new Transcript(at("transcript"), (seconds) => player.seek(seconds));
const recorder = new Recorder();

let needsKey = false;
let file = null;
let sent = null; // the wish that the text on the page answers
let answers = {}; // the answer's formats by name, as far as they are known
let format = "text";
let work = new AbortController();

/** What a person has asked for. */
function wish() {
  const value = (id) => at(id).value.trim();
  return { file, key: value("key"), language: value("language"), prompt: value("prompt"), translate: at("translate").checked };
}

function state(text) {
  at("state").textContent = text;
}

function fail(error) {
  at("failure-text").textContent = error.message;
  at("failure").hidden = false;
  if (error.status !== 401) return;
  at("key-field").hidden = false;
  at("key").focus();
}

function working(yes) {
  at("cancel").hidden = !yes;
  at("progress").hidden = !yes;
}

/** Take a recording and have it transcribed. */
async function take(chosen) {
  file = chosen;
  at("name").textContent = file.name;
  at("work").hidden = false;
  at("resend").disabled = false;
  player.load(file);
  await send();
}

async function send() {
  work.abort();
  work = new AbortController();
  const { signal } = work;
  sent = wish();
  answers = {};
  transcript.clear();
  player.segments([]);
  for (const id of ["failure", "facts", "results", "legend"]) at(id).hidden = true;
  at("progress").removeAttribute("value");
  working(true);
  state("Listening …");
  const began = performance.now();
  let first = null;
  try {
    const done = await transcribe(sent, (segment) => {
      first ??= performance.now() - began;
      add(segment);
    }, signal);
    show(done, first, performance.now() - began);
  } catch (error) {
    if (signal.aborted) return; // by whoever began something else, who has said so
    state("");
    fail(error instanceof ServiceError ? error : new ServiceError(`This page failed: ${error.message}.`));
  }
  working(false);
}

function add(segment) {
  transcript.add(segment);
  player.segments(transcript.segments);
  if (player.duration) at("progress").value = Math.min(1, segment.end / player.duration);
}

function cancel() {
  work.abort();
  working(false);
  state("Cancelled.");
}

const percent = (share) => `${Math.round(share * 100)} %`;
const seconds = (ms) => (ms === null ? "–" : `${(ms / 1000).toFixed(1)} s`);

function language(done) {
  const name = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" }).of(done.language);
  return done.language_probability ? `${name}, ${percent(done.language_probability)}` : name;
}

/** The whole answer is there. */
function show(done, first, all) {
  const { type, usage, model, languages, ...verbose } = done;
  const billed = { type: "duration", seconds: Math.ceil(done.duration) };
  answers = {
    text: `${done.text}\n`,
    json: JSON.stringify({ text: done.text, languages, usage: billed }, null, 2),
    verbose_json: JSON.stringify({ ...verbose, usage: billed }, null, 2),
  };
  player.lasts(done.duration);
  const sure = transcript.confidence;
  const facts = { spoken: language(done), confidence: sure === null ? "–" : percent(sure), length: clock(done.duration), first: seconds(first), all: seconds(all), model };
  for (const [id, text] of Object.entries(facts)) at(id).textContent = text;
  at("legend").hidden = !at("transcript").querySelector(".unsure");
  at("facts").hidden = false;
  at("results").hidden = false;
  state(done.text ? "Done." : "Done. Nobody speaks in it.");
  showFormat();
}

/** The chosen format, asked for where it is not known yet. */
async function showFormat() {
  const [chosen, request] = [format, sent];
  const shown = { ...request, name: request.file.name, format: chosen, asksForKey: needsKey };
  at("curl").textContent = curl(shown);
  at("python").textContent = python(shown);
  at("copied").textContent = "";
  const known = chosen in answers;
  at("copy").disabled = at("download").disabled = !known;
  at("result").textContent = known ? answers[chosen] : "The service writes it …";
  if (known || !SUBTITLES.includes(chosen)) return;
  try {
    const text = await written(request, chosen, work.signal);
    if (request !== sent) return;
    answers[chosen] = text;
    if (chosen === format) showFormat();
  } catch (error) {
    if (request === sent && chosen === format) at("result").textContent = error.message;
  }
}

async function copy(text, what) {
  const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  at("copied").textContent = done ? `${what} copied.` : "The browser does not let this page copy; select the text instead.";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([answers[format]], { type: "text/plain" }));
  link.download = `${sent.file.name.replace(/\.[^.]*$/, "")}.${ENDINGS[format]}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function record() {
  if (recorder.running) {
    recorder.stop();
    return;
  }
  work.abort();
  working(false);
  try {
    const recording = recorder.record((level, elapsed) => player.hear(level, elapsed));
    transcript.clear();
    player.empty();
    for (const id of ["failure", "facts", "results", "legend"]) at(id).hidden = true;
    at("name").textContent = "Microphone";
    at("work").hidden = false;
    at("record").textContent = "Stop and transcribe";
    at("record").classList.add("running");
    state("Recording.");
    take(await recording);
  } catch (error) {
    state("");
    file = null;
    fail(new ServiceError(error.name === "NotAllowedError" ? "The browser does not let this page use the microphone." : "No microphone was found."));
  } finally {
    at("record").textContent = "Record";
    at("record").classList.remove("running");
  }
}

/** The whole page takes what is dropped, so that nobody has to aim. */
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
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

async function start() {
  at("key").value = sessionStorage.getItem(KEY) ?? "";
  at("key").addEventListener("input", () => sessionStorage.setItem(KEY, at("key").value.trim()));
  at("wishes").addEventListener("submit", (event) => {
    event.preventDefault();
    if (file) send();
  });
  at("file").addEventListener("change", () => {
    if (at("file").files.length) take(at("file").files[0]);
    at("file").value = ""; // so that the same file can be chosen again
  });
  at("record").addEventListener("click", record);
  at("record").disabled = !canRecord();
  at("no-microphone").hidden = canRecord();
  at("cancel").addEventListener("click", cancel);
  at("again").addEventListener("click", () => file && send());
  at("copy").addEventListener("click", () => copy(answers[format], "The answer is"));
  at("copy-curl").addEventListener("click", () => copy(at("curl").textContent, "The curl line is"));
  at("copy-python").addEventListener("click", () => copy(at("python").textContent, "The Python lines are"));
  at("download").addEventListener("click", download);
  tabs(at("formats"), (chosen, id) => {
    format = chosen;
    at("panel").setAttribute("aria-labelledby", id);
    showFormat();
  });
  watchDrops();
  needsKey = await asksForKey().catch(() => false);
  if (needsKey) at("key-field").hidden = false;
}

start();
