// One question with its candidates: what happens while they are written, the answer, and the vote.

import { Card } from "./card.js";
import { element } from "./elements.js";
import { facts, fusedText, matrix, source } from "./results.js";
import { isSeen, see } from "./seen.js";
import { Tabs } from "./tabs.js";
import { Ballot } from "./votes.js";
import { failureText, letter, listed } from "./words.js";

const FUSED = "★"; // in place of the letter of a candidate
const wide = window.matchMedia("(min-width: 62rem)");
const TICK = 100; // milliseconds between two looks at the clock

/** A turn of the conversation. `actions` are `edit`, `again` and `attempt`. */
export class Turn {
  constructor(question, actions, { blind = false, mode = "pick" } = {}) {
    Object.assign(this, { question, actions, blind, mode, kept: false, cards: [], id: null, report: null });
    this.words = element("p", { className: "words" }, question);
    this.editButton = element("button", { type: "button", className: "quiet small", onclick: () => this.edit() }, "Edit");
    this.asking = element("div", { className: "question" }, this.words, this.editButton);
    this.stage = element("p", { className: "stage", hidden: true });
    this.list = element("div", { className: "tabs", role: "tablist", "aria-label": "Candidates", hidden: true });
    this.grid = element("div", { className: "cards" });
    this.ends = element("div", { className: "ends" });
    this.root = element("section", { className: "turn", "aria-label": "Question and answers" },
      this.asking, this.stage, this.list, this.grid, this.ends);
    this.tabs = new Tabs(this.list);
  }

