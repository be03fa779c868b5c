// @ts-check
/** A model's reasoning: open while it thinks, then one row that tells for how long it did. */

import { element } from "./dom.js";
import { MarkdownView } from "./markdown.js";

export class ReasoningView {
  element = /** @type {HTMLDetailsElement} */ (element("details", "reasoning"));
  #summary = element("summary");
  #prose = element("div", "prose");
  #markdown = new MarkdownView(this.#prose);
  /** The reader has opened or closed it: so it stays. */
  #chosen = false;

  constructor() {
    this.element.append(this.#summary, this.#prose);
    this.#summary.addEventListener("click", () => (this.#chosen = true));
  }

  /**
   * @param {string} reasoning
   * @param {{answer: import("./store.js").AnswerRecord, thinking: boolean, ended: boolean}} state
   */
  show(reasoning, { answer, thinking, ended }) {
    this.element.hidden = !reasoning;
    if (!reasoning) return;
    if (!this.#chosen) this.element.open = thinking;
    this.element.classList.toggle("live", thinking);
    const title = thinking ? "Thinking" : titleOf(answer.thoughtMs);
    if (this.#summary.textContent !== title) this.#summary.textContent = title;
    this.#markdown.update(reasoning, ended || !thinking);
    if (thinking) this.#prose.scrollTop = this.#prose.scrollHeight;
  }
}

/** @param {number | undefined} ms */
function titleOf(ms) {
  if (!ms) return "Thoughts";
  const seconds = Math.max(1, Math.round(ms / 1_000));
  return seconds < 120 ? `Thought for ${seconds} s` : `Thought for ${Math.round(seconds / 60)} min`;
}
