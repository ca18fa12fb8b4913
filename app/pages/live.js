// Live captions: the microphone's sound goes to the service, and words come back while people speak.
import { at, element } from "./dom.js";
import { savedKey } from "./key.js";

const RATE = 24000; // of OpenAI's Realtime API
const KEY = "openai-insecure-api-key."; // a browser cannot set a WebSocket's headers
const TRANSCRIPTION = "conversation.item.input_audio_transcription.";
const REFUSED = "The service refused live captions. Check the API key, or try again later.";

/** The samples as base64, which the API's events hold. */
function encoded(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));
}

export class Captions {
  #socket = null;
  #lines = new Map(); // by the turn's id
  #open = new Set(); // turns that are committed and not complete
  #isEnding = false;

  get running() {
    return this.#socket !== null;
  }

  /** Show captions until `stop`; throws an Error with a sentence for people. */
  async run() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const context = new AudioContext({ sampleRate: RATE });
    this.#lines.clear();
    this.#open.clear();
    this.#isEnding = false;
    at("captions").replaceChildren();
    try {
      await this.#connect();
      await context.audioWorklet.addModule("/pages/microphone.js");
      const microphone = new AudioWorkletNode(context, "microphone");
      microphone.port.onmessage = ({ data }) => this.#isEnding || this.#send("input_audio_buffer.append", { audio: encoded(data) });
      context.createMediaStreamSource(stream).connect(microphone);
      await this.#closed();
    } finally {
      this.#socket = null;
      for (const track of stream.getTracks()) track.stop();
      await context.close();
    }
  }

  /** Stop listening; the last words still come. */
  stop() {
    this.#isEnding = true;
    this.#send("input_audio_buffer.commit");
    this.#send("input_audio_buffer.clear");
  }

  #connect() {
    const address = new URL("/v1/realtime?intent=transcription", location.href);
    address.protocol = location.protocol.replace("http", "ws");
    const key = savedKey();
    this.#socket = new WebSocket(address, ["realtime", ...(key ? [KEY + key] : [])]);
    return new Promise((resolve, reject) => {
      this.#socket.addEventListener("error", () => reject(new Error(REFUSED)));
      this.#socket.addEventListener("open", () => {
        const transcription = { model: "whisper-1" };
        for (const name of ["language", "prompt"]) if (at(name).value.trim()) transcription[name] = at(name).value.trim();
        this.#send("session.update", { session: { type: "transcription", audio: { input: { transcription } } } });
        resolve();
      });
    });
  }

  #closed() {
    return new Promise((resolve, reject) => {
      this.#socket.addEventListener("message", ({ data }) => this.#hear(JSON.parse(data)));
      this.#socket.addEventListener("close", ({ code, reason }) => (code === 1000 || this.#isEnding ? resolve() : reject(new Error(reason || REFUSED))));
    });
  }

  #send(type, members = {}) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, ...members }));
  }

  #hear(event) {
    if (event.type === `${TRANSCRIPTION}delta`) this.#line(event.item_id).append(event.delta);
    else if (event.type === `${TRANSCRIPTION}failed`) this.#line(event.item_id).append(` (${event.error.message})`);
    else if (event.type === "input_audio_buffer.committed") this.#open.add(event.item_id);
    else if (event.type === "input_audio_buffer.speech_started") at("live-state").textContent = "Listening.";
    else if (event.type === "rate_limits.updated") at("live-state").textContent = event.audio_behind_seconds ? `The service is busy; ${Math.round(event.audio_behind_seconds)} s behind.` : "Listening.";
    if (event.type === `${TRANSCRIPTION}completed` || event.type === `${TRANSCRIPTION}failed`) this.#open.delete(event.item_id);
    if (event.type === "input_audio_buffer.cleared") this.#lines.set("cleared", null);
    if (this.#isEnding && this.#lines.has("cleared") && !this.#open.size) this.#socket.close(1000);
  }

  #line(id) {
    if (!this.#lines.has(id)) {
      const line = element("p");
      this.#lines.set(id, line);
      at("captions").append(line);
    }
    return this.#lines.get(id);
  }
}

const captions = new Captions();

/** The button starts and stops captions in a card of their own. */
export async function toggleCaptions() {
  if (captions.running) {
    captions.stop();
    return;
  }
  at("live-card").hidden = false;
  at("live").textContent = "Stop captions";
  at("live-state").textContent = "Waiting for speech.";
  try {
    await captions.run();
    at("live-state").textContent = "Stopped.";
  } catch (error) {
    at("live-state").textContent = error.name === "NotAllowedError" ? "The browser does not let this page use the microphone." : error.message;
  } finally {
    at("live").textContent = "Live captions";
  }
}
