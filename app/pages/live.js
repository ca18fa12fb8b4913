// Live captions: the microphone's sound goes to the service, and words come back while people speak.
import { at, element } from "./dom.js";
import { savedKey } from "./key.js";

const KEY = "openai-insecure-api-key."; // a browser cannot set a WebSocket's headers
const TOKEN = /^[\w!#$%&'*+.^`|~-]*$/; // what a WebSocket's subprotocol may hold (RFC 7230)
const TRANSCRIPTION = "conversation.item.input_audio_transcription.";
const REFUSED = "The service refused live captions. Check the API key, or try again later.";
const LOST = "The connection to the service was lost. Try again.";
const NOT_A_TOKEN = "A browser cannot send this API key for live captions: only letters, digits and !#$%&'*+-.^_`|~ are allowed in it.";

/** The samples as base64, which the API's events hold. */
function encoded(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));
}

export class Captions {
  #socket = null;
  #lines = new Map(); // by the turn's id
  #open = new Set(); // turns that are committed and not complete
  #isRunning = false;
  #isEnding = false; // no more sound is sent; the last words are awaited
  #isAborted = false; // nothing is awaited
  #isCleared = false; // the service has everything that was sent

  get running() {
    return this.#isRunning;
  }

  /** Show captions until `stop`; throws an Error with a sentence for people. */
  async run() {
    this.#isRunning = true;
    this.#isEnding = this.#isAborted = this.#isCleared = false;
    this.#lines.clear();
    this.#open.clear();
    at("captions").replaceChildren();
    let context = null;
    let stream = null;
    try {
      context = new AudioContext(); // at the default rate: Firefox connects microphones to no other
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      await context.audioWorklet.addModule("/pages/microphone.js");
      const microphone = new AudioWorkletNode(context, "microphone");
      context.createMediaStreamSource(stream).connect(microphone);
      if (!this.#isAborted) await this.#session(microphone.port);
    } finally {
      this.#socket?.close();
      this.#socket = null;
      for (const track of stream?.getTracks() ?? []) track.stop();
      await context?.close();
      this.#isRunning = false;
    }
  }

  /** Stop listening; the last words still come. The second time, or before there is a session, stop at once. */
  stop() {
    if (this.#isEnding || this.#socket?.readyState !== WebSocket.OPEN) {
      this.#isAborted = true;
      this.#socket?.close();
    }
    this.#isEnding = true;
    this.#send("input_audio_buffer.commit");
    this.#send("input_audio_buffer.clear");
  }

  /** Send the microphone's sound and show what comes back, until the connection is closed. */
  #session(microphone) {
    const address = new URL("/v1/realtime?intent=transcription", location.href);
    address.protocol = location.protocol.replace("http", "ws");
    const key = savedKey();
    if (!TOKEN.test(key)) throw new Error(NOT_A_TOKEN); // the browser's own message would show the key
    const socket = new WebSocket(address, ["realtime", ...(key ? [KEY + key] : [])]);
    this.#socket = socket;
    return new Promise((resolve, reject) => {
      let wasOpen = false;
      socket.addEventListener("open", () => {
        wasOpen = true;
        this.#send("session.update", { session: { type: "transcription", audio: { input: { transcription: this.#options() } } } });
        microphone.onmessage = ({ data }) => this.#isEnding || this.#send("input_audio_buffer.append", { audio: encoded(data) });
      });
      socket.addEventListener("message", ({ data }) => this.#hear(JSON.parse(data)));
      socket.addEventListener("close", ({ code, reason }) => {
        if (this.#isAborted || code === 1000 || code === 1005) resolve();
        else reject(new Error(reason || (wasOpen ? LOST : REFUSED)));
      });
    });
  }

  #options() {
    const transcription = { model: "whisper-1" };
    for (const name of ["language", "prompt"]) if (at(name).value.trim()) transcription[name] = at(name).value.trim();
    return transcription;
  }

  #send(type, members = {}) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, ...members }));
  }

  #hear(event) {
    if (event.type === `${TRANSCRIPTION}delta`) this.#line(event.item_id).append(event.delta);
    else if (event.type === `${TRANSCRIPTION}failed`) this.#line(event.item_id).append(` (${event.error.message})`);
    else if (event.type === "input_audio_buffer.committed") this.#open.add(event.item_id);
    else if (event.type === "input_audio_buffer.cleared") this.#isCleared = true;
    else this.#say(event);
    if (event.type === `${TRANSCRIPTION}completed` || event.type === `${TRANSCRIPTION}failed`) this.#open.delete(event.item_id);
    if (this.#isEnding && this.#isCleared && !this.#open.size) this.#socket.close(1000);
  }

  /** Show the session's state. A commit of nothing is no error: it ends every session. */
  #say(event) {
    const state = at("live-state");
    if (event.type === "input_audio_buffer.speech_started") state.textContent = "Listening.";
    else if (event.type === "rate_limits.updated") state.textContent = event.audio_behind_seconds ? `The service is busy; ${Math.round(event.audio_behind_seconds)} s behind.` : "Listening.";
    else if (event.type === "error" && event.error.code !== "input_audio_buffer_commit_empty") state.textContent = event.error.message;
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
