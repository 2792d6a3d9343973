import assert from "node:assert/strict";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const best = "Air scatters blue light most.";
const prompt = "Why is the sky blue?";
const weather = tool({
  description: "Look at the weather.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});
for (const model of [blend("blend"), blend.completionModel("blend")]) {
  assert.equal((await generateText({ model, prompt })).text, best);
  let text = "";
  for await (const piece of streamText({ model, prompt }).textStream) text += piece;
  assert.equal(text, best);
}
const result = await generateText({ model: blend("blend"), prompt, tools: { weather }, stopWhen: stepCountIs(3) });
assert.match(result.text, /rain in Paris/);
const providerOptions = { blend: { blend: { candidates: false } } };
assert.equal((await generateText({ model: blend("blend"), prompt, providerOptions })).text, best);
console.log("passed");
