// The page: asks, shows what comes, takes votes, and finds earlier questions again.

import { connectHistory } from "./past.js";
import { Card, element, facts, fusedText, matrix, source } from "./results.js";
import { showStandings } from "./standings.js";
import { ask, forgetKey, hasKey, json, onKeyWanted } from "./service.js";

const $ = (id) => document.getElementById(id);

let info = null; // what `/v1/ensemble` says
let asking = null; // the AbortController of the question under way
let shown = null; // {id, names, buttons} of the kept answer that is shown: of what can be voted for

// ── Beginning ─────────────────────────────────────────────────────────────────────────────────────────────────────

onKeyWanted(async (wrong) => {
  const dialog = $("key-dialog");
  $("key-wrong").hidden = !wrong;
  $("key").value = "";
  if (!dialog.open) dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const key = $("key").value.trim();
  $("key").value = "";
  if (!key) throw new Error("Without a key, the service does not answer: reload the page to give one.");
  return key;
});

async function begin() {
  info = await json("v1/ensemble");
  const names = info.llms.map(({ name, samples }) => (samples > 1 ? `${name} × ${samples}` : name));
  $("members").append(...info.llms.map(({ name }, i) => element("label", {},
    element("input", { type: "checkbox", name: "member", value: name, checked: true }), " ",
    element("span", {}, names[i]))));
  for (const radio of $("modes").querySelectorAll("input")) {
    radio.disabled = !info.modes.includes(radio.value);
    radio.checked = radio.value === info.mode;
  }
  $("no-fuser").hidden = info.modes.includes("fuse");
  $("open-history").hidden = $("open-standings").hidden = !info.history;
  $("forget-key").hidden = !hasKey();
  const id = location.hash.slice(1);
  if (info.history && id.startsWith("chatcmpl-")) await openKept(id);
  else $("question").focus();
}

// ── Asking ────────────────────────────────────────────────────────────────────────────────────────────────────────

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (asking === null) attempt(askNow);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => asking?.abort());

async function askNow() {
  const question = $("question").value.trim();
  const members = [...document.querySelectorAll("input[name=member]:checked")].map((box) => box.value);
  if (!question) return $("question").focus();
  if (!members.length) throw new Error("Choose at least one member.");
  const blend = { watch: true, keep: info.history, mode: document.querySelector("input[name=mode]:checked")?.value };
  if (members.length < info.llms.length) blend.llms = members;
  const body = { model: "blend", messages: [{ role: "user", content: question }], blend };
  asking = new AbortController();
  clear(question);
  working(true);
  const live = new Live();
  try {
    const { id, report } = await ask(body, (event) => live.tell(event), asking.signal);
    show(report, live.text || textOf(report), live.answered, live.failed, report.kept ? id : null);
    if (report.kept) location.replace(`#${id}`);
    say(report.kept === false ? "The answer is there; it could not be kept." : "The answer is there.");
    $("answer").focus({ preventScroll: true });
  } catch (error) {
    live.end();
    stages(null);
    if (error.name !== "AbortError") throw error;
    say("Stopped.");
  } finally {
    asking = null;
    working(false);
  }
}

/** What a question's stages do to the page. */
class Live {
  constructor() {
    this.cards = [];
    this.text = "";
    stages("write");
  }

  /** The cards of the calls that have an answer: the candidates, in their order. */
  get answered() {
    return this.cards.filter((card) => card.done);
  }

  get failed() {
    return this.cards.filter((card) => card.failed);
  }

  tell(event) {
    const card = this.cards[event.call];
    switch (event.event) {
      case "started":
        this.cards = event.llms.map((name, index) => new Card(index, name));
        $("candidates").replaceChildren(...this.cards.map(({ root }) => root));
        return this.count();
      case "writing":
        return card.write(event.text);
      case "wrote":
        card.wrote(event.text, event.seconds);
        return this.count();
      case "failed":
        card.fail(event.reason);
        return this.count();
      case "comparing":
        stages("compare");
        return say(`Comparing: ${event.done} of ${event.total}.`);
      case "fusing":
        stages("fuse");
        say("Fusing the best answers.");
        $("answer-text").classList.add("draft");
        return $("answer-text").append(event.text);
      case "text":
        if (!this.text) $("answer-text").replaceChildren();
        $("answer-text").classList.remove("draft");
        this.text += event.text;
        return $("answer-text").append(event.text);
    }
  }

  count() {
    const { length } = this.cards;
    const failed = this.failed.length ? `, ${this.failed.length} failed` : "";
    say(`${this.answered.length} of ${length} have answered${failed}.`);
  }

  end() {
    for (const card of this.cards) if (!card.done && !card.failed) card.fail("no answer");
  }
}

// ── Showing ───────────────────────────────────────────────────────────────────────────────────────────────────────

function clear(question) {
  shown = null;
  $("results").hidden = false;
  $("asked").textContent = question;
  for (const id of ["candidates", "left-out", "answer-text", "source", "facts", "answer-vote", "matrix", "trouble"]) {
    $(id).replaceChildren();
  }
  $("answer-text").classList.remove("draft");
  $("answer").classList.remove("settled");
  $("comparison").hidden = $("vote").hidden = true;
}

