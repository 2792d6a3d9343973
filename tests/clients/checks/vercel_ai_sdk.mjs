import assert from "node:assert/strict";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const best = "Air scatters blue light most.";
const prompt = "Why is the sky blue?";
const weather = tool({
  description: "Look at the weather.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});
// The default speaks the Responses API; the others chat and the older completions.
for (const model of [blend("blend"), blend.chat("blend"), blend.completion("blend")]) {
  assert.equal((await generateText({ model, prompt })).text, best);
  let text = "";
  for await (const piece of streamText({ model, prompt }).textStream) text += piece;
  assert.equal(text, best);
}
for (const model of [blend("blend"), blend.chat("blend")]) {
  const result = await generateText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(3) });
  assert.match(result.text, /rain in Paris/);
  const streamed = streamText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(3) });
  assert.match(await streamed.text, /rain in Paris/);
  const { object } = await generateObject({ model, prompt, schema: z.object({ city: z.string() }) });
  assert.deepEqual(object, { city: "Paris" });
}
console.log("passed");
