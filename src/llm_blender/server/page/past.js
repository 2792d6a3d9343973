// The drawer of earlier questions: search, previews, deletion with undo, and the votes as files.

import { call, json } from "./service.js";
import { element } from "./elements.js";
import { isSeen, see } from "./seen.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 200; // milliseconds without a key before a search

/**
 * Connects the drawer.
 *
 * `open` shows the kept answer with an id, `attempt` does work and shows its trouble, `blind` tells whether names are
 * hidden until there is a vote.
 */
export function connectHistory({ open, attempt, blind }) {
  let searching = null;
  let round = 0;
  let listed = []; // the entries, newest first

  $("open-history").addEventListener("click", () => attempt(async () => {
    $("search").value = "";
    await list();
    $("history").showModal();
  }));
  $("search").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault(); // a browser would only clear the field
    $("history").close();
  });
  $("close-history").addEventListener("click", () => $("history").close());
  $("older").addEventListener("click", () => attempt(more));
  $("search").addEventListener("input", () => {
    clearTimeout(searching);
    searching = setTimeout(() => attempt(list), PAUSE);
  });
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => attempt(() => download(button.dataset.export)));
  }

  async function list() {
    const mine = ++round;
    const page = await json(`v1/history?limit=30${query()}`);
    if (mine !== round) return; // a later search has begun
    listed = [];
    extend(page);
  }

  async function more() {
    const before = encodeURIComponent(listed.at(-1).id);
    extend(await json(`v1/history?limit=30${query()}&before=${before}`));
  }

  function extend(page) {
    listed.push(...page.data.map((kept) => ({ ...kept, item: entry(kept) })));
    $("entries").replaceChildren(...grouped(listed).flatMap((turns) => {
      turns.forEach(({ item }, i) => item.classList.toggle("later", i > 0));
      return turns.map(({ item, id }) => document.querySelector(`#entries .gone[data-id="${CSS.escape(id)}"]`) ?? item);
    }));
    $("older").hidden = !page.more;
    $("history-empty").hidden = listed.length > 0;
    $("history-empty").textContent = query() ? "Nothing is found." : "There are no questions yet.";
  }

  function query() {
    const words = $("search").value.trim();
    return words ? `&q=${encodeURIComponent(words)}` : "";
  }

  function entry({ id, created, prompt, votes, answer, llm, first, turn, match }) {
    const secret = blind() && votes === 0 && !isSeen(id);
    if (!secret) see(id);
    const when = new Date(created * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    const facts = [when, secret ? "not voted on" : llm, votes > 0 && "voted"].filter(Boolean).join(" · ");
    const preview = secret ? null : match ?? answer;
    const show = element("button", { type: "button", className: "entry" },
      turn > 1 && element("span", { className: "first fine" }, `In: ${first}`),
      element("span", { className: "prompt" }, prompt),
      preview && element("span", { className: "preview" }, preview),
      element("span", { className: "fine" }, facts));
    const remove = element("button", { type: "button", className: "quiet small", "aria-label": `Delete: ${prompt}` }, "Delete");
    const item = element("li", {}, show, remove);
    item.dataset.id = id;
    show.addEventListener("click", () => attempt(async () => {
      await open(id);
      $("history").close();
    }));
    remove.addEventListener("click", () => attempt(() => forget(id, item)));
    return item;
  }

  async function forget(id, item) {
    const path = `v1/history/${encodeURIComponent(id)}`;
    await call(path, { method: "DELETE" });
    const undo = element("button", { type: "button", className: "quiet small" }, "Undo");
    const gone = element("li", { className: "gone" }, element("span", { className: "fine" }, "Deleted."), undo);
    gone.dataset.id = item.dataset.id;
    item.replaceWith(gone);
    undo.focus();
    undo.addEventListener("click", () => attempt(async () => {
      await call(`${path}/restore`, { method: "POST" });
      gone.replaceWith(item);
      item.querySelector("button").focus();
    }));
  }
}

/** Conversations, the last one that went on first; their turns are in the order of asking. */
function grouped(listed) {
  const all = [];
  const groups = new Map(); // by first question, the last conversation that began with it
  for (const kept of listed.toReversed()) {
    if (kept.turn === 1 || !groups.has(kept.first)) all.push(groups.set(kept.first, []).get(kept.first));
    groups.get(kept.first).push(kept);
  }
  const newest = (turns) => listed.indexOf(turns.at(-1));
  return all.toSorted((one, other) => newest(one) - newest(other));
}

async function download(format) {
  const file = await (await call(`v1/votes?format=${format}`)).blob();
  const url = URL.createObjectURL(file);
  element("a", { href: url, download: `votes-${format}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
