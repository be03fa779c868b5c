// @ts-check
/** Formulas as MathML and code in colours. The libraries are loaded when an answer first has something for them. */

import DOMPurify from "./vendor/purify.es.mjs";

/** Of a formula in MathML: no links, no images. Styles would need a laxer policy. */
const MATH = {
  USE_PROFILES: { mathMl: true },
  FORBID_ATTR: ["style", "href", "xlink:href", "src", "id"],
  FORBID_TAGS: ["mglyph", "annotation", "annotation-xml", "semantics", "maction"],
  RETURN_DOM_FRAGMENT: true,
};
const SPANS = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

/** Colouring so much takes some 20 ms; more stays in one colour. */
const MAX_CODE_CHARS = 20_000;
const MAX_KEPT = 300;

const TEX = { throwOnError: true, maxSize: /** @type {[number, number]} */ ([20, 20]), maxExpand: 300 };

/**
 * Return a function that calls another one with a module, at once when it is there already.
 * @param {() => Promise<{default: any}>} load
 * @returns {(use: (library: any) => void) => void}
 */
function lazily(load) {
  /** @type {any} */
  let library = null;
  /** @type {Promise<void> | null} */
  let loading = null;
  return (use) => {
    if (library) return use(library);
    loading ??= load().then(
      (loaded) => void (library = loaded.default),
      () => void (loading = null), // the text stays as it was written
    );
    loading.then(() => library && use(library));
  };
}

const withTemml = lazily(() => import("./vendor/temml.mjs"));
const withHighlighter = lazily(() => import("./vendor/highlight.min.js"));

/** Formulas of the growing block are made anew each time that it grows. @type {Map<string, Node | null>} */
const kept = new Map();

/**
 * Replace a formula's source by the formula; what is no TeX stays as it was written.
 * @param {Element} element
 */
export function typesetFormula(element) {
  withTemml((temml) => {
    const source = element.textContent ?? "";
    if (!kept.has(source)) {
      if (kept.size >= MAX_KEPT) kept.clear();
      kept.set(source, mathOf(temml, source));
    }
    const math = kept.get(source);
    if (math) element.replaceChildren(math.cloneNode(true));
  });
}

/**
 * @param {any} temml
 * @param {string} source with its delimiters
 */
function mathOf(temml, source) {
  const width = /^\$[^$]/.test(source) ? 1 : 2;
  const displayMode = width === 2 && !source.startsWith("\\(");
  try {
    const html = temml.renderToString(source.slice(width, -width), { ...TEX, displayMode });
    const unstyled = html.replace(/ style="[^"]*"/g, "");
    return /** @type {any} */ (DOMPurify).sanitize(unstyled, MATH).querySelector("math");
  } catch {
    return null;
  }
}

/**
 * Colour a piece of code in a language that the highlighter knows.
 * @param {HTMLElement} code
 * @param {string} language
 */
export function highlight(code, language) {
  const text = code.textContent ?? "";
  if (text.length > MAX_CODE_CHARS) return;
  withHighlighter((highlighter) => {
    if (!highlighter.getLanguage(language)) return;
    try {
      const { value } = highlighter.highlight(text, { language, ignoreIllegals: true });
      const coloured = /** @type {any} */ (DOMPurify).sanitize(value, SPANS);
      if (coloured.textContent === text) code.replaceChildren(coloured);
    } catch {
      // one colour will do
    }
  });
}
