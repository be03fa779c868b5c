// @ts-check
/** Which of the service's models is asked, where it offers several. */

import { $ } from "./dom.js";

const NAME = "chat-sse:model";
const ME_URL = new URL("../me", import.meta.url);

export class ModelPicker {
  #select = $("model");

  constructor() {
    this.#select.addEventListener("change", () => {
      try {
        localStorage.setItem(NAME, this.#select.value);
      } catch {
        // it holds until the page is closed
      }
    });
  }

  /** "" for the service's own choice. @returns {string} */
  get value() {
    return this.#select.value;
  }

  /**
   * Find out what the service offers to the owner of this key. A service that does not tell has no picker.
   * @param {string} apiKey
   */
  async load(apiKey) {
    /** @type {string[]} */
    let names = [];
    try {
      const response = await fetch(ME_URL, { headers: apiKey ? { Authorization: `Bearer ${apiKey}` } : {} });
      if (response.ok) names = (await response.json()).models;
    } catch {
      // offline: the service chooses
    }
    if (names.length < 2) names = [];
    const chosen = this.value || stored();
    this.#select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    this.#select.hidden = names.length === 0;
  }
}

function stored() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
