// @ts-check
/** An answer's markdown as marked's tokens and HTML, within bounds: what is beyond them stays the text that it is. */

import { EXTENSIONS, escaped, footnoteLabels } from "./markdown-extensions.js";
import { Lexer, Marked, Parser, Renderer } from "./vendor/marked.esm.js";

/** Tags without attributes that models write and markdown has no sign for. */
const RAW_TAGS = /&lt;(\/?(?:br|kbd|mark|sub|sup|u)\s*\/?)&gt;/gi;

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
  code({ text, lang = "" }) {
    // The title carries all that stands behind the fence, to be shown.
    const [language] = lang.split(/\s/, 1);
    const attributes = `class="language-${escaped(language)}" title="${escaped(lang.trim())}"`;
    return `<pre><code ${attributes}>${escaped(text)}\n</code></pre>`;
  }

  /** @param {any} token */
  def({ raw, href }) {
    // A note that is written like a link's address.
    return /^(?:[a-z]+:|[/.#])/i.test(href) ? "" : `<p>${escaped(raw.trim())}</p>`;
  }

  /** @param {any} token */
  table(token) {
    // Cells beyond the head's would be dropped: most often they are a sign in the last one.
    const lines = token.raw.trim().split("\n").slice(2);
    token.rows.forEach((/** @type {any[]} */ row, /** @type {number} */ index) => {
      const cells = (lines[index] ?? "").trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/);
      const rest = cells.slice(row.length).join("|").trim();
      if (rest) row[row.length - 1].tokens.push({ type: "text", raw: rest, text: ` | ${rest}`, escaped: false });
    });
    return super.table(token);
  }

  /** @param {any} token */
  checkbox({ checked }) {
    return `<span class="task">${checked ? "☑" : "☐"}</span> `;
  }
}

const { extensions } = new Marked({ extensions: EXTENSIONS }).defaults;
const OPTIONS = { gfm: true, breaks: false, renderer: new AnswerRenderer(), extensions };

/** Quotes, lists and emphasis inside each other; marked recurses, and at some 1,000 the stack is full. */
const MAX_DEPTH = 24;
/** Of one paragraph or cell. Some runs of signs cost the square of their length: 0.2 s at this one. */
const MAX_INLINE_CHARS = 8_000;
/** All that one update may take; an answer of 200 KB takes 30 ms. */
const MAX_LEX_MS = 500;

/** marked's lexer with bounds: what is beyond them stays the text that it is. */
class BoundedLexer extends Lexer {
  /** The labels of the text's footnotes. @type {Set<string>} */
  footnotes = new Set();
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
export function blocksOf(text) {
  try {
    const lexer = new BoundedLexer(OPTIONS);
    lexer.footnotes = footnoteLabels(text);
    return lexer.lex(text);
  } catch {
    return plain(text, []);
  }
}

/**
 * Return a block's HTML, which is not safe yet.
 * @param {any} token
 * @returns {string}
 */
export function htmlOf(token) {
  return new Parser(OPTIONS).parse([token]);
}
