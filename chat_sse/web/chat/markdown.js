// @ts-check
/**
 * An answer's markdown as safe elements, made while it is still being written.
 *
 * marked splits the text into blocks; a block that has not changed since the last time keeps its elements, so
 * that a long answer costs no more per frame than its last blocks, and a selection above them survives.
 * Everything passes DOMPurify. Raw HTML is shown as the text it is, but for a few harmless tags. Images become
 * links: loading one would tell a foreign host what the answer says.
 */

import { iconButton } from "./dom.js";
import { blocksOf, htmlOf } from "./markdown-lexer.js";
import { settled } from "./markdown-growing.js";
import { highlight, typesetFormula } from "./typeset.js";
import DOMPurify from "./vendor/purify.es.mjs";

const WEB_ADDRESS = /^(?:https?:\/\/|mailto:)/i;

/** `[label]: address`, which may stand blocks away from its use. */
const REFERENCE = /^ {0,3}\[[^\]]+\]:/m;

const PURIFY = {
  ALLOWED_TAGS: [
    ..."p br hr h3 h4 h5 h6 ul ol li blockquote pre code em strong del a".split(" "),
    ..."table thead tbody tr th td kbd mark sub sup u div span".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"], // class: ours, and a code's language by marked
  ALLOWED_URI_REGEXP: WEB_ADDRESS,
  ADD_URI_SAFE_ATTR: ["start", "align"], // which hold no address, and would have to look like one
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** One answer's text on the page. */
export class MarkdownView {
  /** @type {{raw: string, nodes: Element[], ended: boolean, token: any}[]} */
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
    const rest = text.slice(known);
    const tokens = blocksOf(complete ? rest : settled(rest));
    tokens.forEach((token, index) => {
      this.#show(keep + index, token);
      if (complete || index < tokens.length - 1) this.#end(keep + index);
    });
    this.#truncate(keep + tokens.length);
  }

  /**
   * @param {number} index
   * @param {any} token
   */
  #show(index, token) {
    const old = this.#blocks[index];
    if (old?.raw === token.raw) return;
    if (old && growList(old.nodes[0], old.token, token)) {
      this.#blocks[index] = { ...old, raw: token.raw, token };
      return;
    }
    const nodes = elementsOf(token);
    const next = this.#blocks.slice(index).find((block) => block.nodes.length)?.nodes[0] ?? null;
    for (const node of nodes) this.element.insertBefore(node, next);
    old?.nodes.forEach((node) => node.remove());
    this.#blocks[index] = { raw: token.raw, nodes, ended: false, token };
  }

  /**
   * Colour a block's code, once, when nothing more comes to it.
   * @param {number} index
   */
  #end(index) {
    const block = this.#blocks[index];
    if (block.ended) return;
    block.ended = true;
    for (const node of block.nodes) {
      /** @type {NodeListOf<HTMLElement>} */
      const codes = node.querySelectorAll("code[data-language]");
      for (const code of codes) highlight(code, code.dataset.language ?? "");
    }
  }

  /** @param {number} count */
  #truncate(count) {
    for (const block of this.#blocks.splice(count)) block.nodes.forEach((node) => node.remove());
  }
}

/**
 * Make a growing list's new and changed items alone: all of 24 KB anew would take 50 ms a time.
 * Returns whether that was all there was to do.
 * @param {Element | undefined} list
 * @param {any} old
 * @param {any} token
 */
function growList(list, old, token) {
  const isSame = ["type", "ordered", "start", "loose"].every((name) => old[name] === token[name]);
  if (!list || !isSame || token.type !== "list" || list.children.length !== old.items.length) return false;
  let kept = 0;
  while (kept < old.items.length && old.items[kept].raw === token.items[kept]?.raw) kept += 1;
  if (kept === 0) return false;
  const [fresh] = elementsOf({ ...token, items: token.items.slice(kept) });
  if (fresh.children.length !== token.items.length - kept) return false;
  while (list.children.length > kept || list.lastChild?.nodeName === "#text") list.lastChild?.remove();
  list.append(...fresh.childNodes);
  return true;
}

/**
 * Return a block's elements; its plain text when marked or DOMPurify fails.
 * @param {any} token
 * @returns {Element[]}
 */
function elementsOf(token) {
  try {
    return renderedElements(token);
  } catch {
    const paragraph = document.createElement("p");
    paragraph.className = "plain";
    paragraph.dir = "auto";
    paragraph.textContent = token.raw;
    return [paragraph];
  }
}

/** @param {any} token */
function renderedElements(token) {
  /** @type {DocumentFragment} */
  const fragment = /** @type {any} */ (DOMPurify).sanitize(htmlOf(token), PURIFY);
  // Each block reads from the side of its own first word; what is inside it follows by the style sheet.
  for (const block of fragment.children) block.setAttribute("dir", block.matches("pre") ? "ltr" : "auto");
  for (const pre of fragment.querySelectorAll("pre")) codeBlock(pre);
  for (const formula of fragment.querySelectorAll(".tex")) {
    typesetFormula(formula);
    if (formula.matches(".display")) scrollable(formula, "Formula");
  }
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
  frame.setAttribute("role", "group"); // a landmark each would be too many
  frame.setAttribute("aria-label", label);
  element.replaceWith(frame);
  frame.append(element);
}

/** @param {HTMLElement} pre */
function codeBlock(pre) {
  const code = pre.firstElementChild;
  const language = /^language-([\w+#.-]{1,30})$/.exec(code?.className ?? "")?.[1] ?? "";
  const told = code?.getAttribute("title") ?? "";
  code?.removeAttribute("class");
  code?.removeAttribute("title");
  if (language) code?.setAttribute("data-language", language);
  const block = document.createElement("div");
  block.className = "code";
  block.dir = pre.dir = "ltr";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = told || "text";
  head.append(name, iconButton("copy", "Copy the code", "copy-code"));
  pre.replaceWith(block);
  block.append(head, pre);
  scrollable(pre, language ? `Code in ${language}` : "Code");
}
