// @ts-check
/**
 * An answer's markdown as safe elements, made while it is still being written.
 *
 * marked splits the text into blocks; a block that has not changed since the last time keeps its elements, so
 * that a long answer costs no more per frame than its last blocks, and a selection above them survives.
 * Everything passes DOMPurify. Raw HTML is shown as the text it is, but for a few harmless tags. Images become
 * links: loading one would tell a foreign host what the answer says.
 */

import { Lexer, Parser, Renderer } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";

/** Tags without attributes that models write and markdown has no sign for. */
const RAW_TAGS = /&lt;(\/?(?:br|kbd|mark|sub|sup|u)\s*\/?)&gt;/gi;
const WEB_ADDRESS = /^(?:https?:\/\/|mailto:)/i;

/** `[label]: address`, which may stand blocks away from its use. */
const REFERENCE = /^ {0,3}\[[^\]]+\]:/m;

const PURIFY = {
  ALLOWED_TAGS: [
    ..."p br hr h3 h4 h5 h6 ul ol li blockquote pre code em strong del a".split(" "),
    ..."table thead tbody tr th td kbd mark sub sup u".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"], // class: marked tells a code's language in it
  ALLOWED_URI_REGEXP: WEB_ADDRESS,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** @param {string} text */
const escaped = (text) =>
  text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

class AnswerRenderer extends Renderer {
  /** @param {any} token */
  html({ text, block }) {
    const shown = escaped(text).replace(RAW_TAGS, "<$1>");
    return block ? `<p>${shown}</p>` : shown;
  }

  /** @param {any} token */
  image({ href, text }) {
    return `<a href="${escaped(href)}">Image: ${escaped(text || href)}</a>`;
  }

  /** @param {any} token */
  heading({ tokens, depth }) {
    // The page's own headings are levels 1 and 2.
    const level = Math.min(6, depth + 2);
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
  }

  /** @param {any} token */
  checkbox({ checked }) {
    return checked ? "☑ " : "☐ ";
  }
}

const OPTIONS = { gfm: true, breaks: false, renderer: new AnswerRenderer() };

/** Quotes, lists and emphasis inside each other; marked recurses, and at some 1,000 the stack is full. */
const MAX_DEPTH = 24;
/** Of one paragraph or cell. Some runs of signs cost the square of their length: 0.2 s at this one. */
const MAX_INLINE_CHARS = 8_000;
/** All that one update may take; an answer of 200 KB takes 30 ms. */
const MAX_LEX_MS = 500;

/** marked's lexer with bounds: what is beyond them stays the text that it is. */
class BoundedLexer extends Lexer {
  #depth = 0;
  #deadline = performance.now() + MAX_LEX_MS;

  /**
   * @param {string} src
   * @param {any[]} [tokens]
   * @param {boolean} [lastParagraphClipped]
   */
  blockTokens(src, tokens = [], lastParagraphClipped = false) {
    return this.#bounded(src, tokens, () => super.blockTokens(src, tokens, lastParagraphClipped));
  }

  /**
   * @param {string} src
   * @param {any[]} [tokens]
   */
  inlineTokens(src, tokens = []) {
    if (src.length > MAX_INLINE_CHARS) return plain(src, tokens);
    return this.#bounded(src, tokens, () => super.inlineTokens(src, tokens));
  }

  /**
   * @param {string} src
   * @param {any[]} tokens
   * @param {() => any[]} lex
   */
  #bounded(src, tokens, lex) {
    if (this.#depth >= MAX_DEPTH || performance.now() > this.#deadline) return plain(src, tokens);
    this.#depth += 1;
    try {
      return lex();
    } finally {
      this.#depth -= 1;
    }
  }
}

/**
 * Add text to `tokens` as it is, and return them.
 * @param {string} src
 * @param {any[]} tokens
 */
function plain(src, tokens) {
  tokens.push({ type: "text", raw: src, text: src, escaped: false });
  return tokens;
}

/**
 * Return a text's blocks, or the whole text as one when marked fails.
 * @param {string} text
 * @returns {any[]}
 */
function blocksOf(text) {
  try {
    return new BoundedLexer(OPTIONS).lex(text);
  } catch {
    return plain(text, []);
  }
}

/** One answer's text on the page. */
export class MarkdownView {
  /** @type {{raw: string, nodes: ChildNode[]}[]} */
  #blocks = [];
  #text = "";
  #complete = false;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /**
   * Show a text, which usually is the last one and a little more.
   * @param {string} text
   * @param {boolean} complete whether nothing more will come: only then are references to the end resolved
   */
  update(text, complete) {
    text = text.replace(/\r\n?/g, "\n"); // as marked does, which counts what is left
    if (text === this.#text && complete === this.#complete) return;
    if ((complete && REFERENCE.test(text)) || !text.startsWith(this.#text)) this.#truncate(0);
    this.#text = text;
    this.#complete = complete;
    // The last blocks may become something else yet: a paragraph a table, a list a longer list.
    let keep = Math.max(0, this.#blocks.length - 2);
    while (keep > 0 && this.#blocks[keep].nodes.length === 0) keep -= 1;
    const known = this.#blocks.slice(0, keep).reduce((sum, block) => sum + block.raw.length, 0);
    const tokens = blocksOf(text.slice(known));
    tokens.forEach((token, index) => this.#show(keep + index, token));
    this.#truncate(keep + tokens.length);
  }

  /**
   * @param {number} index
   * @param {any} token
   */
  #show(index, token) {
    if (this.#blocks[index]?.raw === token.raw) return;
    const nodes = elementsOf(token);
    const old = this.#blocks[index];
    const next = this.#blocks.slice(index).find((block) => block.nodes.length)?.nodes[0] ?? null;
    for (const node of nodes) this.element.insertBefore(node, next);
    old?.nodes.forEach((node) => node.remove());
    this.#blocks[index] = { raw: token.raw, nodes };
  }

  /** @param {number} count */
  #truncate(count) {
    for (const block of this.#blocks.splice(count)) block.nodes.forEach((node) => node.remove());
  }
}

/**
 * Return a block's elements; its plain text when marked or DOMPurify fails.
 * @param {any} token
 * @returns {ChildNode[]}
 */
function elementsOf(token) {
  try {
    return renderedElements(token);
  } catch {
    const paragraph = document.createElement("p");
    paragraph.className = "plain";
    paragraph.textContent = token.raw;
    return [paragraph];
  }
}

/** @param {any} token */
function renderedElements(token) {
  const html = new Parser(OPTIONS).parse([token]);
  /** @type {DocumentFragment} */
  const fragment = /** @type {any} */ (DOMPurify).sanitize(html, PURIFY);
  for (const pre of fragment.querySelectorAll("pre")) codeBlock(pre);
  for (const link of fragment.querySelectorAll("a")) {
    if (!leadsElsewhere(link.getAttribute("href") ?? "")) {
      link.replaceWith(...link.childNodes);
      continue;
    }
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const table of fragment.querySelectorAll("table")) scrollable(table, "Table");
  // The empty corner of a table heads nothing, and would be read out as a heading.
  for (const cell of fragment.querySelectorAll("th:empty")) cell.replaceWith(document.createElement("td"));
  return [...fragment.children];
}

/**
 * Whether an address is of the web and not of this service, where opening `/ask?q=` asks a question.
 * @param {string} address
 */
function leadsElsewhere(address) {
  return WEB_ADDRESS.test(address) && URL.canParse(address) && new URL(address).origin !== location.origin;
}

/**
 * A wide table or code scrolls by itself and not the page, and by keyboard too.
 * @param {Element} element
 * @param {string} label
 */
function scrollable(element, label) {
  const frame = document.createElement("div");
  frame.className = "scrollable";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", label);
  element.replaceWith(frame);
  frame.append(element);
}

/** @param {HTMLElement} pre */
function codeBlock(pre) {
  const code = pre.firstElementChild;
  const language = /^language-([\w+#.-]{1,30})$/.exec(code?.className ?? "")?.[1] ?? "";
  code?.removeAttribute("class");
  const block = document.createElement("div");
  block.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = language || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "quiet";
  copy.dataset.action = "copy-code";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", "Copy the code");
  head.append(name, copy);
  pre.replaceWith(block);
  block.append(head, pre);
  scrollable(pre, language ? `Code in ${language}` : "Code");
}
