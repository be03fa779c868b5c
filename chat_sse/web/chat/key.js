// @ts-check
/** The service's key, where it asks for one: known to this tab until it is closed, and never in a URL. */

import { $ } from "./dom.js";

const NAME = "chat-sse:key";
/** What a header can carry. */
const PRINTABLE = /^[\x21-\x7e]+$/;

export class Key {
  #value = read();
  #parts = {
    form: $("key-form"), input: $("key"), fault: $("key-fault"), forget: $("forget-key"), announcer: $("announcer"),
  };

  /** @param {() => void} onKey the reader has given one */
  constructor(onKey) {
    const { form, input, forget } = this.#parts;
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const text = input.value.trim();
      const usable = PRINTABLE.test(text);
      this.#tell(usable ? "" : "A key has letters, digits and signs, and no spaces.");
      if (!usable) return;
      this.#keep(text);
      form.hidden = true;
      onKey();
    });
    forget.addEventListener("click", () => this.#keep(""));
    this.#keep(this.#value);
  }

  /** "" while there is none. */
  get value() {
    return this.#value;
  }

  /** Ask the reader for one: there is none yet, or the service has refused it. */
  request() {
    const { form, input } = this.#parts;
    this.#tell(this.#value ? "The service did not take that key." : "");
    this.#keep("");
    form.hidden = false;
    input.focus();
  }

  /** @param {string} text */
  #tell(text) {
    this.#parts.fault.textContent = text;
    if (text) this.#parts.announcer.textContent = text;
  }

  /** @param {string} text */
  #keep(text) {
    this.#value = text;
    this.#parts.input.value = "";
    this.#parts.forget.hidden = !text;
    try {
      if (text) sessionStorage.setItem(NAME, text);
      else sessionStorage.removeItem(NAME);
    } catch {
      // it holds until the page is reloaded
    }
  }
}

function read() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
