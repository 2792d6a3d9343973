// One candidate: it is written into while its LLM writes, folded when it is long, and copied.

import { copyButton, element } from "./elements.js";
import { highlight, render } from "./markdown.js";
import { isCut, letter, money, number, reason, seconds } from "./words.js";

const EVERY = 120; // milliseconds between two drawings of a text that is being written

let made = 0;

/** A place for one candidate. A blind card hides its model until `reveal`. */
export class Card {
  constructor(index, model, { blind = false, letters = letter(index) } = {}) {
    this.letter = letters;
    this.model = model;
    this.text = "";
    this.blind = blind;
    this.begun = performance.now();
    this.title = element("h3", { id: `card-${made++}` });
    this.state = element("span", { className: "state" });
    this.badge = element("span", { className: "badge", hidden: true });
    this.body = element("div", { className: "prose" });
    this.fold = element("button", { type: "button", className: "quiet small fold", hidden: true, onclick: () => this.unfold() }, "Show all");
    this.facts = element("p", { className: "fine card-facts" });
    this.vote = element("span", { className: "vote" });
    this.copy = copyButton("Copy the answer", () => this.text);
    this.copy.hidden = true;
    this.root = element("article", { className: "card", "aria-labelledby": this.title.id, "aria-busy": "true" },
      element("header", {}, this.title, this.badge, this.state), this.body, this.fold,
      element("div", { className: "actions" }, this.vote, this.facts, this.copy));
    this.root.id = `${this.title.id}-panel`;
    this.tab = element("button", { type: "button", className: "tab", role: "tab", "aria-controls": this.root.id });
    this.entitle();
    this.wait();
  }

  get name() {
    return this.blind ? `answer ${this.letter}` : this.model ? `${this.letter}, ${this.model}` : this.letter;
  }

  entitle() {
    this.title.replaceChildren(element("span", { className: "letter" }, this.letter), this.blind ? " Answer" : ` ${this.model}`);
    this.entab();
  }

  entab(state = this.tabState ?? "") {
    this.tabState = state;
    this.tab.replaceChildren(element("span", { className: "letter" }, this.letter),
      element("span", { className: "tab-name" }, this.blind ? "" : this.model), element("span", { className: "fine" }, state));
  }

  /** Lines in place of the text that has not come. */
  wait() {
    this.body.replaceChildren(element("div", { className: "skeleton", "aria-hidden": "true" },
      element("span", {}), element("span", {}), element("span", {})));
  }

  /** Shows how long it has taken so far. */
  tick() {
    if (this.done || this.failed) return;
    const took = `${((performance.now() - this.begun) / 1000).toFixed(1)} s`;
    this.state.textContent = `${this.text ? "writing" : "thinking"} · ${took}`;
    this.entab(took);
  }

  write(text) {
    this.text += text;
    this.root.classList.add("writing");
    this.timer ??= setTimeout(() => this.draw(), EVERY);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    this.body.replaceChildren(render(this.text.trim()));
    if (this.root.classList.contains("writing")) this.body.scrollTop = this.body.scrollHeight;
  }

  wrote(text, took) {
    this.done = true;
    if (text !== undefined) this.text = text.trim();
    this.settle(took === null || took === undefined || this.blind ? "" : seconds(took));
  }

  fail(code) {
    this.failed = true;
    this.root.classList.add("failed");
    this.settle("no answer");
    this.facts.textContent = reason(code);
  }

  /** Ends a card whose LLM was still at work. */
  stop() {
    if (this.done || this.failed) return;
    this.failed = true;
    this.root.classList.add("failed");
    this.settle("stopped");
  }

  settle(state) {
    this.root.classList.remove("writing");
    this.root.setAttribute("aria-busy", "false");
    this.state.textContent = state;
    this.entab(state);
    this.copy.hidden = !this.text;
    this.draw();
    this.body.scrollTop = 0;
    highlight(this.body).catch(() => {}); // without its colours, code can be read too
  }

  /** What the report says of it; a blind card keeps it until `reveal`. */
  report(candidate, rank, tied = false) {
    this.wrote(candidate.text || candidate.refusal || "", candidate.seconds);
    if (candidate.reasoning && !this.body.previousElementSibling?.matches("details")) {
      this.body.before(element("details", { className: "thoughts" }, element("summary", {}, "Thoughts"),
        element("div", { className: "prose" }, render(candidate.reasoning))));
    }
    this.known = { candidate, rank, tied };
    this.same = null;
    if (!this.blind) this.tell();
  }

  tell() {
    const { candidate, rank, tied } = this.known;
    this.state.textContent = this.same ? `same text as ${this.same}` : rank === null ? "" : `rank ${rank}${tied ? ", tied" : ""}`;
    this.entab(this.same ? `= ${this.same}` : rank === null ? "" : `#${rank}`);
    const facts = [];
    if (typeof candidate.seconds === "number") facts.push(seconds(candidate.seconds));
    if (candidate.usage) facts.push(`${number(candidate.usage.completion_tokens ?? 0)} tokens`);
    if (typeof candidate.cost === "number") facts.push(money(candidate.cost));
    if (isCut(candidate)) facts.push("cut off at its limit");
    this.facts.textContent = facts.join(" · ");
  }

  /** Folds the card to a line that names the one with the same text; null unfolds it. */
  repeat(letters) {
    this.same = letters;
    this.root.classList.toggle("same", letters !== null);
    if (letters === null) return;
    this.state.textContent = `same text as ${letters}`;
    this.entab(`= ${letters}`);
  }

  mark(words) {
    this.badge.textContent = words;
    this.badge.hidden = false;
  }

  /** Makes the card the answer: the first, over the whole width. */
  crown(words) {
    this.root.classList.add("answer");
    this.mark(words);
    this.unfold();
  }

  rename(letters) {
    this.letter = letters;
    this.entitle();
  }

  reveal() {
    this.blind = false;
    this.entitle();
    if (this.known) this.tell();
  }

  /** Folds a text of more than some lines. */
  measure() {
    if (this.root.classList.contains("answer")) return;
    this.root.classList.add("folded");
    const long = this.body.scrollHeight > this.body.clientHeight + 24;
    this.root.classList.toggle("folded", long);
    this.fold.hidden = !long;
  }

  unfold() {
    this.root.classList.remove("folded");
    this.fold.hidden = true;
  }
}
