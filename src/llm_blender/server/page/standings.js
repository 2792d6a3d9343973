// The standings: who wins how often, by votes and by the ranker, as a table of bars with their intervals.

import { element, svg } from "./elements.js";
import { json } from "./service.js";

const KINDS = [["all", "all prompts"], ["answer", "prompts with a final answer"], ["code", "prompts for code"], ["other", "other prompts"]];

/**
 * Fills an element with the standings: the only function that the page needs.
 *
 * It loads its style sheet, and shows an error in the element: it never rejects.
 */
export async function showStandings(container) {
  container.setAttribute("aria-busy", "true");
  try {
    const [standings] = await Promise.all([json("v1/standings"), style()]);
    container.replaceChildren(element("div", { className: "standings" }, ...parts(standings)));
  } catch (error) {
    container.replaceChildren(element("p", { className: "alert", role: "alert" }, error.message));
  } finally {
    container.removeAttribute("aria-busy");
  }
}

/** Loads the style sheet, once. */
let loaded = null;
function style() {
  loaded ??= new Promise((resolve) => {
    const link = element("link", { rel: "stylesheet", href: new URL("./standings.css", import.meta.url).href });
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve); // it is legible without
    document.head.append(link);
  });
  return loaded;
}

function parts({ data, rankings, voted, missing, used }) {
  const votes = { blind: total(data, "blind"), open: total(data, "open") };
  if (!rankings && !votes.blind && !votes.open) {
    return [element("p", {}, "There is nothing to compare yet: ask two LLMs or more, and vote for the better answer.")];
  }
  const priors = used ? " They count as priors." : missing ? ` Priors need ${count(missing)} more.` : "";
  return [
    element("p", {}, `${plural(rankings, "ranking")}, ${from(votes.blind, voted.blind, "blind vote")} and ${from(votes.open, voted.open, "open vote")}. `
      + "A line on a bar is the 95 % interval: where two overlap widely, chance may have made the order."),
    ...table(data),
    element("p", { className: "fine" }, "Blind votes were given without names and ranks. The best of three answers wins two comparisons; a tie is half "
      + "a win, and the dotted line is one half. Ranked first: how often the ranker put an answer of the LLM first. "
      + `Strength: in logits, relative to the mean of the LLMs, from all comparisons of the recorded rankings.${priors}`),
  ];
}

// ── The table ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** The table, after the choice of a kind of prompt if there are several kinds. */
function table(data) {
  const scale = Math.max(...data.flatMap(({ ci95 }) => (ci95 ?? [0]).map(Math.abs))) || 1;
  let kind = "all";
  const ranker = (llm) => (kind === "all" ? llm.ranker : llm.kinds[kind]);
  const columns = [
    { title: "LLM", value: ({ llm }) => llm },
    { title: "Blind votes", value: ({ blind }) => rate(blind), cell: ({ blind }) => share(blind, "blind votes", true) },
    { title: "Open votes", value: ({ open }) => rate(open), cell: ({ open }) => share(open, "open votes", true) },
    { title: "Ranked first", value: (llm) => rate(ranker(llm)), cell: (llm) => share(ranker(llm), "prompts", false) },
    { title: "Strength", value: ({ strength }) => strength, cell: (llm) => strengthOf(llm, scale) },
  ];
  let by = { column: columns.findLast(({ value }) => data.some((llm) => value(llm) !== null)), down: true };

  const heads = columns.map((column) => {
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      by = { column, down: by.column === column ? !by.down : column.cell !== undefined };
      refresh();
    });
    return element("th", { scope: "col", role: "columnheader" }, button);
  });
  const body = element("tbody", { role: "rowgroup" });
  function refresh() {
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", columns[i] !== by.column ? "none" : by.down ? "descending" : "ascending"));
    body.replaceChildren(...sorted(data, by).map((llm) => element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader" }, element("span", {}, llm.llm),
        llm.model === llm.llm ? null : element("span", { className: "fine" }, llm.model)),
      ...columns.slice(1).map((column) =>
        element("td", { role: "cell", "data-title": column.title }, ...column.cell(llm))))));
  }
  refresh();
  const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads));
  const caption = element("caption", { className: "unseen" }, "Standings of the LLMs; the buttons in the head sort them");
  const choice = kinds(data, (chosen) => { kind = chosen; refresh(); });
  return [choice, element("table", { role: "table" }, caption, head, body)].filter((part) => part !== null);
}

