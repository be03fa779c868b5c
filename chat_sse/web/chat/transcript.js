// @ts-check
/** The conversation on the page: questions, answers, what went wrong with them, and where the reader is. */

import { TurnView } from "./turn-view.js";

/** Within so many pixels of the end the reader counts as following. */
const FOLLOW_PX = 48;
/** Of the time on the main thread, painting a growing answer may take one part in so many. */
const RENDER_SHARE = 4;

/** @typedef {import("./store.js").Chat} Chat */

export class Transcript {
  /** @type {TurnView[]} */
  #views = [];
  #frame = 0;
  #dueAt = 0;
  #following = true;
  #lastTop = 0;
  /** Where the page itself has scrolled to: no choice of the reader's. */
  #ownTop = -1;
  #state;

  /**
   * @param {{element: HTMLElement, scroller: HTMLElement, jump: HTMLElement}} parts
   * @param {(chat: Chat) => {running: boolean, reconnecting: boolean}} state how a chat's last answer is doing
   * @param {(action: string, turn: import("./store.js").Turn, button: HTMLElement) => void} onAction
   */
  constructor({ element, scroller, jump }, state, onAction) {
    this.#state = state;
    this.element = element;
    this.scroller = scroller;
    this.jump = jump;
    element.addEventListener("click", ({ target }) => {
      const pressed = /** @type {HTMLElement | null} */ (/** @type {Element} */ (target).closest("button[data-action]"));
      const view = this.#views.find((candidate) => candidate.element.contains(pressed));
      if (pressed && view) onAction(pressed.dataset.action ?? "", view.turn, pressed);
    });
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    jump.addEventListener("click", () => this.follow());
    new ResizeObserver(() => this.#settle()).observe(element);
    new ResizeObserver(() => this.#measureGutter()).observe(scroller);
  }

  /**
   * Show a chat from its start.
   * @param {Chat | undefined} chat
   */
  show(chat) {
    this.#views = [];
    this.element.replaceChildren();
    if (chat) this.#sync(chat);
    if (chat) return this.follow();
    this.#following = false;
    this.scroller.scrollTop = 0;
  }

  /** Show the question that has just been asked at the top; the answer grows below it, and nothing moves. */
  showQuestion() {
    const turn = this.#views.at(-1)?.element;
    turn?.classList.add("asked");
    this.#following = false;
    this.#scrollTo(turn?.offsetTop ?? 0);
    this.#showJump();
  }

  /**
   * Take up a chat's changes at once: an answer begins or has ended.
   * @param {Chat} chat
   */
  paint(chat) {
    this.forget();
    this.#sync(chat);
  }

  /**
   * Take up a chat's changes with the next frame.
   * @param {Chat} chat
   */
  refresh(chat) {
    if (this.#frame) return;
    const paint = (/** @type {number} */ now) => {
      if (now < this.#dueAt) {
        this.#frame = requestAnimationFrame(paint);
        return;
      }
      this.#frame = 0;
      this.#sync(chat);
      this.#dueAt = now + (performance.now() - now) * (RENDER_SHARE - 1);
    };
    this.#frame = requestAnimationFrame(paint);
  }

  /** Drop what is waiting to be painted: another chat is shown. */
  forget() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  /**
   * Put the focus where the versions of a turn are chosen, which has been made anew.
   * @param {number} index
   */
  focusVersions(index) {
    /** @type {HTMLElement | null | undefined} */
    const first = this.#views[index]?.element.querySelector("[data-action=version]:enabled");
    first?.focus({ preventScroll: true });
  }

  /**
   * The last answer's text as it is shown, without its markup, up to a little more than so many characters.
   * @param {number} chars
   */
  lastText(chars) {
    let text = "";
    for (const block of this.#views.at(-1)?.prose.children ?? []) {
      if (text.length > chars) break; // of a long answer all of it would cost 0.1 s
      text += `${/** @type {HTMLElement} */ (block).innerText}\n`;
    }
    return text.trim();
  }

  /** Go to the end, and stay there while it grows. */
  follow() {
    this.#following = true;
    this.#settle();
  }

  /** @param {Chat} chat */
  #sync(chat) {
    const { turns } = chat;
    const { running, reconnecting } = this.#state(chat);
    for (let index = 0; index < Math.max(turns.length, this.#views.length); index += 1) {
      if (this.#views[index]?.turn === turns[index]) continue;
      this.#views.splice(index).forEach((view) => view.element.remove());
      if (turns[index]) this.#add(turns[index]);
    }
    this.#views.forEach((view, index) => {
      const last = index === turns.length - 1;
      // What is behind the last two turns cannot change any more.
      if (index < turns.length - 2 && view.isShown) return;
      view.update({ last, running: last && running, reconnecting: last && reconnecting });
    });
    this.element.classList.toggle("busy", running);
    this.#settle();
  }

  /** @param {import("./store.js").Turn} turn */
  #add(turn) {
    const view = new TurnView(turn);
    this.#views.push(view);
    this.element.append(view.element);
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** Somebody has scrolled. A reader who goes up lets go, arriving at the end follows again. */
  #scrolled() {
    const { scrollTop } = this.scroller;
    if (scrollTop === this.#ownTop) return;
    this.#ownTop = -1;
    if (this.#distance() <= FOLLOW_PX) this.#following = true;
    else if (scrollTop < this.#lastTop) this.#following = false;
    this.#lastTop = scrollTop;
    this.#showJump();
  }

  #settle() {
    if (this.#following) this.#scrollTo(this.scroller.scrollHeight);
    this.#showJump();
  }

  /** @param {number} top */
  #scrollTo(top) {
    this.scroller.scrollTop = top;
    this.#ownTop = this.#lastTop = this.scroller.scrollTop;
  }

  /** The composer is to stand as far from the edges as the text, which has gutters for the scrollbar. */
  #measureGutter() {
    const gutter = (this.scroller.offsetWidth - this.scroller.clientWidth) / 2;
    document.documentElement.style.setProperty("--gutter", `${gutter}px`);
    this.#settle();
  }

  #showJump() {
    this.jump.hidden = this.#following || this.#distance() <= FOLLOW_PX;
  }
}
