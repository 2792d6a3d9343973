// Markdown of models as elements: markdown-it reads it without HTML, DOMPurify leaves only what is listed here.
// The content security policy allows one Trusted Types policy, DOMPurify's own, which no other code can reach.

import markdownIt from "./vendor/markdown-it-15.0.3.min.js";
import "./vendor/purify-3.5.0.min.js";
import { copyButton, element } from "./elements.js";

const ALLOWED = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["class", "href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const CLASSES = /^(?:language-[\w+#.-]+|at-(?:left|center|right)|hljs-[\w-]+|\w+_)$/;
const LONGEST = 30_000; // characters of a block of code that is still coloured

const reader = markdownIt({ html: false, linkify: true, breaks: true });
const { rules } = reader.renderer;
// A heading of an answer is below the titles of the page.
for (const rule of ["heading_open", "heading_close"]) {
  rules[rule] = (tokens, i, options, env, self) => {
    tokens[i].tag = `h${Math.min(6, Number(tokens[i].tag[1]) + 3)}`;
    return self.renderToken(tokens, i, options);
  };
}
// Styles in attributes are forbidden.
for (const rule of ["th_open", "td_open"]) {
  rules[rule] = (tokens, i, options, env, self) => {
    const side = /text-align:(\w+)/.exec(tokens[i].attrGet("style") ?? "")?.[1];
    tokens[i].attrs = side ? [["class", `at-${side}`]] : null;
    return self.renderToken(tokens, i, options);
  };
}
// Pictures would be loaded from other hosts: a link takes their place.
rules.image = (tokens, i) => {
  const { escapeHtml } = reader.utils;
  return `<a href="${escapeHtml(tokens[i].attrGet("src") ?? "")}">${escapeHtml(tokens[i].content || "picture")}</a>`;
};

const purify = window.DOMPurify;
purify.addHook("uponSanitizeAttribute", (node, attribute) => {
  if (attribute.attrName === "class") {
    attribute.attrValue = attribute.attrValue.split(/\s+/).filter((name) => CLASSES.test(name)).join(" ");
    attribute.keepAttr = attribute.attrValue !== "";
  }
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

/** A text of a model, as a fragment of elements. */
export function render(markdown) {
  const made = purify.sanitize(reader.render(markdown), ALLOWED);
  for (const pre of made.querySelectorAll("pre")) frame(pre);
  for (const table of made.querySelectorAll("table")) {
    const around = element("div", { className: "scroller", role: "group", "aria-label": "Table", tabIndex: 0 });
    table.replaceWith(around);
    around.append(table);
  }
  return made;
}

const language = (code) => /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";

/** Puts a block of code under its language and a button that copies it. */
function frame(pre) {
  const code = pre.querySelector("code");
  const name = language(code) || "code";
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", `Code, ${name}`);
  const around = element("div", { className: "code" }, element("div", { className: "code-head" },
    element("span", {}, name), copyButton("Copy the code", () => pre.textContent.replace(/\n$/, ""))));
  pre.replaceWith(around);
  around.append(pre);
}

/** Colours the code under an element; the library is loaded with the first code. */
export async function highlight(root) {
  const blocks = [...root.querySelectorAll("pre code")].filter((code) => language(code));
  if (!blocks.length) return;
  const { default: library } = await import("./vendor/highlight-11.12.0.min.js");
  for (const code of blocks) {
    const name = language(code);
    if (!library.getLanguage(name) || code.textContent.length > LONGEST) continue;
    code.replaceChildren(purify.sanitize(library.highlight(code.textContent, { language: name }).value, ALLOWED));
  }
}