/** A choice of the prompts that the ranker's column counts; null if all are of one kind. */
function kinds(data, choose) {
  const known = KINDS.filter(([kind]) => kind === "all" || data.some((llm) => llm.kinds[kind].count));
  if (known.length < 3) return null;
  const select = element("select", { id: "standings-kind" },
    ...known.map(([kind, words]) => element("option", { value: kind }, words)));
  select.addEventListener("change", () => choose(select.value));
  return element("p", { className: "kinds" }, element("label", { for: select.id }, "Ranked first on"), select);
}

/** The LLMs in the order of a column; those without a value are last. */
function sorted(data, { column, down }) {
  const known = data.filter((llm) => column.value(llm) !== null);
  known.sort((one, other) => {
    const [a, b] = [column.value(one), column.value(other)];
    return (down ? -1 : 1) * (typeof a === "string" ? a.localeCompare(b) : a - b);
  });
  return [...known, ...data.filter((llm) => column.value(llm) === null)];
}

// ── Pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** A share as a bar with its interval, and in words. */
function share({ count: of, won, ci95 }, unit, half) {
  if (!of) return [element("span", { className: "none" }, `no ${unit}`)];
  const [low, high] = ci95.map((end) => 100 * end);
  const wins = (100 * won) / of;
  return [
    picture(
      svg("rect", { class: "track", width: "100%", height: 12, y: 4, rx: 2 }),
      svg("rect", { class: "bar", width: `${wins}%`, height: 12, y: 4, rx: 2 }),
      half ? svg("line", { class: "half", x1: "50%", x2: "50%", y1: 0, y2: 20 }) : null,
      ...whisker(low, high)),
    words(`${Math.round(wins)} %`, ` of ${count(of)}`, `${Math.round(low)} to ${Math.round(high)} %`),
  ];
}

/** A strength as a point with its interval, on a scale from −`scale` to `scale`. */
function strengthOf({ strength, ci95, comparisons }, scale) {
  if (strength === null) return [element("span", { className: "none" }, "no comparisons")];
  const at = (value) => 50 + (48 * value) / scale;
  return [
    picture(
      svg("line", { class: "axis", x1: 0, x2: "100%", y1: 10, y2: 10 }),
      svg("line", { class: "half", x1: "50%", x2: "50%", y1: 0, y2: 20 }),
      ...whisker(...ci95.map(at)),
      svg("circle", { class: "bar", cx: `${at(strength)}%`, cy: 10, r: 5 })),
    words(signed(strength), ` in ${count(comparisons)}`, ci95.map(signed).join(" to ")),
  ];
}

const words = (value, number, interval) =>
  element("span", { className: "words" }, element("span", {}, element("b", {}, value), number), element("span", { className: "fine" }, interval));

const picture = (...shapes) => svg("svg", { width: "100%", height: 20, "aria-hidden": "true" }, ...shapes);

/** A line from one place to another, in per cent, with its ends. */
const whisker = (low, high) => [
  svg("line", { class: "whisker", x1: `${low}%`, x2: `${high}%`, y1: 10, y2: 10 }),
  ...[low, high].map((end) => svg("line", { class: "whisker", x1: `${end}%`, x2: `${end}%`, y1: 6, y2: 14 })),
];

// ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────

const rate = ({ count, won }) => (count ? won / count : null);
const total = (data, kind) => data.reduce((sum, llm) => sum + llm[kind].count, 0) / 2; // each vote is on two
const count = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
const from = (comparisons, votes, kind) =>
  (votes ? `${plural(comparisons, "comparison")} from ${plural(votes, kind)}` : `no ${kind}s`);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
