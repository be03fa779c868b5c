// @ts-check
/** What the page tells its reader beside the answers: a toast, a word to a screen reader, a copied text. */

import { $ } from "./dom.js";

const TOAST_MS = 8_000;
/** A screen reader is given this much of an answer; the rest can be read on the page. */
export const ANNOUNCED_CHARS = 2_000;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;

/**
 * Tell a screen reader, once: nothing is said while an answer grows.
 * @param {import("./store.js").AnswerRecord} answer
 * @param {string} text as it is shown
 */
export function announce({ fault: failure, finishReason }, text) {
  const told = failure ? failure.content : finishReason === "cancelled" ? "The answer was stopped." : text;
  const rest = told.length > ANNOUNCED_CHARS ? " … The answer goes on." : "";
  $("announcer").textContent = told.slice(0, ANNOUNCED_CHARS) + rest;
}

/**
 * @param {string} text
 * @param {string} [action]
 * @param {() => void} [onAction]
 */
export function toast(text, action = "", onAction = () => {}) {
  $("toast-text").textContent = text;
  $("toast-action").textContent = action;
  $("toast-action").hidden = !action;
  $("toast-action").onclick = () => {
    $("toast").hidden = true;
    onAction();
  };
  $("toast").hidden = false;
  $("announcer").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}

/**
 * @param {string} text
 * @param {HTMLElement} button
 */
export async function copy(text, button) {
  const sign = /** @type {Element} */ (button.querySelector("use"));
  try {
    await writeClipboard(text);
    sign.setAttribute("href", "#icon-check");
    $("announcer").textContent = "Copied.";
  } catch {
    toast("The browser does not let this page copy. Select the text and copy it by hand.");
    return;
  }
  setTimeout(() => sign.setAttribute("href", "#icon-copy"), 1_500);
}

/**
 * `navigator.clipboard` is missing on plain http, where the old way still works.
 * @param {string} text
 */
async function writeClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("refused");
}