/** All that a report says. `cards` are those of its candidates; `failed`, of calls without an answer; `id` may be null. */
function show(report, text, cards, failed, id, votes = []) {
  const { ranking, candidates } = report;
  stages(null);
  $("answer-text").classList.remove("draft");
  $("answer-text").textContent = text.trim();
  $("source").textContent = source(report, cards);
  $("facts").replaceChildren(...facts(report));
  $("answer").classList.add("settled");
  candidates.forEach((candidate, i) => cards[i].rank(candidate, candidates.length > 1 ? i === ranking.best : null));
  const unseen = report.failures.length - failed.length; // those that were not asked come first, and have no card
  failed.forEach((card, i) => card.explain(report.failures[unseen + i].message));
  $("left-out").replaceChildren(...report.failures.slice(0, unseen).map(({ message }) => element("li", {}, message)));
  $("comparison").hidden = candidates.length < 2;
  if (candidates.length > 1) $("matrix").replaceChildren(...matrix(ranking, cards));
  $("compared").textContent = `${ranking.comparisons} comparisons, strategy ${ranking.strategy}.`;

  const fused = fusedText(report);
  const names = cards.map(({ name }) => name);
  const places = cards.map(({ actions }) => actions);
  if (fused !== null) {
    names.push("Fused");
    places.push(report.mode === "fuse" ? $("answer-vote") : setAside(fused, report.fusion));
  }
  if (id === null || names.length < 2) return;
  const buttons = names.map((name, i) => element("button", {
    type: "button", className: "prefer", "aria-pressed": "false", "aria-label": `Prefer ${name}, to all others`,
    onclick: () => attempt(() => prefer(i)),
  }));
  shown = { id, names, buttons };
  places.forEach((place, i) => place.replaceChildren(buttons[i]));
  const options = () => names.map((name, i) => element("option", { value: String(i) }, name));
  $("first").replaceChildren(...options());
  $("second").replaceChildren(...options());
  $("second").value = "1";
  $("vote").hidden = false;
  showVotes(votes);
}

/** A place for a text that was fused, and not given back. */
function setAside(text, fusion) {
  const actions = element("div", { className: "actions" });
  $("candidates").append(element("article", { className: "card aside", "aria-labelledby": "aside-title" },
    element("header", {}, element("h3", { id: "aside-title" }, "Fused"), element("span", { className: "state" }, "set aside")),
    element("div", { className: "prose" }, text), element("p", { className: "fine card-facts" }, `by ${fusion.fuser}`), actions));
  return actions;
}

const textOf = (report) => (report.mode === "fuse" ? report.fusion.text : report.candidates[report.ranking.best].text);

async function openKept(id) {
  asking?.abort();
  const kept = await json(`v1/history/${encodeURIComponent(id)}`);
  const question = kept.messages.at(-1).content;
  clear(question);
  $("question").value = question;
  location.replace(`#${id}`);
  const cards = kept.blend.candidates.map((candidate, index) => new Card(index, candidate.model ?? "unknown"));
  $("candidates").replaceChildren(...cards.map(({ root }) => root));
  show(kept.blend, kept.text, cards, [], kept.id, kept.votes);
  say("");
}

// ── Votes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function vote(body) {
  showVotes((await json(`v1/history/${shown.id}/votes`, { method: "POST", body })).votes);
}

async function takeBack() {
  showVotes((await json(`v1/history/${shown.id}/votes`, { method: "DELETE" })).votes);
}

const prefer = (index) =>
  (shown.buttons[index].getAttribute("aria-pressed") === "true" ? takeBack() : vote({ preferred: index }));

$("pair").addEventListener("submit", (event) => {
  event.preventDefault();
  const [first, second] = [Number($("first").value), Number($("second").value)];
  const verdict = event.submitter?.value;
  if (first === second) return complain(new Error("Choose two different answers to compare."));
  attempt(() => vote(verdict === "second" ? { preferred: second, over: [first] }
    : { preferred: first, over: [second], tie: verdict === "tie" }));
});
$("take-back").addEventListener("click", () => attempt(takeBack));

function showVotes(votes) {
  const short = (index) => shown.names[index].split(",")[0];
  shown.buttons.forEach((button, index) => {
    const beaten = votes.filter(({ a, b, label }) => (label === "a" && a === index) || (label === "b" && b === index));
    const pressed = beaten.length === shown.names.length - 1;
    button.setAttribute("aria-pressed", String(pressed));
    button.textContent = pressed ? "Preferred" : "Prefer this";
  });
  const words = votes.map(({ a, b, label }) => (label === "tie" ? `${short(a)} and ${short(b)} are equally good`
    : label === "a" ? `${short(a)} is better than ${short(b)}` : `${short(b)} is better than ${short(a)}`));
  $("votes").textContent = words.length ? `Kept: ${words.join("; ")}.` : "Which answer do you prefer? Votes train rankers.";
  $("take-back").hidden = !votes.length;
}

// ── Saying what happens ───────────────────────────────────────────────────────────────────────────────────────────

$("open-standings").addEventListener("click", async () => {
  await showStandings($("standings-body"));
  $("standings").showModal();
});
$("close-standings").addEventListener("click", () => $("standings").close());

$("forget-key").addEventListener("click", () => {
  forgetKey();
  location.reload();
});

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function complain(error) {
  say("");
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  $("trouble").replaceChildren(element("p", { className: "alert" }, error.message));
}

async function attempt(work) {
  $("trouble").replaceChildren();
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

function working(busy) {
  $("go").disabled = busy;
  $("stop").hidden = !busy;
  $("answer").setAttribute("aria-busy", String(busy));
}

/** Where the work stands: write, compare, fuse; null when it is over. */
function stages(now) {
  const mode = document.querySelector("input[name=mode]:checked")?.value;
  const all = [["write", "Write"], ["compare", "Compare"], ...(mode === "pick" ? [] : [["fuse", "Fuse"]])];
  const place = all.findIndex(([name]) => name === now);
  $("stages").replaceChildren(...(now === null ? [] : all.map(([, word], i) =>
    element("li", { className: i < place ? "past" : i === place ? "now" : "" }, word))));
}

connectHistory(openKept, attempt);
attempt(begin);
