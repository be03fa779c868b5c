// @ts-check
/**
 * The end of a text that is still being written, as it most likely goes on.
 *
 * What is half written would flash as raw signs, or as another thing than it becomes: the `-` of a list under a
 * paragraph is a heading's line for a moment. So a marker without its text waits, and what is open is closed.
 */

/** Openers that stay open for longer are most likely none. */
const MAX_OPEN_CHARS = { "*": 100, _: 100, "**": 400, __: 400, "~~": 400, "`": 200, "[": 300 };

/** As the lexer, which shows longer paragraphs as they are written. */
const MAX_CHARS = 8_000;

/** A block's line. Its text starts where the line's does, or behind the marker. */
const BLOCK_LINE = /^[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]|#{1,6}[ \t]|\|)/;
const FENCE = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})([^`\n]*)$/;
/** A last line that does not tell yet what it begins: a heading, list, quote, rule, fence, table or note. */
const UNDECIDED =
  /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(?:#{1,6}|[=*_+]+|[-:|][-:| ]*|>|\d{1,9}[.)]?|`{1,2}|~{1,2}|`{3,}[^`]*|~{3,}.*|\[[ xX^]?\]?|\[\^[^\]]*\]?:?)?[ \t]*$/;
const TABLE_HEAD = /^[ \t]*\|.*(?:\n[ \t|:-]*)?$/;
/** The start of a tag, an entity, an escape, a strike or an image. */
const STUB = /(?:<\/?[a-z]{0,5}[ /]*|&[a-z#]?[a-z\d]{0,7}|(?<!\\)\\|(?<!~)~|(?<!\S)!)$/i;

/**
 * Return a text without what is half written at its end, and with what is open there closed.
 * @param {string} text from the start of a block
 */
export function settled(text) {
  const lineStart = text.lastIndexOf("\n") + 1;
  const line = text.slice(lineStart);
  if (inFence(text.slice(0, lineStart))) return /^[ \t>]*(?:`+|~+)[ \t]*$/.test(line) ? text.slice(0, lineStart) : text;
  const start = paragraphStart(text);
  if (TABLE_HEAD.test(text.slice(start))) return text.slice(0, start);
  if (UNDECIDED.test(line)) return text.slice(0, lineStart);
  const cell = /^[ \t]*\|/.test(line) ? Math.max(start, text.lastIndexOf("|") + 1) : start;
  return text.slice(0, cell) + closed(text.slice(cell));
}

/** @param {string} text whole lines */
function inFence(text) {
  let fence = "";
  for (const line of text.split("\n")) {
    const [, signs, info] = FENCE.exec(line) ?? [];
    if (!signs) continue;
    if (!fence) fence = signs;
    else if (signs.startsWith(fence) && !info.trim()) fence = "";
  }
  return fence !== "";
}

/** @param {string} text */
function paragraphStart(text) {
  let start = text.length;
  do {
    start = text.lastIndexOf("\n", start - 2) + 1;
    const end = text.indexOf("\n", start);
    const line = text.slice(start, end < 0 ? undefined : end);
    if (!line.trim()) return end < 0 ? start : end + 1;
    // The rows of a table belong together: its second line tells that it is one.
    if (BLOCK_LINE.test(line) && !(line.trimStart().startsWith("|") && text[start - 2] === "|")) return start;
  } while (start > 1);
  return start;
}

const TARGET = /^\((?:[^()\s]|\([^()\s]*\))*(?:\s+"[^"]*")?\s*\)/;
const HALF_TARGET = /^\(\S*(?:\s+(?:"[^"]*"?)?)?$/;

/** @typedef {{sign: string, at: number}} Opener */

/**
 * Close code, emphasis and links that are open at the end of a paragraph.
 * @param {string} text
 */
function closed(text) {
  if (text.length > MAX_CHARS) return text;
  text = text.replace(STUB, "").replace(/<(https?:[^\s<>]*)$/, "$1");
  const space = /\s*$/.exec(text)?.[0] ?? "";
  text = text.slice(0, text.length - space.length);
  /** @type {Opener[]} */
  const open = [];
  const tokens = /\\[^]|(`+)|(\*+|_+|~~)|(!?\[)|\]/g;
  for (let match = tokens.exec(text); match; match = tokens.exec(text)) {
    const [sign, ticks, stars, bracket] = match;
    const at = match.index;
    const after = at + sign.length;
    if (ticks) {
      const end = codeEnd(text, ticks, after);
      if (end < 0) {
        open.push({ sign: ticks, at });
        break;
      }
      tokens.lastIndex = end;
    } else if (stars) {
      take(open, stars, at, text);
    } else if (bracket) {
      if (!/\w/.test(text[at - 1] ?? "")) open.push({ sign: bracket, at }); // `a[0` is no link
    } else if (sign === "]") {
      const index = open.findLastIndex((opener) => opener.sign.endsWith("["));
      if (index < 0) continue;
      const target = TARGET.exec(text.slice(after));
      if (after < text.length && !target && !HALF_TARGET.test(text.slice(after))) {
        open.splice(index);
      } else if (target) {
        open.splice(index);
        tokens.lastIndex = after + target[0].length;
      } else {
        text = text.slice(0, at); // its address is half written: the label will do
        break;
      }
    }
  }
  return withClosers(text, open, space);
}

/**
 * Where the code that `ticks` open ends, -1 while it is open.
 * @param {string} text
 * @param {string} ticks
 * @param {number} from
 */
function codeEnd(text, ticks, from) {
  const runs = /`+/g;
  runs.lastIndex = from;
  for (let run = runs.exec(text); run; run = runs.exec(text)) if (run[0] === ticks) return run.index + ticks.length;
  return -1;
}

/**
 * Let a run of stars, underscores or tildes close what it can, and open the rest.
 * @param {Opener[]} open
 * @param {string} run
 * @param {number} at
 * @param {string} text
 */
function take(open, run, at, text) {
  const before = text[at - 1] ?? " ";
  const after = text[at + run.length] ?? " ";
  let left = run.length;
  while (left > 0 && !/\s/.test(before)) {
    const index = open.findLastIndex(({ sign }) => sign[0] === run[0]);
    if (index < 0) break;
    const { sign } = open[index];
    const closing = Math.min(left, sign.length);
    open.splice(index, open.length, ...(sign.length > closing ? [{ sign: sign.slice(closing), at: open[index].at }] : []));
    left -= closing;
  }
  const opens = !/\s/.test(after) && !(/\w/.test(before) && (run[0] === "_" || left === 1));
  if (left > 0 && left <= 3 && opens) open.push({ sign: run.slice(0, left), at: at + run.length - left });
  else if (left > 0 && at + run.length === text.length) open.push({ sign: run.slice(0, left), at: at + run.length - left });
}

/**
 * @param {string} text
 * @param {Opener[]} open
 * @param {string} space what stood behind the text: a closer behind a space closes nothing
 */
function withClosers(text, open, space) {
  let closers = "";
  for (const { sign, at } of open.reverse()) {
    const length = text.length - at - sign.length;
    const limits = /** @type {Record<string, number>} */ (MAX_OPEN_CHARS);
    if (length <= 0) {
      text = text.slice(0, at); // nothing in it yet
    } else if (length <= (limits[sign] ?? limits[sign.slice(-1)] ?? 100)) {
      if (sign === "![" || text.startsWith("[^", at)) text = text.slice(0, at);
      else if (sign === "[") text = text.slice(0, at) + text.slice(at + sign.length);
      else if (sign.startsWith("`")) [text, closers] = [text.replace(/`*$/, ""), closers + sign];
      else closers += sign;
    }
  }
  return text.replace(/\s*$/, (spaces) => closers + spaces) + space;
}
