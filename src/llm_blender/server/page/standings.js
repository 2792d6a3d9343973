// The standings: how often the ranker and people prefer each LLM, and at what kind of prompt.

import { json } from "./service.js";
import { element } from "./elements.js";

const $ = (id) => document.getElementById(id);
const KINDS = [["answer", "Final answers"], ["code", "Code"], ["other", "Other prompts"]];

/** Connects the panel; `attempt` does work and tells its trouble. */
export function connectStandings(attempt) {
  $("open-standings").addEventListener("click", () => attempt(async () => {
    show(await json("v1/standings"));
    $("standings").showModal();
  }));
  $("close-standings").addEventListener("click", () => $("standings").close());
}

function show({ data, rankings, missing, used }) {
  const state = used ? " They count as priors." : missing ? ` Priors need ${missing} more.` : "";
  $("standings-note").textContent = `${rankings} rankings of these LLMs are recorded, without texts.${state} `
    + "A strength is in logits, relative to the mean, with its 95 % interval.";
  const heads = ["LLM", "First places", ...KINDS.map(([, title]) => title), "Votes won", "Strength"];
  const rows = data.map(({ llm, model, ranker, votes, kinds, strength, ci95 }) => element("tr", {},
    element("th", { scope: "row", title: model }, llm),
    ...[ranker, ...KINDS.map(([kind]) => kinds[kind]), votes].map((each) => element("td", {}, share(each))),
    element("td", {}, strength === null ? "–" : `${signed(strength)} (${ci95.map(signed).join(" to ")})`)));
  $("standings-table").replaceChildren(
    element("caption", {}, "Shares of the prompts with an answer of the LLM, strongest first"),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows));
}

const share = ({ count, won }) => (count ? `${Math.round((100 * won) / count)} % of ${count}` : "–");
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
