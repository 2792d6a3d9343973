// The drawer of earlier questions, and the votes as files.

import { call, json } from "./service.js";
import { element } from "./results.js";

const $ = (id) => document.getElementById(id);

/** Connects the drawer; `open` shows the kept answer with an id, `attempt` does work and tells its trouble. */
export function connectHistory(open, attempt) {
  $("open-history").addEventListener("click", () => attempt(async () => {
    $("entries").replaceChildren();
    await more();
    $("history").showModal();
  }));
  $("close-history").addEventListener("click", () => $("history").close());
  $("older").addEventListener("click", () => attempt(more));
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => attempt(() => download(button.dataset.export)));
  }

  async function more() {
    const last = $("entries").lastElementChild?.dataset.id;
    const page = await json(`v1/history?limit=30${last ? `&before=${encodeURIComponent(last)}` : ""}`);
    $("entries").append(...page.data.map(entry));
    $("older").hidden = !page.more;
    $("history-empty").hidden = $("entries").children.length > 0;
  }

  function entry({ id, created, prompt, votes }) {
    const when = new Date(created * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    const counted = votes ? ` · ${votes} ${votes === 1 ? "vote" : "votes"}` : "";
    const show = element("button", { type: "button", className: "entry" },
      element("span", { className: "prompt" }, prompt), element("span", { className: "fine" }, when + counted));
    const remove = element("button", { type: "button", className: "quiet", "aria-label": `Delete: ${prompt}` }, "Delete");
    const item = element("li", {}, show, remove);
    item.dataset.id = id;
    show.addEventListener("click", () => attempt(async () => {
      await open(id);
      $("history").close();
      $("answer").focus();
    }));
    remove.addEventListener("click", () => attempt(async () => {
      await call(`v1/history/${encodeURIComponent(id)}`, { method: "DELETE" });
      item.remove();
      $("history-empty").hidden = $("entries").children.length > 0;
      $("close-history").focus();
    }));
    return item;
  }
}

async function download(format) {
  const file = await (await call(`v1/votes?format=${format}`)).blob();
  const url = URL.createObjectURL(file);
  element("a", { href: url, download: `votes-${format}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
