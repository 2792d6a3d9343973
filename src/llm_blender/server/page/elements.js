// Elements of the page. Texts go in as text; only markdown.js turns Markdown into elements.

/** An element with properties, and children that are elements or texts; null and false are left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  return append(made, children);
}

/** An SVG element with attributes, as `element` makes one of HTML; its properties are read-only. */
export function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return append(made, children);
}

function append(made, children) {
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}

/** A button that copies what `text()` returns, and says so for two seconds. */
export function copyButton(label, text, word = "Copy") {
  const button = element("button", { type: "button", className: "quiet small", "aria-label": label }, word);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = word; }, 2000);
  });
  return button;
}

/** Copies a text; without HTTPS, browsers leave only the old way. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { value: text, className: "unseen", "aria-hidden": "true" });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}
