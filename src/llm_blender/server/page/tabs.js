// On a phone, the cards of an answer are tabs: one is shown at a time.

const narrow = window.matchMedia("(max-width: 40rem)");
let made = 0;

/** Tabs over cards; on a wide screen they are hidden, and all cards shown. */
export class Tabs {
  constructor(list) {
    this.list = list;
    this.cards = [];
    this.chosen = null;
    list.addEventListener("keydown", (event) => this.move(event));
    narrow.addEventListener("change", () => this.show());
    list.addEventListener("scroll", () => this.cue(), { passive: true });
    new ResizeObserver(() => this.cue()).observe(list);
  }

  set(cards, chosen = cards[0]) {
    this.cards = cards;
    for (const { tab } of cards) {
      tab.id ||= `tab-${made++}`;
      tab.onclick = () => {
        this.choose(this.cards.find((card) => card.tab === tab));
        tab.scrollIntoView({ block: "nearest", inline: "center" });
      };
    }
    this.list.replaceChildren(...cards.map(({ tab }) => tab));
    this.choose(chosen);
  }

  choose(card) {
    this.chosen = card;
    this.show();
  }

  show() {
    const tabbed = narrow.matches && this.cards.length > 1;
    this.list.hidden = !tabbed;
    for (const card of this.cards) {
      const here = card === this.chosen;
      card.tab.setAttribute("aria-selected", String(here));
      card.tab.tabIndex = here ? 0 : -1;
      card.root.hidden = tabbed && !here;
      card.root.setAttribute("role", tabbed ? "tabpanel" : "article");
    }
    this.cue();
  }

  /** Marks the ends at which there are further tabs. */
  cue() {
    const { scrollLeft, scrollWidth, clientWidth } = this.list;
    this.list.classList.toggle("before", scrollLeft > 2);
    this.list.classList.toggle("after", scrollLeft + clientWidth < scrollWidth - 2);
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const { length } = this.cards;
    this.choose(this.cards[(this.cards.indexOf(this.chosen) + step + length) % length]);
    this.chosen.tab.focus();
    this.chosen.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}
