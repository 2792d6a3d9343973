// Numbers and outcomes in words.

/** A, B, …, Z, AA, … */
export function letter(index) {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letter(Math.floor(index / 26) - 1) + last;
}

export const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
export const seconds = (value) =>
  (value < 0.05 ? "under 0.1 s" : value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`);
export const probability = (value) => value.toFixed(2);
export const listed = (names) =>
  (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

/** Dollars. */
export function money(cost) {
  if (cost === null || cost === undefined) return "unknown";
  if (cost === 0) return "free";
  return cost >= 0.01 ? `$${cost.toFixed(2)}` : `$${Number(cost.toPrecision(2))}`;
}

const REASONS = {
  timeout: "It did not answer in time.",
  connection: "Its server cannot be reached.",
  auth: "Its server refuses the API key.",
  rate_limit: "Its server wants fewer requests.",
  bad_request: "Its server refuses the request.",
  server: "Its server failed.",
  bad_response: "Its server sent something that is no answer.",
  empty: "It answered with nothing.",
  not_found: "Its server does not have the model.",
  wrong_form: "Its answer has the wrong form.",
  budget: "It might cost more than the rest of the budget.",
  set_aside: "It failed too often just now, and is left out for a while.",
};

/** Why an LLM gave no answer. */
export const reason = (code) => REASONS[code] ?? code.replaceAll("_", " ");

/** The message of a failure, which names its LLM once; one that was `kept` has no countdown any more. */
export function failureText({ message }, kept) {
  const name = /^.+?: /.exec(message)?.[0];
  const once = name ? message.replace(`; the last: ${name}`, "; the last: ") : message;
  return kept ? once.replace(/, tried again (in \d+ s|now)(?=;)/, "") : once;
}

const FLAWS = {
  empty: "has no content",
  no_answer: "says only that it does not know",
  loop: "repeats itself",
  cut_off: "breaks off in the middle",
  not_json: "is not the JSON required",
  not_yes_or_no: "answers neither yes nor no",
  items: "has not the number of items required",
  too_long: "is longer than required",
  too_short: "is shorter than required",
  language: "is not in the language required",
  miscalculated: "calculates wrongly",
  not_haiku: "has not the three lines of a haiku",
};

/** What is wrong with the form of an answer, to follow its letter. */
export const flaw = (name) => FLAWS[name] ?? name.replaceAll("_", " ");

/** Whether an answer ended at its maximum of tokens. */
export const isCut = ({ finish_reason: reason }) => CUT.includes(reason?.toLowerCase());
const CUT = ["length", "max_tokens", "max_output_tokens", "model_length"];

/** How sure it is that an answer is better than another one. */
export function surely(value, other) {
  if (value === null || value === undefined) return `not compared directly with ${other}`;
  if (value < 0.5 && value > 0.45) return `first by all comparisons, though in theirs about equal to ${other}`;
  if (Math.abs(value - 0.5) < 0.05) return `about equal to ${other} (probability ${probability(value)})`;
  if (value < 0.5) return `first by all comparisons, though ${other} is ahead in theirs (probability ${probability(1 - value)})`;
  const much = value >= 0.9 ? "clearly better" : value >= 0.7 ? "better" : "a little better";
  return `${much} than ${other} (probability ${probability(value)})`;
}

/** The final answer that most candidates give, if two agree: "4 of 5 agree on 15"; null otherwise. */
export function agreement(ranking) {
  const answers = (ranking.evidence?.answers ?? []).filter((answer) => answer !== null);
  const counts = new Map();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const [answer, count] = [...counts].reduce((most, entry) => (entry[1] > most[1] ? entry : most), ["", 1]);
  return count > 1 ? `${count} of ${answers.length} agree on ${answer}` : null;
}

/** How many gave no answer: "1 of 5 gave no answer"; null if all did. */
export function missing(failed, total) {
  return failed ? `${failed} of ${total} gave no answer` : null;
}