  /** Replaces the question by a field to change it. */
  edit() {
    const field = element("textarea", { value: this.question, rows: 3, "aria-label": "Change the question" });
    const cancel = () => {
      form.replaceWith(this.asking);
      this.editButton.focus();
    };
    const form = element("form", { className: "question editing" }, field, element("div", { className: "row" },
      element("button", { type: "button", className: "quiet", onclick: cancel }, "Cancel"),
      element("button", { type: "submit", className: "primary" }, "Ask again")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) this.actions.again(this, field.value.trim());
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    this.asking.replaceWith(form);
    field.focus();
  }

  // ── While it runs ───────────────────────────────────────────────────────────────────────────────────────────────

  start() {
    this.begun = performance.now();
    this.progress("Sending the question");
    this.clock = setInterval(() => {
      this.cards.forEach((card) => card.tick());
      this.took.textContent = `${((performance.now() - this.begun) / 1000).toFixed(1)} s`;
    }, TICK);
  }

  get answered() {
    return this.cards.filter((card) => card.done);
  }

  get failed() {
    return this.cards.filter((card) => card.failed);
  }

  /** Follows an event of the stream. */
  follow(event) {
    const card = this.cards[event.call];
    switch (event.event) {
      case "started":
        this.deal(event.llms);
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
        return this.progress(`Comparing the answers, ${event.done} of ${event.total}`);
      case "fusing":
        return this.fusing(event.text);
    }
  }

  /** Makes a card for each call; a blind turn shuffles their places. */
  deal(models) {
    const places = models.map((_, index) => index);
    if (this.blind) shuffle(places);
    this.cards = models.map((model, index) =>
      new Card(index, model, { blind: this.blind, letters: letter(places.indexOf(index)) }));
    this.shown = places.map((index) => this.cards[index]);
    this.place(this.shown);
  }

  place(cards, chosen) {
    this.grid.replaceChildren(...cards.map(({ root }) => root));
    this.grid.style.setProperty("--columns", String(columns(cards.filter(({ root }) => !root.matches(".answer")).length)));
    this.tabs.set(cards, chosen ?? cards[0]);
  }

  count() {
    const failed = this.failed.length ? `, ${this.failed.length} failed` : "";
    this.progress(`${this.answered.length} of ${this.cards.length} answered${failed}`);
  }

  progress(words) {
    this.took ??= element("span", { className: "took" });
    if (this.stage.dataset.words === words) return;
    this.stage.dataset.words = words;
    this.stage.hidden = false;
    this.stage.replaceChildren(element("span", { className: "pulse", "aria-hidden": "true" }), `${words} · `, this.took);
    this.actions.say(`${words}.`);
  }

  fusing(text) {
    this.progress("Fusing the best answers");
    if (this.blind) return;
    if (!this.fused) {
      this.fused = new Card(this.cards.length, "Fused", { letters: FUSED });
      this.fused.root.classList.add("answer");
      this.place([this.fused, ...this.shown]);
    }
    this.fused.write(text);
  }

  /** Ends the clocks. `words` say why there is no answer, if there is none. */
  stop(words) {
    clearInterval(this.clock);
    this.stage.hidden = true;
    if (!words) return;
    this.cards.forEach((card) => card.stop());
    if (this.fused) this.place(this.shown);
    this.cards.forEach((card) => card.blind && card.reveal());
    this.ends.replaceChildren(element("p", { className: "source" }, words), this.row());
    this.measure();
  }

  // ── The answer ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Shows an answer that was kept, with a card for each of its candidates. */
  restore(kept) {
    this.blind &&= !kept.votes.length && !isSeen(kept.id);
    this.kept = true;
    this.finish(kept.blend, kept.id, kept.votes);
  }

  /** Shows what the report says. `id` is null if the answer is not in the history. */
  finish(report, id, votes = []) {
    this.stop();
    Object.assign(this, { report, id });
    const { ranking, candidates } = report;
    this.cards.forEach((card) => card.stop()); // those that were not waited for
    if (this.answered.length !== candidates.length) this.deal(candidates.map((candidate) => candidate.model ?? "unknown"));
    const cards = this.answered.length ? this.answered : this.cards;
    const several = candidates.length > 1;
    const tied = (i) => candidates.some(({ text }, j) =>
      ranking.ranks[j] === ranking.ranks[i] && text.trim() !== candidates[i].text.trim());
    candidates.forEach((candidate, i) => cards[i].report(candidate, several ? ranking.ranks[i] : null, tied(i)));
    const failed = this.failed;
    const unseen = report.failures.slice(0, Math.max(0, report.failures.length - failed.length)); // not called: they have no card
    failed.forEach((card, i) => {
      const failure = report.failures[unseen.length + i];
      if (failure) card.message = failureText(failure, this.kept).replace(`${card.model}: `, "");
    });

    const fused = fusedText(report);
    this.fused = fused === null ? null : this.fused ?? new Card(cards.length, "Fused", { blind: this.blind, letters: FUSED });
    if (this.fused) {
      this.fused.root.classList.remove("answer");
      this.fused.report({ text: fused, cost: report.fusion.cost ?? null, model: "Fused" }, null);
      if (!this.blind) this.fused.facts.textContent = `by ${report.fusion.fuser}`;
    }
    this.voted = this.fused ? [...cards, this.fused] : cards;
    this.candidates = cards;
    this.unseen = unseen;
    this.ballot = id === null || new Set(this.voted.map(({ text }) => text)).size < 2 ? null : new Ballot(this, votes);
    if (this.blind && this.ballot) this.hold();
    else this.settle();
  }

  /** The answer's card: that of the fused text, or that of the candidate which was picked. */
  get best() {
    const { report } = this;
    if (report.mode === "fuse" && this.fused) return this.fused;
    const same = report.candidates.findIndex(({ text }) => report.mode === "fuse" && text.trim() === report.fusion.text);
    return this.candidates[same >= 0 ? same : report.ranking.best];
  }

  /** The text that the conversation goes on from: the preferred one, else the answer; null if there is none. */
  get reply() {
    if (!this.report) return null;
    return (this.ballot?.preferred ?? this.best).text;
  }

  /** Waits for the vote: no names, no ranks. */
  hold() {
    if (this.fused) { // last, it would give itself away
      this.shown.splice(Math.floor(Math.random() * (this.shown.length + 1)), 0, this.fused);
      this.shown.forEach((card, i) => card.rename(letter(i)));
    }
    const whole = this.shown.filter((card) => !card.failed);
    foldSame(whole);
    this.place([...whole, ...this.failed]);
    this.ends.replaceChildren(this.ballot.root, this.row());
    this.measure();
  }

  /** Shows names, ranks and the answer. */
  settle() {
    const { report } = this;
    const revealed = this.blind;
    see(this.id);
    this.blind = false;
    for (const card of [...this.cards, ...(this.fused ? [this.fused] : [])]) {
      if (card.blind) card.reveal();
      if (card.message) card.facts.textContent = card.message;
    }
    const { best } = this;
    if (this.fused) {
      this.fused.facts.textContent = `by ${report.fusion.fuser}`;
      if (this.fused !== best) this.fused.mark("Set aside");
    }
    const all = this.fused && !this.shown.includes(this.fused) ? [this.fused, ...this.shown] : this.shown;
    if (revealed) best.mark("The ranker's choice");
    else best.crown(this.fused === best ? "Answer" : all.length > 1 ? "Best answer" : "Answer");
    const failed = all.filter((card) => card.failed);
    const others = all.filter((card) => card !== best && !card.failed);
    const why = element("p", { className: "source" }, source(report, this.candidates));
    if (!revealed) {
      foldSame([best, ...others]);
      this.place([best, ...others, ...failed], best);
      best.root.after(why);
    }
    this.ends.replaceChildren(...[
      revealed && why,
      this.unseen.length > 0 && element("ul", { className: "fine" }, ...this.unseen.map((failure) => element("li", {}, failureText(failure, this.kept)))),
      this.ballot?.root,
      element("dl", { className: "facts" }, ...facts(report)),
      report.candidates.length > 1 && this.comparison(),
      this.row(),
    ].filter(Boolean));
    this.measure();
  }

  comparison() {
    const { ranking } = this.report;
    return element("details", { className: "comparison", open: wide.matches }, element("summary", {}, "How the answers compare"),
      element("div", { className: "scroller", role: "group", "aria-label": "Comparison", tabIndex: 0 }, matrix(ranking, this.candidates)));
  }

  row() {
    const again = element("button", { type: "button", className: "quiet small", onclick: () => this.actions.again(this, this.question) }, "Ask again");
    const link = this.id !== null && element("button", { type: "button", className: "quiet small", onclick: () => this.actions.link(this, link) }, "Copy link");
    const all = element("button", { type: "button", className: "quiet small when-past", "aria-expanded": "false" }, "All answers");
    all.addEventListener("click", () => {
      const opened = this.root.classList.toggle("opened");
      all.setAttribute("aria-expanded", String(opened));
      this.measure();
    });
    return element("div", { className: "row" }, this.cards.length > 1 && all, again, link);
  }

  measure() {
    const { chosen } = this.tabs;
    for (const card of this.tabs.cards) {
      card.root.hidden = false;
      card.measure();
    }
    this.tabs.choose(chosen);
  }

  /** What a screen reader says at the end. */
  get summary() {
    if (this.ballot && this.blind) return `${this.voted.length} answers are there. Vote to see the names.`;
    const failed = this.failed.length ? ` ${listed(this.failed.map(({ name }) => name))} gave no answer.` : "";
    return `The answer is there: ${this.best.name}.${failed}`;
  }
}

/** Columns for so many cards: two rows of two look better than three and one. */
const columns = (count) => Math.max(1, count === 4 ? 2 : Math.min(3, count));

/** Folds the cards whose text is that of one before them. */
function foldSame(cards) {
  cards.forEach((card, i) => card.repeat(cards.slice(0, i).find(({ text }) => text && text === card.text)?.letter ?? null));
}

function shuffle(list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
}
