// What an answer rests on, as elements. Texts of models go through textContent alone.

/** An element with properties, and children that are elements or texts. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A, B, …, Z, AA, … */
export function letter(index) {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letter(Math.floor(index / 26) - 1) + last;
}

const number = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits });
const seconds = (value) => (value < 0.05 ? "under 0.1 s" : value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`);
const probability = (value) => value.toFixed(2);

/** Dollars in words. */
export function money(cost) {
  if (cost === null || cost === undefined) return "price unknown";
  if (cost === 0) return "free";
  return cost >= 0.01 ? `$${cost.toFixed(2)}` : `$${Number(cost.toPrecision(2))}`;
}

const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

/** One candidate's place beside the others: it is written into while its LLM writes. */
export class Card {
  constructor(index, model) {
    this.letter = letter(index);
    this.model = model;
    this.state = element("span", { className: "state" }, "waiting");
    this.body = element("div", { className: "prose" });
    this.facts = element("p", { className: "fine card-facts" });
    this.actions = element("div", { className: "actions" });
    const title = element("h3", { id: `candidate-${this.letter}` },
      element("span", { className: "letter" }, this.letter), ` ${model}`);
    this.root = element("article", { className: "card", "aria-labelledby": title.id, "aria-busy": "true" },
      element("header", {}, title, this.state), this.body, this.facts, this.actions);
  }

  get name() {
    return `${this.letter}, ${this.model}`;
  }

  write(text) {
    this.state.textContent = "writing";
    this.root.classList.add("writing");
    this.body.append(text);
  }

  wrote(text, took) {
    this.done = true;
    if (text !== undefined) this.body.textContent = text.trim();
    this.settle(took === null || took === undefined ? "written" : seconds(took));
  }

  fail(reason) {
    this.failed = true;
    this.root.classList.add("failed");
    this.settle(reason.replaceAll("_", " "));
  }

  explain(message) {
    this.facts.textContent = message;
  }

  settle(state) {
    this.state.textContent = state;
    this.root.classList.remove("writing");
    this.root.setAttribute("aria-busy", "false");
  }

  /** What the report says of it. */
  rank(candidate, best) {
    this.wrote(candidate.text, candidate.seconds);
    if (candidate.reasoning) {
      this.body.before(element("details", {}, element("summary", {}, "Thoughts"),
        element("div", { className: "prose" }, candidate.reasoning)));
    }
    this.state.textContent = best === null ? "" : `rank ${candidate.rank}`;
    this.root.classList.toggle("best", best === true);
    const facts = [];
    if (typeof candidate.seconds === "number") facts.push(seconds(candidate.seconds));
    if (candidate.usage) facts.push(`${number(candidate.usage.completion_tokens ?? 0, 0)} tokens`);
    facts.push(money(candidate.cost));
    if (candidate.finish_reason === "length") facts.push("cut off at its limit");
    this.facts.textContent = facts.join(" · ");
  }
}

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

/** Where the answer comes from, in a sentence or two. */
export function source(report, cards) {
  const { ranking, fusion } = report;
  const best = cards[ranking.best];
  const [, next] = order(ranking);
  if (report.mode === "fuse") {
    const used = (fusion.used ?? []).toSorted((i, j) => i - j).map((index) => cards[index].letter);
    return `Fused by ${fusion.fuser} from ${listed(used)}: ${fusion.message}.`;
  }
  let words = `Picked: ${best.name}`;
  if (next === undefined) words += ", the only answer.";
  else {
    const sure = ranking.probabilities[ranking.best][next];
    const surely = sure === null ? "they were not compared directly" : `probability ${probability(sure)}`;
    words += `, first of ${cards.length}. Better than the next, ${cards[next].letter}: ${surely}.`;
  }
  if (fusion) words += ` ${fusion.text ? "The fused text was set aside" : "Nothing was fused"}: ${fusion.message}.`;
  return words;
}

/** Times, tokens and dollars of all of it. */
export function facts(report) {
  const { usage, ranking } = report;
  const entries = [
    ...agreement(ranking),
    ["Time", seconds(report.seconds)],
    ["Cost", money(report.cost)],
    ["Tokens", `${number(usage?.prompt_tokens ?? 0, 0)} read, ${number(usage?.completion_tokens ?? 0, 0)} written`],
    ["Comparisons", `${ranking.comparisons} (${ranking.strategy})`],
  ];
  if (report.degraded) entries.push(["Note", "rests on less than was asked for"]);
  return entries.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

/** The final answer that most candidates give, if two agree: "4 of 5 answer 15". */
function agreement(ranking) {
  const answers = (ranking.evidence?.answers ?? []).filter((answer) => answer !== null);
  const counts = new Map();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const [answer, count] = [...counts].reduce((most, entry) => (entry[1] > most[1] ? entry : most), ["", 1]);
  return count > 1 ? [["Agreement", `${count} of ${answers.length} answer ${answer}`]] : [];
}

/** The win probabilities as a heat map: rows and columns best first. */
export function matrix(ranking, cards) {
  const places = order(ranking);
  const head = element("tr", {}, element("th", { scope: "col" }, "Rank"), element("th", { scope: "col" }, "Candidate"),
    ...places.map((j) => element("th", { scope: "col", "aria-label": `beats ${cards[j].name}` }, cards[j].letter)),
    element("th", { scope: "col" }, "Mean"));
  const rows = places.map((i) => element("tr", {},
    element("td", { className: "rank" }, String(ranking.ranks[i])),
    element("th", { scope: "row" }, element("span", { className: "letter" }, cards[i].letter), ` ${cards[i].model}`),
    ...places.map((j) => (i === j ? element("td", { className: "self" }, element("span", { className: "unseen" }, "itself"))
      : heat(ranking.probabilities[i][j]))),
    element("td", { className: "mean" }, mean(ranking.probabilities[i].filter((p, j) => j !== i)))));
  return [
    element("caption", {}, "How probable it is that the candidate of the row is better than that of the column, as the ranker sees it."),
    element("thead", {}, head),
    element("tbody", {}, ...rows),
  ];
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

/** The mean probability; none of a candidate that was not compared with all others, whose mean would be another's. */
function mean(values) {
  return values.length && !values.includes(null) ? probability(values.reduce((sum, value) => sum + value, 0) / values.length) : "–";
}
