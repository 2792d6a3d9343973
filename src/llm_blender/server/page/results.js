// What an answer rests on: a sentence, the costs, and the table of the comparisons.

import { element } from "./elements.js";
import { agreement, flaw, isCut, listed, missing, money, number, probability, seconds, surely } from "./words.js";

/** Indices of the candidates, best first. */
export function order(ranking) {
  const indices = ranking.ranks.map((_, index) => index);
  return indices.sort((i, j) => (j === ranking.best) - (i === ranking.best) || ranking.ranks[i] - ranking.ranks[j] || i - j);
}

/** The text that was fused, where it is something else than a candidate: it can be voted for too. */
export function fusedText(report) {
  const text = report.fusion?.text;
  return text && !report.candidates.some((candidate) => candidate.text.trim() === text) ? text : null;
}

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;

/** Where the answer comes from. `cards` are those of the candidates. */
export function source(report, cards) {
  const { ranking, fusion, failures, candidates } = report;
  const sentences = [];
  if (report.mode === "fuse") {
    const used = (fusion.used ?? []).toSorted((i, j) => i - j).map((index) => cards[index].letter);
    sentences.push(`Fused by ${fusion.fuser} from ${listed(used)}: ${fusion.message}`);
  } else {
    sentences.push(...choice(report, cards));
    if (fusion) sentences.push(`${fusion.text ? "The fused text was set aside" : "Nothing was fused"}: ${fusion.message}`);
  }
  sentences.push(agreement(ranking), missing(failures.length, failures.length + candidates.length));
  if (report.degraded && !failures.length) sentences.push("It rests on fewer answers than are configured");
  return sentences.filter(Boolean).map(sentence).join(" ");
}

/** Why an answer was picked, in sentences that do not contradict each other. */
function choice({ ranking, candidates }, cards) {
  const [first, ...rest] = order(ranking);
  const { name } = cards[first];
  if (!rest.length) return [`${name} gave the only answer`];
  const others = rest.filter((i) => cards[i].text !== cards[first].text);
  if (!others.length) return [`Picked ${name}: all ${candidates.length} answers have the same text`];
  const [next] = others;
  const flaws = ranking.evidence?.flaws ?? [];
  const cut = isCut(candidates[first]) ? [] : others.filter((i) => isCut(candidates[i]));
  const wrong = others.filter((i) => !cut.includes(i)).flatMap((i) =>
    (flaws[i] ?? []).filter((found) => !flaws[first].includes(found)).map((found) => `${cards[i].letter} ${flaw(found)}`));
  const broken = `${listed(cut.map((i) => cards[i].letter))} ${cut.length > 1 ? "were" : "was"} cut off`;
  const means = ranking.probabilities.map((_, i) => meanOf(ranking, i));
  const ahead = others.filter((i) => !cut.includes(i) && means[i] > means[first] + 0.005).map((i) => cards[i].letter);
  return [
    `Picked ${name}: ${cut.includes(next) ? broken : surely(ranking.probabilities[first][next], `the next, ${cards[next].letter}`)}`,
    cut.length > 0 && !cut.includes(next) && `${broken} and ${cut.length > 1 ? "rank" : "ranks"} behind the whole answers`,
    wrong.join("; "),
    ahead.length > 0 && `${listed(ahead)} ${ahead.length > 1 ? "have" : "has"} the higher mean probability, but the ranks go by the scores`,
  ];
}

/** Time, dollars, tokens and comparisons of all of it, in a line. */
export function facts(report) {
  const { usage, ranking } = report;
  const entries = [
    ["Time", seconds(report.seconds)],
    ["Cost", money(report.cost)],
    ["Tokens", `${number(usage?.prompt_tokens ?? 0)} read, ${number(usage?.completion_tokens ?? 0)} written`],
    ["Comparisons", ranking.comparisons ? `${ranking.comparisons} (${ranking.strategy})` : "none"],
  ];
  return entries.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

/** The win probabilities as a heat map: rows and columns best first. */
export function matrix(ranking, cards) {
  const places = order(ranking);
  const rankOf = (i) => {
    const same = places.find((j) => cards[j].text === cards[i].text);
    return same === i ? String(ranking.ranks[i]) : `= ${cards[same].letter}`;
  };
  const head = element("tr", {}, element("th", { scope: "col" }, "Rank"), element("th", { scope: "col" }, "Candidate"),
    ...places.map((j) => element("th", { scope: "col", "aria-label": `beats ${cards[j].name}` }, cards[j].letter)),
    element("th", { scope: "col" }, "Mean"));
  const rows = places.map((i) => element("tr", {},
    element("td", { className: "rank" }, rankOf(i)),
    element("th", { scope: "row" }, element("span", { className: "letter" }, cards[i].letter), ` ${cards[i].model}`),
    ...places.map((j) => (i === j ? element("td", { className: "self" }, element("span", { className: "unseen" }, "itself"))
      : heat(ranking.probabilities[i][j]))),
    element("td", { className: "mean" }, mean(ranking, i))));
  return element("table", { className: "matrix" },
    element("caption", {}, "How probable it is that the candidate of the row is better than that of the column, as the ranker sees it."),
    element("thead", {}, head),
    element("tbody", {}, ...rows));
}

function heat(value) {
  if (value === null) {
    return element("td", { className: "unknown" }, element("span", { "aria-hidden": "true" }, "–"),
      element("span", { className: "unseen" }, "not compared"));
  }
  const cell = element("td", { className: value >= 0.5 ? "heat win" : "heat loss" }, probability(value));
  cell.style.setProperty("--share", `${Math.round(Math.abs(value - 0.5) * 120)}%`);
  return cell;
}

/** The mean probability; null of a candidate that was not compared with all others, whose mean would be another's. */
function meanOf(ranking, i) {
  const values = ranking.probabilities[i].filter((_, j) => j !== i);
  return values.length && !values.includes(null) ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function mean(ranking, i) {
  const value = meanOf(ranking, i);
  return value === null ? "–" : probability(value);
}
