// @ts-check
/** Why an answer did not come, in words. To wait is no failure; a missing key or login is a question. */

import { button, element } from "./dom.js";

/** The service's own limits: nothing is wrong, it is only not the time. */
const WAITING = new Set(["too_many_requests", "too_many_streams", "budget_spent", "overloaded", "server_draining"]);
const KEY = "This service asks for a key. Your question is sent as soon as you have given it below.";

/** What the service says where it tells no time. */
const PLEA = / Please (?:wait|try)[^.]*\.$/;

const UNITS = /** @type {const} */ ([
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
]);

/**
 * A time as people tell it: rounded up in the largest unit of which it has at least two.
 * @param {number} seconds
 */
export function inWords(seconds) {
  const [unit, size] = UNITS.find(([, length]) => seconds >= 2 * length) ?? ["second", 1];
  const count = Math.max(1, Math.ceil(seconds / size));
  return `in ${count} ${unit}${count === 1 ? "" : "s"}`;
}

export class FailureView {
  element = element("div", "failure");
  #words = element("p");
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {import("./store.js").Fault | null} fault null for none
   * @param {{lost: boolean, actionable: boolean}} state actionable: the question may be asked again
   */
  show(fault, { lost, actionable }) {
    clearTimeout(this.#timer);
    this.element.hidden = !fault;
    this.element.replaceChildren();
    if (!fault) return;
    const { asksForKey = false, loginUrl } = fault;
    this.element.classList.toggle("calm", asksForKey || Boolean(loginUrl) || Boolean(fault.retryAt) || WAITING.has(fault.code));
    this.#words.textContent = asksForKey ? KEY : fault.content;
    this.element.append(this.#words);
    const [label, action] = lost ? ["Reconnect", "resume"] : loginUrl ? ["Log in", "login"] : ["Ask again", "retry"];
    const again = button(label, action, "primary");
    if (asksForKey) again.className = "quiet"; // the form's button is the one to press
    if (actionable) this.element.append(again);
    if (fault.retryAt) this.#count(fault.content, fault.retryAt, again);
    if (!asksForKey) this.element.append(detailsOf(fault));
  }

  /**
   * Tell how long it is until `at`, and keep the button off until then.
   * @param {string} content
   * @param {number} at
   * @param {HTMLButtonElement} again
   */
  #count(content, at, again) {
    const seconds = (at - Date.now()) / 1_000;
    again.disabled = seconds > 0;
    this.#words.textContent = `${content.replace(PLEA, "")} You can ask again ${seconds > 0 ? inWords(seconds) : "now"}.`;
    if (seconds <= 0) return;
    const gone = this.#timer !== undefined && !this.element.isConnected;
    if (!gone) this.#timer = setTimeout(() => this.#count(content, at, again), seconds > 180 ? 20_000 : 1_000);
  }
}

/** @param {import("./store.js").Fault} fault */
function detailsOf({ code, details, requestId }) {
  const box = element("details");
  const facts = [code, details, requestId && `request ${requestId}`];
  box.append(element("summary", "", "Details"), element("p", "", facts.filter(Boolean).join(" · ")));
  return box;
}
