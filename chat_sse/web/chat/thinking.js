// @ts-check
/** Some servers send a model's reasoning inside the text, before it, between `<think>` and `</think>`. */

const OPEN = /^\s*<think(?:ing)?>/;
const CLOSE = /<\/think(?:ing)?>\s*/;
/** What may become the opening tag yet. */
const OPENING = /^\s*<(?:t(?:h(?:i(?:n(?:k(?:i(?:n(?:g)?)?)?)?)?)?)?)?$/;

/**
 * Return an answer's reasoning and what it says.
 * @param {{text: string, reasoning: string}} answer
 * @param {boolean} [growing]
 */
export function withoutThinking({ text, reasoning }, growing = false) {
  if (growing && OPENING.test(text)) return { text: "", reasoning };
  const open = OPEN.exec(text);
  if (!open) return { text, reasoning };
  const inside = text.slice(open[0].length);
  const close = CLOSE.exec(inside);
  const thought = (close ? inside.slice(0, close.index) : inside).trim();
  const said = close ? inside.slice(close.index + close[0].length) : "";
  return { text: said, reasoning: [reasoning, thought].filter(Boolean).join("\n\n") };
}
