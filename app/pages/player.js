// Plays the recording: a button, the time, and the waveform as a slider.
import { at } from "./dom.js";
import { clock } from "./transcript.js";
import { Waveform, loudness } from "./waveform.js";

const STEP_S = 5;

export class Player {
  #audio = new Audio();
  #waveform = new Waveform(at("waveform"));
  #duration = 0;
  #isPlaying = false;
  #onTime;

  /** @param onTime called with the second that is heard, and whether it plays. */
  constructor(onTime) {
    this.#onTime = onTime;
    const slider = at("waveform");
    at("play").addEventListener("click", () => this.toggle());
    slider.addEventListener("click", (event) => this.seek((event.offsetX / slider.clientWidth) * this.#duration));
    slider.addEventListener("keydown", (event) => this.#key(event));
    at("speed").addEventListener("change", () => this.#speed());
    this.#audio.addEventListener("playing", () => {
      this.#button(true);
      this.#follow();
    });
    for (const name of ["pause", "ended", "emptied", "error"]) this.#audio.addEventListener(name, () => this.#button(false));
    for (const name of ["timeupdate", "seeked"]) this.#audio.addEventListener(name, () => this.#show());
    this.#audio.addEventListener("error", () => this.#unplayable());
    this.#audio.addEventListener("loadedmetadata", () => {
      if (Number.isFinite(this.#audio.duration)) this.lasts(this.#audio.duration);
    });
  }

  /** Take a recording, which is not played until a person says so. */
  async load(file) {
    this.stop();
    this.#waveform.clear();
    at("play").disabled = false;
    at("unplayable").hidden = true;
    this.#audio.src = URL.createObjectURL(file);
    this.#speed();
    this.lasts(0);
    const source = this.#audio.src;
    const found = await loudness(file);
    if (!found || this.#audio.src !== source) return;
    this.lasts(found.duration);
    this.#waveform.show({ peaks: found.peaks });
  }

  stop() {
    this.#audio.pause();
    if (this.#audio.src) URL.revokeObjectURL(this.#audio.src);
    this.#audio.removeAttribute("src");
    this.#button(false);
  }

  /** While a recording is made: how loud it is, from 0 to 1, and how long by now. */
  hear(level, seconds) {
    this.#waveform.hear(level);
    at("time").textContent = clock(seconds);
  }

  /** Make room for a recording that is being made. */
  empty() {
    this.stop();
    this.#waveform.clear();
    at("play").disabled = true;
  }

  /** The recording's length, as far as it is known. */
  lasts(seconds) {
    this.#duration = seconds;
    this.#show();
  }

  get duration() {
    return this.#duration;
  }

  segments(found) {
    this.#waveform.show({ segments: found });
  }

  toggle() {
    if (this.#audio.paused) this.#play();
    else this.#audio.pause();
  }

  playFrom(seconds) {
    this.seek(seconds);
    if (this.#audio.src) this.#play();
  }

  seek(seconds) {
    if (!this.#audio.src) return;
    this.#audio.currentTime = Math.max(0, Math.min(seconds, this.#duration));
    this.#show();
  }

  #key(event) {
    const now = this.#audio.currentTime;
    const to = { ArrowLeft: now - STEP_S, ArrowRight: now + STEP_S, ArrowDown: now - STEP_S, ArrowUp: now + STEP_S, Home: 0, End: this.#duration }[event.key];
    if (event.key === " " || event.key === "Enter") this.toggle();
    else if (to === undefined) return;
    else this.seek(to);
    event.preventDefault();
  }

  /** A second call to play() or to pause() ends the first one, which is no failure. */
  #play() {
    this.#audio.play().catch((error) => error.name === "AbortError" || this.#unplayable());
  }

  #speed() {
    this.#audio.playbackRate = this.#audio.defaultPlaybackRate = Number(at("speed").value);
  }

  /** Between two `timeupdate` a word or two pass. */
  #follow() {
    if (!this.#isPlaying) return;
    this.#show();
    requestAnimationFrame(() => this.#follow());
  }

  #show() {
    const seconds = this.#audio.currentTime;
    const text = `${clock(seconds)} / ${clock(this.#duration)}`;
    this.#waveform.show({ seconds, duration: this.#duration });
    if (at("time").textContent !== text) {
      at("time").textContent = text;
      const slider = at("waveform");
      slider.setAttribute("aria-valuemax", Math.round(this.#duration));
      slider.setAttribute("aria-valuenow", Math.round(seconds));
      slider.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.#duration)}`);
    }
    this.#onTime(seconds, this.#isPlaying);
  }

  #button(isPlaying) {
    this.#isPlaying = isPlaying;
    at("play").textContent = isPlaying ? "Pause" : "Play";
  }

  #unplayable() {
    if (!this.#audio.src) return;
    at("play").disabled = true;
    at("unplayable").hidden = false;
  }
}
