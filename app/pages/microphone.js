// Runs in the audio thread: the microphone's sound as 16-bit samples, a tenth of a second at a time.

class Microphone extends AudioWorkletProcessor {
  #samples = new Int16Array(sampleRate / 10);
  #filled = 0;

  process([[channel]]) {
    for (const value of channel ?? []) {
      this.#samples[this.#filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.#filled < this.#samples.length) continue;
      this.port.postMessage(this.#samples.slice());
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
