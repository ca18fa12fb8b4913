// Runs in the audio thread: the microphone's sound as 16-bit samples at 24 kHz, a tenth of a second at a time.

const RATE = 24000; // of OpenAI's Realtime API

class Microphone extends AudioWorkletProcessor {
  #samples = new Int16Array(RATE / 10);
  #filled = 0;
  #sum = 0; // of the output sample that is being heard
  #heard = 0; // how much of it, from 0 to 1

  process([[channel]]) {
    for (const value of channel ?? []) this.#resample(value);
    return true;
  }

  /** Each output sample is the mean of the sound during it. */
  #resample(value) {
    let left = RATE / sampleRate; // the input sample's duration, in output samples
    while (this.#heard + left >= 1) {
      const rest = 1 - this.#heard;
      this.#put(this.#sum + value * rest);
      left -= rest;
      this.#sum = this.#heard = 0;
    }
    this.#sum += value * left;
    this.#heard += left;
  }

  #put(value) {
    this.#samples[this.#filled++] = Math.max(-1, Math.min(1, value)) * 32767;
    if (this.#filled < this.#samples.length) return;
    this.port.postMessage(this.#samples.slice());
    this.#filled = 0;
  }
}

registerProcessor("microphone", Microphone);
