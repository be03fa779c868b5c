// @ts-check
/** One question and its answer on the page: their versions, the reasoning, what went wrong, and what can be done. */

import { button, element, iconButton } from "./dom.js";
import { FailureView } from "./failure.js";
import { imageElement } from "./images.js";
import { MarkdownView } from "./markdown.js";
import { ReasoningView } from "./reasoning.js";
import { withoutThinking } from "./thinking.js";
import { placesOf } from "./versions.js";

/** @type {Record<string, string>} */
const NOTICES = {
  length: "The answer reached its length limit. Ask to go on for the rest.",
  content_filter: "The answer was cut by the model's content filter.",
  cancelled: "Stopped.",
};

/** @typedef {{last: boolean, running: boolean, reconnecting: boolean}} State */

export class TurnView {
  /** What is shown of the turn beside its text, to be made anew when it differs. */
  #shown = "";

  /** @param {import("./store.js").Turn} turn */
  constructor(turn) {
    this.turn = turn;
    this.element = element("section", "turn");
    const question = element("div", "question");
    const words = element("p", "", turn.question);
    words.dir = "auto";
    this.asking = element("div", "actions");
    const images = element("div", "images");
    images.append(...(turn.images ?? []).map(imageElement));
    words.hidden = !turn.question;
    question.append(element("h2", "visually-hidden", "Your question"), images, words, this.asking);

    this.answer = element("article", "answer");
    this.reasoning = new ReasoningView();
    this.prose = element("div", "prose");
    this.markdown = new MarkdownView(this.prose);
    this.thinking = element("p", "thinking", "Thinking");
    this.thinking.append(element("i"), element("i"), element("i"));
    this.notice = element("p", "notice");
    this.reconnect = button("Reconnect now", "reconnect");
    this.failure = new FailureView();
    this.actions = element("div", "actions");
    this.answer.append(
      element("h2", "visually-hidden", "Answer"),
      this.reasoning.element, this.prose, this.thinking, this.notice, this.reconnect, this.failure.element, this.actions,
    );
    this.element.append(question, this.answer);
  }

  /** @param {State} state */
  update({ last, running, reconnecting }) {
    const { answer } = this.turn;
    const ended = !running;
    this.answer.setAttribute("aria-busy", String(running));
    this.prose.classList.toggle("growing", running && !reconnecting);
    const { text, reasoning } = withoutThinking(answer, running);
    this.markdown.update(text, ended);
    this.reasoning.show(reasoning, { answer, thinking: running && !text, ended });
    this.thinking.hidden = ended || Boolean(text || reasoning) || reconnecting;
    this.#updateNotice(reconnecting, ended, text);
    const places = placesOf(this.turn);
    const shown = JSON.stringify([answer.state, running, last, places]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.failure.show(ended ? answer.fault : null, { lost: answer.state === "lost", actionable: last });
    this.asking.replaceChildren(
      ...versions(places.question, "question"), iconButton("edit", "Edit the question", "edit"),
    );
    this.actions.replaceChildren(...(ended ? this.#answerActions(last, places.answer) : []));
  }

  /** Whether it has been shown at all: what is further up does not change any more. */
  get isShown() {
    return this.#shown !== "";
  }

  /**
   * @param {boolean} reconnecting
   * @param {boolean} ended
   * @param {string} text
   */
  #updateNotice(reconnecting, ended, text) {
    const { finishReason, state, id } = this.turn.answer;
    const lost = id ? "Connection lost. Reconnecting…" : "The server cannot be reached: it has not got your question yet. Trying again…";
    let notice = reconnecting ? lost : "";
    if (ended && state === "done") notice = NOTICES[finishReason ?? ""] ?? (text.trim() ? "" : "The answer is empty.");
    this.notice.hidden = !notice;
    this.reconnect.hidden = !reconnecting;
    this.notice.classList.toggle("waiting", reconnecting);
    if (this.notice.textContent !== notice) this.notice.textContent = notice;
  }

  /**
   * @param {boolean} last
   * @param {import("./versions.js").Place} place
   */
  #answerActions(last, place) {
    const { answer } = this.turn;
    const actions = versions(place, "answer");
    if (answer.text) actions.push(iconButton("copy", "Copy the answer", "copy"));
    if (last && answer.state === "done") actions.push(iconButton("retry", "Regenerate", "retry"));
    const meta = [answer.model, answer.tokens && `${answer.tokens} tokens`].filter(Boolean).join(" · ");
    if (meta) actions.push(element("span", "meta", meta));
    return actions;
  }
}

/**
 * The way to the versions of a question or an answer, where there are several.
 * @param {import("./versions.js").Place} place
 * @param {string} what
 */
function versions({ at, of, previous, next }, what) {
  if (of < 2) return [];
  const to = (/** @type {string} */ icon, /** @type {string} */ label, /** @type {number} */ path) => {
    const made = iconButton(icon, `${label} version of the ${what}`, "version");
    made.disabled = path < 0;
    made.dataset.path = String(path);
    return made;
  };
  const count = element("span", "count", `${at}/${of}`);
  count.setAttribute("aria-label", `Version ${at} of ${of}`);
  count.setAttribute("role", "img");
  return [to("previous", "Previous", previous), count, to("next", "Next", next)];
}
