// The vote on one question: one of its answers is better than the others, or they are about equal, or all bad.

import { element } from "./elements.js";
import { isSeen } from "./seen.js";
import { json } from "./service.js";

/** The buttons of a vote, and what was voted. */
export class Ballot {
  constructor(turn, votes) {
    this.turn = turn;
    this.buttons = turn.voted.map((card, index) => {
      const button = element("button", { type: "button", className: "prefer", "aria-pressed": "false" }, "Prefer this");
      button.addEventListener("click", () => this.press(button, this.over(index)));
      card.vote.replaceChildren(button);
      return button;
    });
    const both = turn.voted.length === 2;
    this.equal = this.choice("About equal", { tie: true });
    this.bad = this.choice(both ? "Both bad" : "All bad", { bad: true });
    this.words = element("p", { className: "fine", role: "status" });
    this.root = element("div", { className: "ballot" },
      element("div", { className: "row", role: "group", "aria-label": "Your vote" }, this.equal, this.bad), this.words);
    this.show(votes);
  }

  /** The vote for an answer against all with another text. */
  over(preferred) {
    const others = this.others(preferred);
    return others.length === this.turn.voted.length - 1 ? { preferred } : { preferred, over: others };
  }

  others(index) {
    const { voted } = this.turn;
    return [...voted.keys()].filter((i) => voted[i].text !== voted[index].text);
  }

  choice(words, body) {
    const button = element("button", { type: "button", className: "prefer", "aria-pressed": "false" }, words);
    button.addEventListener("click", () => this.press(button, body));
    return button;
  }

  /** Votes; a second press on the same button takes the vote back. */
  press(button, body) {
    this.turn.actions.attempt(async () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      const path = `v1/history/${encodeURIComponent(this.turn.id)}/votes`;
      const blind = this.turn.blind && !isSeen(this.turn.id) ? { blind: true } : {};
      let kept = this.votes.length ? await json(path, { method: "DELETE" }) : null;
      if (!pressed) kept = await json(path, { method: "POST", body: { ...body, ...blind } });
      this.show(kept.votes);
      if (this.turn.blind && !pressed) {
        this.turn.settle();
        button.scrollIntoView({ block: "nearest" });
      }
    });
  }

  /** The card that is preferred to all others, if one is. */
  get preferred() {
    const { voted } = this.turn;
    return voted.find((_, index) => this.votes.filter(({ a, b, label }) =>
      (label === "a" && a === index) || (label === "b" && b === index)).length >= this.others(index).length);
  }

  show(votes) {
    this.votes = votes;
    const { preferred } = this;
    const all = votes.length > 0 && votes.every(({ label }) => label === "tie");
    const bad = all && votes.some((vote) => vote.bad);
    this.turn.voted.forEach((card, index) => {
      this.buttons[index].setAttribute("aria-pressed", String(card === preferred));
      this.buttons[index].textContent = card === preferred ? "Preferred" : "Prefer this";
      card.root.classList.toggle("preferred", card === preferred);
    });
    this.equal.setAttribute("aria-pressed", String(all && !bad));
    this.bad.setAttribute("aria-pressed", String(bad));
    this.words.textContent = this.sentence(preferred, all, bad);
  }

  sentence(preferred, all, bad) {
    const { votes, turn } = this;
    if (!votes.length) return turn.blind ? "Vote to see the names and the ranks." : "Which answer is best? Votes train rankers.";
    const your = votes.some((vote) => vote.blind) ? "Your blind vote" : "Your vote";
    if (preferred) return `${your}: ${preferred.letter} is best. The conversation goes on from it.`;
    if (all) return `${your}: the answers are ${bad ? "bad" : "about equal"}.`;
    const name = (index) => turn.voted[index].letter;
    const words = votes.map(({ a, b, label }) => (label === "tie" ? `${name(a)} and ${name(b)} are about equal`
      : label === "a" ? `${name(a)} is better than ${name(b)}` : `${name(b)} is better than ${name(a)}`));
    return `${your}: ${words.join("; ")}.`;
  }
}
