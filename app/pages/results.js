// The answer in each format, to copy and to download, and the lines that ask for the same.
import { copies } from "./copy.js";
import { at } from "./dom.js";
import { curl, python } from "./examples.js";
import { written } from "./service.js";
import { tabs } from "./tabs.js";

const SUBTITLES = ["srt", "vtt"]; // the service lays them out, so they are asked for
const ENDINGS = { text: "txt", json: "json", verbose_json: "json", srt: "srt", vtt: "vtt" };

export class Results {
  #recording = null;
  #answers = null; // those that are shown
  #format = "text";
  #asksForKey;
  #tabs;

  /**
   * @param asksForKey returns whether requests need a key.
   * @param format the one to begin with, if the page's address names it.
   */
  constructor(asksForKey, format) {
    this.#asksForKey = asksForKey;
    this.#tabs = tabs(at("formats"), (chosen, id) => {
      this.#format = chosen;
      at("panel").setAttribute("aria-labelledby", id);
      this.#draw();
    });
    if (format in ENDINGS) this.#tabs.choose(format);
    copies(at("copy"), () => this.#recording.answers[this.#format], "copied");
    copies(at("copy-curl"), () => at("curl").textContent, "copied-lines");
    copies(at("copy-python"), () => at("python").textContent, "copied-lines");
    at("download").addEventListener("click", () => this.#download());
  }

  /** Show the answers of a recording, if it has any. */
  show(recording) {
    at("results").hidden = !recording.hasAnswers;
    if (!recording.hasAnswers || recording.answers === this.#answers) return;
    [this.#recording, this.#answers] = [recording, recording.answers];
    const isComplete = recording.facts !== null;
    at("incomplete").hidden = isComplete;
    this.#tabs.allow((format) => isComplete || !SUBTITLES.includes(format));
    this.#draw();
  }

  /** The chosen format, asked for where it is not known yet. */
  async #draw() {
    const [format, recording] = [this.#format, this.#recording];
    if (!recording) return;
    const { answers, sent } = recording;
    const lines = { ...sent, name: recording.file.name, format, asksForKey: this.#asksForKey() };
    at("curl").textContent = curl(lines);
    at("python").textContent = python(lines);
    const isKnown = format in answers;
    at("copy").disabled = at("download").disabled = !isKnown;
    at("result").textContent = isKnown ? answers[format] : "The service writes it …";
    at("copied").textContent = at("copied-lines").textContent = "";
    if (!isKnown) await this.#ask(recording, answers, format);
  }

  async #ask(recording, answers, format) {
    const isShown = () => answers === this.#answers && format === this.#format;
    try {
      answers[format] = await written(recording.sent, format, new AbortController().signal);
      if (isShown()) this.#draw();
    } catch (error) {
      if (isShown()) at("result").textContent = error.message;
    }
  }

  #download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.#recording.answers[this.#format]], { type: "text/plain" }));
    link.download = `${this.#recording.file.name.replace(/\.[^.]*$/, "")}.${ENDINGS[this.#format]}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
