// The drawer of earlier questions: search, previews, deletion with undo, and the votes as files.

import { call, json } from "./service.js";
import { element } from "./elements.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 200; // milliseconds without a key before a search

/** Connects the drawer; `open` shows the kept answer with an id, `attempt` does work and shows its trouble. */
export function connectHistory(open, attempt) {
  let searching = null;
  let round = 0;

  $("open-history").addEventListener("click", () => attempt(async () => {
    $("search").value = "";
    await list();
    $("history").showModal();
  }));
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
    $("entries").replaceChildren(...page.data.map(entry));
    ended(page);
  }

  async function more() {
    const last = $("entries").lastElementChild?.dataset.id;
    const page = await json(`v1/history?limit=30${query()}${last ? `&before=${encodeURIComponent(last)}` : ""}`);
    $("entries").append(...page.data.map(entry));
    ended(page);
  }

  function ended(page) {
    $("older").hidden = !page.more;
    empty();
  }

  function empty() {
    $("history-empty").hidden = $("entries").children.length > 0;
    $("history-empty").textContent = $("search").value.trim() ? "Nothing is found." : "There are no questions yet.";
  }

  function query() {
    const words = $("search").value.trim();
    return words ? `&q=${encodeURIComponent(words)}` : "";
  }

  function entry({ id, created, prompt, votes, answer, llm }) {
    const when = new Date(created * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    const facts = [when, llm, votes > 0 && "voted"].filter(Boolean).join(" · ");
    const show = element("button", { type: "button", className: "entry" },
      element("span", { className: "prompt" }, prompt),
      answer ? element("span", { className: "preview" }, answer) : null,
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

async function download(format) {
  const file = await (await call(`v1/votes?format=${format}`)).blob();
  const url = URL.createObjectURL(file);
  element("a", { href: url, download: `votes-${format}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
