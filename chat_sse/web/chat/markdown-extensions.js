// @ts-check
/** What models write and GitHub's markdown has not, as extensions of marked: TeX, and footnotes. */

/** Longer ones stay the text that they are. */
const MAX_TEX_CHARS = 4_000;
const DOLLARS = /^\$(?![\s$])((?:\\[^\n]|[^\\$\n])+?)(?<!\s)\$(?![\w$])/;
const DISPLAY = /^(?:\$\$((?:\\[^]|[^\\$])+?)\$\$|\\\[([^]+?)\\\])/;
const PARENTHESES = /^\\\(([^\n]+?)\\\)/;
const DISPLAY_BLOCK = /^ {0,3}(?:\$\$(?:\\[^]|[^\\$])+?\$\$|\\\[[^]+?\\\])[ \t]*(?:\n+|$)/;
/** A number with its currency before or behind it, two words beside each other: no formula. */
const PROSE = /^\d[^\\]*\s[a-z]{2,}\s|(?:^|\s)[A-Za-z]{3,},?\s+[A-Za-z]{2,}/;
/** Commands, and the words that a formula may hold. */
const TEX_WORDS = /\\(?:text|mathrm|operatorname|textbf|textit|mbox)\s*\*?\{[^{}]*\}|\\[A-Za-z]+/g;

const FOOTNOTE_MARK = /^\[\^([^\]\s^]{1,40})\]/;
const FOOTNOTE =
  /^ {0,3}\[\^([^\]\s^]{1,40})\]:[ \t]*([^\n]*(?:\n(?![ \t]*(?:\n|$)| {0,3}\[\^)[^\n]+|\n[ \t]*\n(?: {4}|\t)[^\n]+)*)(?:\n+|$)/;
const FOOTNOTE_LABELS = /^ {0,3}\[\^([^\]\s^]{1,40})\]:/gm;

/** @param {string} text */
export const escaped = (text) =>
  text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

/**
 * The labels of the footnotes that a text has.
 * @param {string} text
 */
export function footnoteLabels(text) {
  return new Set(Array.from(text.matchAll(FOOTNOTE_LABELS), ([, label]) => label));
}

/** @param {string} tex */
function isFormula(tex) {
  return tex.trim() !== "" && tex.length <= MAX_TEX_CHARS && !PROSE.test(tex.replace(TEX_WORDS, " ").trim());
}

/**
 * Where in the paragraph at the start of a text one of some block's signs begins a line.
 * @param {string} src
 * @param {string[]} signs
 */
function lineWith(src, signs) {
  const end = src.indexOf("\n\n"); // no further, or each paragraph would cost the whole text
  const paragraph = end < 0 ? src : src.slice(0, end);
  const found = signs.map((sign) => paragraph.indexOf(`\n${sign}`)).filter((index) => index >= 0);
  return found.length ? Math.min(...found) + 1 : undefined;
}

const texBlock = {
  name: "texBlock",
  level: "block",
  start: (/** @type {string} */ src) => lineWith(src, ["$$", "\\["]),
  tokenizer(/** @type {string} */ src) {
    const raw = DISPLAY_BLOCK.exec(src)?.[0];
    if (!raw || !isFormula(raw.trim().slice(2, -2))) return undefined;
    return { type: "texBlock", raw, text: raw.trim() };
  },
  renderer: (/** @type {any} */ { text }) => `<p class="tex display">${escaped(text)}</p>`,
};

const tex = {
  name: "tex",
  level: "inline",
  start: (/** @type {string} */ src) => /(?<![\w\\$])\$|\\[([]/.exec(src)?.index,
  tokenizer(/** @type {string} */ src) {
    const [raw, dollars, brackets] = DOLLARS.exec(src) ?? PARENTHESES.exec(src) ?? DISPLAY.exec(src) ?? [];
    if (raw) return isFormula(dollars ?? brackets) ? { type: "tex", raw } : undefined;
    // A formula without its end: its first sign is no escape of markdown's.
    return /^\\[([]/.test(src) ? { type: "tex", raw: src.slice(0, 2), open: true } : undefined;
  },
  renderer(/** @type {any} */ { raw, open }) {
    return open ? escaped(raw) : `<span class="tex">${escaped(raw)}</span>`;
  },
};

const footnote = {
  name: "footnote",
  level: "block",
  start: (/** @type {string} */ src) => lineWith(src, ["[^"]),
  tokenizer(/** @type {string} */ src) {
    const [raw, label, text] = FOOTNOTE.exec(src) ?? [];
    if (!raw) return undefined;
    const tokens = /** @type {any} */ (this).lexer.blockTokens(text.replace(/^(?: {4}|\t)/gm, ""), []);
    return { type: "footnote", raw, label, tokens };
  },
  renderer(/** @type {any} */ { label, tokens }) {
    const text = /** @type {any} */ (this).parser.parse(tokens);
    return `<div class="footnote"><sup>${escaped(label)}</sup><div>${text}</div></div>`;
  },
};

const footnoteMark = {
  name: "footnoteMark",
  level: "inline",
  start: (/** @type {string} */ src) => src.indexOf("[^"),
  tokenizer(/** @type {string} */ src) {
    const [raw, label] = FOOTNOTE_MARK.exec(src) ?? [];
    // `[^a-z]` is more often a regular expression, unless there is such a note.
    const known = label && (/^\d{1,3}$/.test(label) || /** @type {any} */ (this).lexer.footnotes?.has(label));
    return known ? { type: "footnoteMark", raw, label } : undefined;
  },
  renderer: (/** @type {any} */ { label }) => `<sup>${escaped(label)}</sup>`,
};

/** @type {any[]} */
export const EXTENSIONS = [texBlock, tex, footnote, footnoteMark];
