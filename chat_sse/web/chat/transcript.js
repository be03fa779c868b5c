// @ts-check
/** The conversation on the page: questions, answers, what went wrong with them, and where the reader is. */

import { button, element } from "./dom.js";
import { FailureView } from "./failure.js";
import { MarkdownView } from "./markdown.js";
import { withoutThinking } from "./thinking.js";

/** Within so many pixels of the end the reader counts as following. */
const FOLLOW_PX = 48;
/** Of the time on the main thread, painting a growing answer may take one part in so many. */
const RENDER_SHARE = 4;

/** @type {Record<string, string>} */
const NOTICES = {
  length: "The answer reached its length limit. Ask to go on for the rest.",
  content_filter: "The answer was cut by the model's content filter.",
  cancelled: "Stopped.",
};

/** One question and its answer. */
class TurnView {
  /** @param {import("./store.js").Turn} turn */
  constructor(turn) {
    this.turn = turn;
    this.element = element("section", "turn");
    const question = element("div", "question");
    const words = element("p", "", turn.question);
    words.dir = "auto";
    question.append(element("h2", "visually-hidden", "Your question"), words);
    this.edit = button("Edit", "edit");
    this.edit.setAttribute("aria-label", "Edit the question");
    question.append(this.edit);

    this.answer = element("article", "answer");
    this.reasoning = element("details", "reasoning");
    this.reasoningText = element("p");
    this.reasoningText.dir = "auto";
    this.reasoning.append(element("summary", "", "Reasoning"), this.reasoningText);
    this.prose = element("div", "prose");
    this.markdown = new MarkdownView(this.prose);
    this.thinking = element("p", "thinking", "Thinking");
    this.thinking.append(element("i"), element("i"), element("i"));
    this.notice = element("p", "notice");
    this.failure = new FailureView();
    this.actions = element("div", "actions");
    this.answer.append(
      element("h2", "visually-hidden", "Answer"),
      this.reasoning, this.prose, this.thinking, this.notice, this.failure.element, this.actions,
    );
    this.element.append(question, this.answer);
  }

  /** @param {{last: boolean, running: boolean, reconnecting: boolean, busy: boolean}} state */
  update({ last, running, reconnecting, busy }) {
    const { answer } = this.turn;
    const ended = !running;
    this.answer.setAttribute("aria-busy", String(running));
    this.prose.classList.toggle("growing", running && !reconnecting);
    const { text, reasoning } = withoutThinking(answer, running);
    this.markdown.update(text, ended);
    this.reasoning.hidden = !reasoning;
    if (this.reasoningText.textContent !== reasoning) this.reasoningText.textContent = reasoning;
    this.thinking.hidden = ended || Boolean(text) || reconnecting;
    this.edit.hidden = !last || busy;
    this.#updateNotice(reconnecting, ended, text);
    if (this.shownState !== `${answer.state} ${running} ${last} ${busy}`) {
      this.shownState = `${answer.state} ${running} ${last} ${busy}`;
      const lost = answer.state === "lost";
      this.failure.show(ended ? answer.fault : null, { lost, actionable: last && !busy });
      this.#updateActions(ended, last && !busy);
    }
  }

  /**
   * @param {boolean} reconnecting
   * @param {boolean} ended
   * @param {string} text
   */
  #updateNotice(reconnecting, ended, text) {
    const { finishReason, state } = this.turn.answer;
    let notice = reconnecting ? "Connection lost. Reconnecting…" : "";
    if (ended && state === "done") notice = NOTICES[finishReason ?? ""] ?? (text.trim() ? "" : "The answer is empty.");
    this.notice.hidden = !notice;
    this.notice.classList.toggle("waiting", reconnecting);
    if (this.notice.textContent !== notice) this.notice.textContent = notice;
  }

  /**
   * @param {boolean} ended
   * @param {boolean} actionable
   */
  #updateActions(ended, actionable) {
    const { answer } = this.turn;
    this.actions.replaceChildren();
    if (!ended) return;
    if (answer.text) {
      const copy = button("Copy", "copy");
      copy.setAttribute("aria-label", "Copy the answer");
      this.actions.append(copy);
    }
    if (actionable && answer.state === "done") this.actions.append(button("Regenerate", "retry"));
    const meta = [answer.model, answer.tokens && `${answer.tokens} tokens`].filter(Boolean).join(" · ");
    if (meta) this.actions.append(element("span", "meta", meta));
  }
}

export class Transcript {
  /** @type {TurnView[]} */
  #views = [];
  #frame = 0;
  #dueAt = 0;
  #following = true;
  #lastTop = 0;
  #state = () => ({ running: false, reconnecting: false });

  /**
   * @param {{element: HTMLElement, scroller: HTMLElement, jump: HTMLElement}} parts
   * @param {(action: string, turn: import("./store.js").Turn, button: HTMLElement) => void} onAction
   */
  constructor({ element, scroller, jump }, onAction) {
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
    new ResizeObserver(() => this.#settle()).observe(scroller);
  }

  /**
   * Show a chat from its start.
   * @param {import("./store.js").Chat | undefined} chat
   * @param {() => {running: boolean, reconnecting: boolean}} state how its last answer is doing
   */
  show(chat, state) {
    this.#state = state;
    this.#views = [];
    this.element.replaceChildren();
    if (chat) this.#sync(chat);
    this.follow();
  }

  /**
   * Take up a chat's changes at once: an answer begins or has ended.
   * @param {import("./store.js").Chat} chat
   */
  paint(chat) {
    this.forget();
    this.#sync(chat);
  }

  /**
   * Take up a chat's changes with the next frame.
   * @param {import("./store.js").Chat} chat
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

  /** Go to the end, and stay there while it grows. */
  follow() {
    this.#following = true;
    this.#settle();
  }

  /** @param {import("./store.js").Chat} chat */
  #sync(chat) {
    const { turns } = chat;
    const { running, reconnecting } = this.#state();
    for (let index = 0; index < Math.max(turns.length, this.#views.length); index += 1) {
      if (this.#views[index]?.turn === turns[index]) continue;
      this.#views.splice(index).forEach((view) => view.element.remove());
      if (turns[index]) this.#add(turns[index]);
    }
    this.#views.forEach((view, index) => {
      const last = index === turns.length - 1;
      // What is behind the last two turns cannot change any more.
      if (index < turns.length - 2 && view.shownState) return;
      view.update({ last, running: last && running, reconnecting: last && reconnecting, busy: running });
    });
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

  /** The reader, or `#settle`, has scrolled: going up lets go, arriving at the end follows again. */
  #scrolled() {
    const { scrollTop } = this.scroller;
    if (this.#distance() <= FOLLOW_PX) this.#following = true;
    else if (scrollTop < this.#lastTop) this.#following = false;
    this.#lastTop = scrollTop;
    this.#showJump();
  }

  #settle() {
    if (this.#following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#showJump();
  }

  #showJump() {
    this.jump.hidden = this.#following || this.#distance() <= FOLLOW_PX;
  }
}
