// Sends one recording many times at once, as a program does that has a folder of them.
//
// node at_once.mjs VERSION BASE_URL RECORDING HOW_MANY RETRIES
import fs from "node:fs";

const [version, baseURL, recording, howMany, maxRetries] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(`openai-${version}`);
const client = new OpenAI({ apiKey: "any", baseURL, maxRetries: Number(maxRetries) });

// A file that is read as a stream cannot be sent twice: the client gives up at the first refusal.
const file = await toFile(fs.readFileSync(recording), "recording.wav");
const answers = await Promise.all(
  Array.from({ length: Number(howMany) }, () =>
    client.audio.transcriptions
      .create({ model: "whisper-1", file, response_format: "json" })
      .then((answer) => answer.text)
      .catch((error) => `${error.constructor.name} ${error.status}`),
  ),
);
console.log(JSON.stringify({ answers }));
