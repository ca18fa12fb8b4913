// The lines that do the same from a terminal and from a program. A key is never among them.

/** Text as one word of a shell. */
const word = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The fields other than file and model. */
function fields({ format, language, prompt, translate }) {
  const found = { response_format: format };
  if (language && !translate) found.language = language;
  if (prompt) found.prompt = prompt;
  return found;
}

const route = (wish) => (wish.translate ? "translations" : "transcriptions");

/**
 * A request with curl.
 * @param wish name of the file, format, and as wanted language, prompt, translate, stream, asksForKey.
 */
export function curl(wish) {
  const parts = ["curl"];
  if (wish.stream) parts.push("-N");
  if (wish.asksForKey) parts.push('-H "Authorization: Bearer $KEY"');
  parts.push(`-F ${word(`file=@${wish.name}`)}`, "-F model=whisper-1");
  const { response_format, ...others } = fields(wish);
  const given = wish.stream ? { stream: "true", ...others } : { response_format, ...others };
  for (const [name, value] of Object.entries(given)) parts.push(`-F ${word(`${name}=${value}`)}`);
  return `${parts.join(" ")} \\\n  ${location.origin}/v1/audio/${route(wish)}`;
}

/** The same with OpenAI's client for Python. */
export function python(wish) {
  const given = Object.entries(fields(wish)).map(([name, value]) => `        ${name}=${JSON.stringify(value)},\n`);
  const result = wish.format.endsWith("json") ? "answer.text" : "answer";
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="${wish.asksForKey ? "KEY" : "any"}")
with open(${JSON.stringify(wish.name)}, "rb") as file:
    answer = client.audio.${route(wish)}.create(
        file=file,
        model="whisper-1",
${given.join("")}    )
print(${result})`;
}
