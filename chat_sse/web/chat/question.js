// @ts-check
/** A question as its reader writes it: what is wrong with it, what a chat is called after it, what to begin with. */

import { $ } from "./dom.js";

/** Some 25,000 words: more than any model reads well, and far below what the server takes. */
const MAX_QUESTION_CHARS = 100_000;
const TITLE_CHARS = 60;

const STARTERS = [
  "Explain compound interest with a small example",
  "Compare train, bus and plane for a weekend trip, in a table",
  "Help me say no to a meeting, kindly and in two sentences",
  "Plan two unhurried days in Lisbon",
];

/**
 * What is wrong with a question, "" for nothing.
 * @param {string} text
 */
export function fault(text) {
  const over = text.length - MAX_QUESTION_CHARS;
  return over > 0 ? `Too long by ${over.toLocaleString("en")} characters.` : "";
}

/** @param {string} text "" for a question that is an image */
export function titleOf(text) {
  const line = text.split("\n", 1)[0];
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS).trimEnd()}…` : line;
}

/**
 * Whether a chat is called after its first question, and not by its reader.
 * @param {import("./store.js").Chat} chat
 */
export function namesItself({ title, turns }) {
  return title === titleOf(turns[0]?.question ?? "");
}

/**
 * Offer questions to begin with.
 * @param {(question: string) => void} onChoice
 */
export function showStarters(onChoice) {
  for (const text of STARTERS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => onChoice(text));
    const item = document.createElement("li");
    item.append(button);
    $("starters").append(item);
  }
}
