// The page: a conversation of turns, each with an address of its own.

import { blind, connectComposer, mode, offer, request, take, working } from "./composer.js";
import { element } from "./elements.js";
import { connectHistory } from "./past.js";
import { ask, forgetKey, hasKey, json, onKeyWanted } from "./service.js";
import { showStandings } from "./standings.js";
import { Turn } from "./turn.js";

const $ = (id) => document.getElementById(id);

let info = null; // what `/v1/ensemble` returns
let asking = null; // the AbortController of the question under way
let turns = []; // the conversation, oldest first
let round = 0; // number of the newest change of the conversation

const actions = { again, attempt, link, say };

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
  offer(info);
  $("open-history").hidden = $("open-standings").hidden = !info.history;
  $("forget-key").hidden = !hasKey();
  await route();
}

const named = () => /^#\/?([^/]+)$/.exec(location.hash)?.[1] ?? null;

/** Shows what the address names: a kept answer, or a new conversation. */
async function route() {
  for (const id of ["history", "standings"]) $(id).close();
  const id = named();
  if (id === null) return clear();
  try {
    if (!info?.history) throw gone();
    await openKept(id, { push: false });
  } catch (error) {
    if (error.status === 404) clear();
    throw error;
  }
}

// ── Asking ────────────────────────────────────────────────────────────────────────────────────────────────────────

connectComposer((question) => {
  if (asking === null && info !== null) attempt(() => put(question));
});
$("stop").addEventListener("click", () => asking?.abort());
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Escape") asking?.abort();
});
for (const example of document.querySelectorAll("#examples button")) {
  example.addEventListener("click", () => {
    $("question").value = example.textContent.trim();
    $("ask").requestSubmit();
  });
}

/** Puts a question after the first `count` turns, in place of those that follow. */
async function put(question, count = turns.length) {
  const messages = [...messagesOf(turns.slice(0, count)), { role: "user", content: question }];
  const body = request(messages, { keep: info.history });
  keepFirst(count);
  const turn = new Turn(question, actions, { blind: blind(), mode: mode() });
  add(turn);
  $("question").value = "";
  asking = new AbortController();
  const mine = asking;
  working(true);
  turn.start();
  turn.root.scrollIntoView({ block: "start" });
  try {
    const { id, report } = await ask(body, (event) => turn.follow(event), asking.signal);
    if (!turns.includes(turn)) return;
    turn.finish(report, report.kept ? id : null);
    if (report.kept) window.history.pushState(null, "", `#/${id}`);
    say(`${turn.summary}${report.kept === false ? " It could not be kept." : ""}`);
    look(turn);
  } catch (error) {
    const stopped = error.name === "AbortError";
    turn.stop(stopped ? "Stopped before there was an answer." : "There is no answer.");
    if (!stopped && turns.includes(turn)) throw error;
    say("Stopped.");
  } finally {
    if (asking === mine) {
      asking = null;
      working(false);
    }
  }
}

/** The turns with an answer, as messages. */
const messagesOf = (list) => list.flatMap((turn) => (turn.reply === null ? []
  : [{ role: "user", content: turn.question }, { role: "assistant", content: turn.reply }]));

/** Puts a turn's question again, or a changed one, in place of the turn and of those after it. */
function again(turn, question) {
  if (asking === null) attempt(() => put(question, turns.indexOf(turn)));
}

/** Brings the answer into view where a phone does not show its beginning. */
function look(turn) {
  if (!window.matchMedia("(max-width: 40rem)").matches) return;
  const { top, bottom } = (turn.tabs.chosen?.root ?? turn.root).getBoundingClientRect();
  if (top < 0 || Math.min(bottom, top + 120) > window.innerHeight - $("ask").offsetHeight) {
    turn.root.scrollIntoView({ block: "start" });
  }
}

// ── The conversation ──────────────────────────────────────────────────────────────────────────────────────────────

function add(turn) {
  turns.push(turn);
  $("thread").append(turn.root);
  shape();
}

function keepFirst(count) {
  for (const turn of turns.splice(count)) {
    turn.stop();
    turn.root.remove();
  }
  shape();
}

function shape() {
  document.body.classList.toggle("talking", turns.length > 0);
  $("welcome").hidden = turns.length > 0;
  turns.forEach((turn, i) => turn.root.classList.toggle("past", i < turns.length - 1));
}

function clear() {
  round += 1;
  asking?.abort();
  keepFirst(0);
  if (!window.matchMedia("(hover: none)").matches) $("question").focus();
}

const gone = () => Object.assign(new Error("This answer is no longer kept."), { status: 404 });

/** Shows a kept answer with the conversation before it, to go on from there. */
async function openKept(id, { push = true } = {}) {
  const mine = ++round;
  asking?.abort();
  const path = `v1/history/${encodeURIComponent(id)}`;
  const [kept, before] = await Promise.all([json(path), json(`${path}/earlier`)])
    .catch((error) => { throw error.status === 404 ? gone() : error; });
  if (mine !== round) return;
  keepFirst(0);
  const { messages } = kept;
  take(messages.filter(({ role }) => role === "system").map(({ content }) => content).join("\n"), kept.settings);
  let question = null;
  for (const { role, content } of messages.slice(0, -1)) {
    if (role === "user") question = content;
    else if (role === "assistant") {
      const known = before.data.shift();
      if (question !== null) add(earlier(question, content, known));
    }
  }
  const turn = restored(kept);
  add(turn);
  if (push) window.history.pushState(null, "", `#/${id}`);
  say("");
  turn.root.scrollIntoView({ block: "start" });
}

/** A turn as it was kept. */
function restored(kept) {
  const turn = new Turn(kept.messages.at(-1).content, actions, { blind: blind(), mode: kept.blend.mode });
  turn.restore(kept);
  return turn;
}

/** A turn before a kept one; only its text is known if it is not kept, or if another answer is preferred since. */
function earlier(question, text, kept) {
  const known = kept && restored(kept);
  if (known?.reply.trim() === text.trim()) return known;
  const turn = new Turn(question, actions);
  turn.restore({ id: null, votes: [], blend: {
    mode: "pick", seconds: 0, cost: null, failures: [], candidates: [{ text, model: "" }],
    ranking: { best: 0, ranks: [1], probabilities: [[null]], comparisons: 0, strategy: "" } } });
  turn.root.classList.add("text-only");
  return turn;
}

async function link(turn, button) {
  const address = new URL(`#/${turn.id}`, location.href).href;
  const copied = await navigator.clipboard?.writeText(address).then(() => true, () => false);
  button.textContent = copied ? "Copied" : address;
  if (copied) setTimeout(() => { button.textContent = "Copy link"; }, 2000);
}

$("new").addEventListener("click", (event) => {
  event.preventDefault();
  if (location.hash) window.history.pushState(null, "", location.pathname + location.search);
  attempt(clear);
});
window.addEventListener("popstate", () => attempt(route));
$("open-standings").addEventListener("click", () => attempt(async () => {
  await showStandings($("standings-body"));
  $("standings").showModal();
}));
$("close-standings").addEventListener("click", () => $("standings").close());

$("forget-key").addEventListener("click", () => {
  forgetKey();
  location.reload();
});

// ── Saying what happens ───────────────────────────────────────────────────────────────────────────────────────────

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function complain(error) {
  say("");
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const alert = element("p", { className: "alert" }, error.message);
  $("trouble").replaceChildren(alert);
  alert.scrollIntoView({ block: "nearest" });
}

async function attempt(work) {
  $("trouble").replaceChildren();
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

connectHistory({ open: openKept, attempt, blind });
attempt(begin);
