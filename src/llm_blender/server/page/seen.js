// Answers whose names or ranks this browser has shown: a vote on them is not blind.

const KEY = "llm-blender-seen";
const MOST = 2000; // ids to remember, the newest ones

const ids = () => JSON.parse(localStorage.getItem(KEY) ?? "[]");

export const isSeen = (id) => id !== null && ids().includes(id);

/** Remembers that the names of an answer, or of several, were shown. */
export function see(...shown) {
  const known = ids();
  const added = shown.filter((id) => id !== null && !known.includes(id));
  if (added.length) localStorage.setItem(KEY, JSON.stringify([...known, ...added].slice(-MOST)));
}
