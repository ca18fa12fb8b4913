// What OpenAI's client for Node makes of the service's answers; see tests/service/test_clients.py.
// node client.mjs VERSION BASE_URL RECORDING NO_RECORDING LONG_RECORDING
import fs from "node:fs";

const [version, baseURL, recording, noRecording, longRecording] = process.argv.slice(2);
const { default: OpenAI } = await import(`openai-${version}`);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });

const ask = (further, path = recording) =>
  client.audio.transcriptions.create({ file: fs.createReadStream(path), model: "whisper-1", ...further });

const found = {};
const begun = {};

for (const format of ["json", "verbose_json", "text", "srt", "vtt"]) {
  found[format] = await ask({
    response_format: format,
    ...(format === "verbose_json" ? { timestamp_granularities: ["word", "segment"] } : {}),
  });
}
found.logprobs = await ask({ response_format: "json", include: ["logprobs"] });
found.events = [];
begun.at = performance.now();
for await (const event of await ask({ stream: true, include: ["logprobs"] }, longRecording)) {
  begun.first ??= performance.now() - begun.at;
  found.events.push(event);
}
found.first_share = begun.first / (performance.now() - begun.at);
found.models = (await client.models.list()).data.map((one) => one.id);
found.model = (await client.models.retrieve(found.models[0])).object;

const failures = {
  bad_audio: () => ask({}, noRecording),
  bad_audio_stream: () => ask({ stream: true }, noRecording),
  bad_field: () => ask({ language: "klingon" }),
  no_translation: () =>
    client.audio.translations.create({ file: fs.createReadStream(recording), model: "whisper-1" }),
  no_model: () => client.models.retrieve("none"),
};
found.errors = {};
for (const [name, call] of Object.entries(failures)) {
  try {
    await call();
  } catch (error) {
    found.errors[name] = [error.constructor.name, error.status, error.param];
  }
}
console.log(JSON.stringify(found));
