// The form: the question, whom to put it to, and how.

import { element } from "./elements.js";

const $ = (id) => document.getElementById(id);
const BLIND = "llm-blender-blind";
const touch = window.matchMedia("(hover: none) and (pointer: coarse)");

/** Connects the form; `ask(question)` gets the question. */
export function connectComposer(ask) {
  const field = $("question");
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = field.value.trim();
    if (!question) return field.focus();
    if (none()) return openOptions(true);
    ask(question);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.defaultPrevented) return;
    if (touch.matches && !event.ctrlKey && !event.metaKey) return; // there the key makes a new line
    event.preventDefault();
    $("ask").requestSubmit();
  });
  $("open-options").addEventListener("click", () => openOptions($("options").hidden));
  $("options").addEventListener("invalid", () => openOptions(true), true); // a hidden field could not say what is wrong
  $("ask").addEventListener("change", summarise);
  $("blind").checked = sessionStorage.getItem(BLIND) !== null;
  $("blind").addEventListener("change", () => {
    if ($("blind").checked) sessionStorage.setItem(BLIND, "on");
    else sessionStorage.removeItem(BLIND);
  });
}

function openOptions(open) {
  $("options").hidden = !open;
  $("open-options").setAttribute("aria-expanded", String(open));
}

/** Offers the ensemble's LLMs and modes. */
export function offer(info) {
  $("members").append(...info.llms.map(({ name, samples }) => element("label", {},
    element("input", { type: "checkbox", name: "member", value: name, checked: true }), " ",
    element("span", {}, samples > 1 ? `${name} × ${samples}` : name))));
  for (const radio of $("modes").querySelectorAll("input")) {
    radio.disabled = !info.modes.includes(radio.value);
    radio.checked = radio.value === info.mode;
    if (radio.disabled) radio.parentElement.title = "Needs a [fuser] in blend.toml";
  }
  $("no-fuser").hidden = info.modes.includes("fuse");
  $("blind-label").hidden = !info.history;
  summarise();
}

const members = () => [...document.querySelectorAll("input[name=member]")];
const chosen = () => members().filter((box) => box.checked).map((box) => box.value);
export const blind = () => $("blind").checked && !$("blind-label").hidden;
export const mode = () => document.querySelector("input[name=mode]:checked")?.value ?? "pick";

/** The body of a request with these messages; the system prompt comes before them. */
export function request(messages, { keep }) {
  const names = chosen();
  if (!names.length) throw new Error("Choose at least one model.");
  const options = { watch: true, keep, mode: mode() };
  if (names.length < members().length) options.llms = names;
  const samples = value("samples");
  if (samples !== null) options.samples = samples;
  const system = $("system").value.trim();
  const body = { model: "blend", messages: [...(system ? [{ role: "system", content: system }] : []), ...messages], blend: options };
  for (const [id, key] of [["temperature", "temperature"], ["max-tokens", "max_tokens"], ["seed", "seed"]]) {
    if (value(id) !== null) body[key] = value(id);
  }
  return body;
}

const value = (id) => (Number.isFinite($(id).valueAsNumber) ? $(id).valueAsNumber : null);

/** Takes over the system prompt and the settings of a kept question. */
export function take(system, settings = {}) {
  const { llms, mode: wanted } = settings.blend ?? {};
  for (const box of members()) box.checked = !llms || llms.includes(box.value);
  for (const radio of $("modes").querySelectorAll("input:enabled")) radio.checked ||= radio.value === wanted;
  $("system").value = system ?? "";
  $("temperature").value = settings.temperature ?? "";
  $("max-tokens").value = settings.max_tokens ?? "";
  $("seed").value = settings.seed ?? "";
  $("samples").value = settings.blend?.samples ?? "";
  summarise();
}

const none = () => members().length > 0 && !chosen().length;

/** Says on the button of the options what is chosen. */
function summarise() {
  const all = members().length;
  const some = chosen().length;
  const changed = ["system", "temperature", "max-tokens", "samples", "seed"].some((id) => $(id).value !== "");
  const models = some === all ? `${all} ${all === 1 ? "model" : "models"}` : `${some} of ${all} models`;
  $("go").disabled = none();
  $("no-models").hidden = !none();
  $("options-summary").textContent = all ? `${models}${changed ? ", settings" : ""}` : "Models";
}

/** Shows whether a question is under way. */
export function working(busy) {
  $("go").hidden = busy;
  $("stop").hidden = !busy;
  if (!touch.matches) $("question").focus({ preventScroll: true });
}
