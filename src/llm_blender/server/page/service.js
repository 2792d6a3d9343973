// The service's API: requests with the key, and its streams.

const KEY = "llm-blender-key";

/** What the service refused, in its own words. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `The service answered with status ${status}.`);
    this.status = status;
    this.code = error?.code;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** Gets the key from the user; its argument is whether one was wrong. Set by the page. */
let askForKey = async () => { throw new Error("no form for keys"); };
export const onKeyWanted = (ask) => { askForKey = ask; };

/** A request to the service; asks for the key where one is wanted, and raises `Refused`. */
export async function call(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = {};
    if (key !== null) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await reached(fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }));
    if (response.ok) return response;
    if (response.status === 401) {
      sessionStorage.setItem(KEY, await askForKey(key !== null));
      continue;
    }
    throw new Refused(response.status, (await response.json().catch(() => null))?.error);
  }
}

/** What comes over the network; browsers name its trouble in words of their own. */
async function reached(coming) {
  try {
    return await coming;
  } catch (error) {
    throw error instanceof TypeError ? new Error("The service cannot be reached: does it still run?") : error;
  }
}

/** The JSON that a request gives. */
export const json = async (path, options) => (await call(path, options)).json();

/**
 * Asks a question and follows its stream.
 *
 * `tell` gets the events of the stages, `{event, …}`, and `{event: "text", text}` for pieces of the answer.
 * Gives the completion's id and the report under `blend`.
 */
export async function ask(body, tell, signal) {
  const response = await call("v1/chat/completions", { method: "POST", body: { ...body, stream: true }, signal });
  let id = null;
  let report = null;
  for await (const line of lines(response.body)) {
    if (line.startsWith(": blend ")) tell(JSON.parse(line.slice(8)));
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new Refused(200, chunk.error);
    id = chunk.id;
    report = chunk.blend ?? report;
    const text = chunk.choices[0]?.index === 0 ? chunk.choices[0].delta.content : null;
    if (text) tell({ event: "text", text });
  }
  if (report === null) throw new Error("The connection ended before the answer was complete.");
  return { id, report };
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}
