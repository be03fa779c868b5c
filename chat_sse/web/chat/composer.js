// @ts-check
/** Where the reader writes: the question, its draft, the one that is being edited, and the buttons to send and stop. */

import { $ } from "./dom.js";
import { Drafts } from "./drafts.js";
import { toast } from "./feedback.js";
import { Attachments } from "./images.js";
import { fault } from "./question.js";

export class Composer {
  #chatId = "";
  #editing = -1;
  #running = false;
  #drafts = new Drafts();
  /** Of each chat's draft; a reload loses them. @type {Map<string, string[]>} */
  #images = new Map();
  #attachments = new Attachments((images) => this.#attached(images), toast);
  #question = $("question");
  #on;

  /**
   * @param {object} callbacks
   * @param {(text: string, images: string[], editing: number) => void} callbacks.submit editing: the turn that
   *   the question takes the place of, -1 for none
   * @param {() => void} callbacks.stop
   * @param {() => void} callbacks.editLast
   */
  constructor(callbacks) {
    this.#on = callbacks;
    $("composer").addEventListener("submit", (/** @type {any} */ event) => {
      event.preventDefault();
      this.submit();
    });
    this.#question.addEventListener("input", () => this.#changed());
    this.#question.addEventListener("keydown", (/** @type {any} */ event) => this.#pressed(event));
    $("stop").addEventListener("click", () => {
      callbacks.stop();
      this.focus();
    });
    $("cancel-edit").addEventListener("click", () => {
      this.cancel();
      this.focus();
    });
  }

  get isEditing() {
    return this.#editing >= 0;
  }

  /** Not on a screen that is touched, where the keyboard would cover what is to be read. */
  focus() {
    if (matchMedia("(pointer: coarse)").matches) this.#question.blur();
    else this.#question.focus();
  }

  /**
   * Show a chat's draft.
   * @param {string} chatId
   * @param {number} turns how many the chat has
   */
  open(chatId, turns) {
    const draft = this.#drafts.get(chatId);
    this.#chatId = chatId;
    this.#editing = draft.editing < turns ? draft.editing : -1;
    this.#question.value = this.isEditing ? draft.edited : draft.text;
    this.#attachments.show(this.#images.get(chatId) ?? []);
    this.show(this.#running);
  }

  /**
   * Edit the question of a turn; the draft waits.
   * @param {number} index
   * @param {import("./store.js").Turn} turn
   */
  edit(index, { question, images = [] }) {
    this.#editing = index;
    this.#question.value = question;
    this.#attachments.show(images.filter(Boolean));
    this.#changed();
    this.#question.focus();
  }

  /** Leave the edited question as it was, and go back to the draft. */
  cancel() {
    if (!this.isEditing) return;
    this.#editing = -1;
    this.#question.value = this.#drafts.get(this.#chatId).text;
    this.#attachments.show(this.#images.get(this.#chatId) ?? []);
    this.#changed();
  }

  submit() {
    const text = this.#question.value.trim();
    const { images } = this.#attachments;
    if (fault(text) || this.#running || (!text && !images.length)) return;
    const editing = this.#editing;
    if (editing >= 0) this.cancel();
    else {
      this.#question.value = "";
      this.#attached([]);
    }
    this.#on.submit(text, images, editing);
  }

  /** @param {string} chatId of a chat that is deleted */
  forget(chatId) {
    this.#drafts.delete(chatId);
    this.#images.delete(chatId);
  }

  /** @param {boolean} running whether an answer is being written */
  show(running) {
    this.#running = running;
    const text = this.#question.value;
    const problem = fault(text.trim());
    $("editing").hidden = !this.isEditing;
    $("send").hidden = running;
    $("stop").hidden = !running;
    $("send").disabled = (!text.trim() && !this.#attachments.images.length) || Boolean(problem);
    $("fault").textContent = problem;
    this.#question.setAttribute("aria-invalid", String(Boolean(problem)));
    if (!CSS.supports("field-sizing", "content")) {
      this.#question.style.height = "auto";
      this.#question.style.height = `${this.#question.scrollHeight}px`;
    }
  }

  /** @param {string[]} images */
  #attached(images) {
    this.#attachments.show(images);
    if (!this.isEditing) this.#images.set(this.#chatId, images);
    this.#changed();
  }

  #changed() {
    const typed = this.#question.value;
    const { text } = this.#drafts.get(this.#chatId);
    const draft = this.isEditing ? { text, editing: this.#editing, edited: typed } : { text: typed, editing: -1, edited: "" };
    this.#drafts.set(this.#chatId, draft);
    this.show(this.#running);
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (event.isComposing) return; // this Enter chooses a candidate of an input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && !this.#question.value && !event.shiftKey) {
      event.preventDefault();
      this.#on.editLast();
    }
  }
}
