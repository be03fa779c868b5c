// @ts-check
/** Where the reader writes: the question, its draft, the one that is being edited, and the buttons to send and stop. */

import { $ } from "./dom.js";
import { Drafts } from "./drafts.js";
import { fault } from "./question.js";

export class Composer {
  #chatId = "";
  #editing = -1;
  #running = false;
  #drafts = new Drafts();
  #question = $("question");
  #on;

  /**
   * @param {object} callbacks
   * @param {(text: string, editing: number) => void} callbacks.submit editing: the turn that the question
   *   takes the place of, -1 for none
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
    this.show(this.#running);
  }

  /**
   * Edit the question of a turn; the draft waits.
   * @param {number} index
   * @param {string} question
   */
  edit(index, question) {
    this.#editing = index;
    this.#question.value = question;
    this.#changed();
    this.#question.focus();
  }

  /** Leave the edited question as it was, and go back to the draft. */
  cancel() {
    if (!this.isEditing) return;
    this.#editing = -1;
    this.#question.value = this.#drafts.get(this.#chatId).text;
    this.#changed();
  }

  submit() {
    const text = this.#question.value.trim();
    if (fault(text) || !text || this.#running) return;
    const editing = this.#editing;
    this.#editing = -1;
    this.#question.value = editing < 0 ? "" : this.#drafts.get(this.#chatId).text;
    this.#changed();
    this.#on.submit(text, editing);
  }

  /** @param {string} chatId of a chat that is deleted */
  forget(chatId) {
    this.#drafts.delete(chatId);
  }

  /** @param {boolean} running whether an answer is being written */
  show(running) {
    this.#running = running;
    const text = this.#question.value;
    const problem = fault(text.trim());
    $("editing").hidden = !this.isEditing;
    $("send").hidden = running;
    $("stop").hidden = !running;
    $("send").disabled = !text.trim() || Boolean(problem);
    $("fault").textContent = problem;
    this.#question.setAttribute("aria-invalid", String(Boolean(problem)));
    if (!CSS.supports("field-sizing", "content")) {
      this.#question.style.height = "auto";
      this.#question.style.height = `${this.#question.scrollHeight}px`;
    }
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
