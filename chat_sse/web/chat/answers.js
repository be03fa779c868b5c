// @ts-check
/** The running answers: each goes on whatever chat is shown, and after a reload where it was. */

import { AskError, ConnectionLost, ask, attach } from "../ask.js";
import { withoutThinking } from "./thinking.js";

const ASK_URL = new URL("../ask", import.meta.url);

/** Enough for any conversation; beyond it the oldest turns are left out instead of the question refused. */
const MAX_TURNS_SENT = 50;
/** How often a growing answer is saved. */
const SAVE_MS = 1_000;
/** As long as the server remembers a key by default; asking with an older one might be paid a second time. */
const KEY_LIFE_MS = 300_000;

/** @typedef {{state: "done" | "failed" | "lost", fault: import("./store.js").Fault | null}} Outcome */

/** @type {Outcome} */
const FINISHED = { state: "done", fault: null };

/** @typedef {import("./store.js").Chat} Chat */
/** @typedef {import("./store.js").Turn} Turn */

export class Answers {
  /** @type {Map<string, {controller: AbortController, reconnecting: boolean, reconnect: () => void}>} */
  #running = new Map();
  #chats;
  #apiKey;
  #onStart;
  #onChange;
  #onEnd;

  /**
   * @param {import("./store.js").Chats} chats
   * @param {{apiKey: () => string, onStart: (chat: Chat) => void, onChange: (chat: Chat, turn: Turn) => void,
   *   onEnd: (chat: Chat, turn: Turn, apiKey: string) => void}} callbacks onEnd: with the key that was used
   */
  constructor(chats, { apiKey, onStart, onChange, onEnd }) {
    this.#chats = chats;
    this.#apiKey = apiKey;
    this.#onStart = onStart;
    this.#onChange = onChange;
    this.#onEnd = onEnd;
    addEventListener("pagehide", () => {
      for (const id of this.#running.keys()) this.#save(id);
    });
  }

  /** @param {string} chatId */
  isRunning(chatId) {
    return this.#running.has(chatId);
  }

  /** @param {string} chatId */
  isReconnecting(chatId) {
    return this.#running.get(chatId)?.reconnecting ?? false;
  }

  /** @param {string} chatId */
  stop(chatId) {
    this.#running.get(chatId)?.controller.abort();
  }

  /**
   * Connect now instead of after the wait that has begun.
   * @param {string} chatId
   */
  reconnect(chatId) {
    this.#running.get(chatId)?.reconnect();
  }

  /**
   * Go on with a chat's last answer where it was left: by its id, or by its key while none is known.
   * @param {Chat} chat
   */
  resume(chat) {
    const turn = chat.turns.at(-1);
    if (!turn || this.isRunning(chat.id)) return;
    const { answer } = turn;
    if (!answer.id && Date.now() - answer.askedAt > KEY_LIFE_MS) {
      const content = "The connection was lost before an answer began.";
      this.#end(chat, turn, { state: "failed", fault: fault("interrupted", content) });
      return;
    }
    answer.state = "running";
    this.run(chat);
  }

  /**
   * Ask a chat's last question, or go on with its answer, until it has ended.
   * @param {Chat} chat
   */
  async run(chat) {
    const turn = /** @type {Turn} */ (chat.turns.at(-1));
    const { answer } = turn;
    const run = { controller: new AbortController(), reconnecting: false, reconnect() {} };
    const apiKey = this.#apiKey();
    this.#running.set(chat.id, run);
    this.#save(chat.id);
    this.#onStart(chat);
    const saving = setInterval(() => this.#save(chat.id), SAVE_MS);
    const onConnection = (/** @type {import("./ask.js").Connection} */ { state }) => {
      run.reconnecting = state === "reconnecting";
      this.#onChange(chat, turn);
    };
    let outcome = FINISHED;
    try {
      const stream = open(chat, answer, { apiKey, signal: run.controller.signal, onConnection });
      run.reconnect = () => stream.reconnect();
      for await (const event of stream) {
        run.reconnecting = false;
        outcome = take(answer, event) ?? outcome;
        answer.lastEventId = stream.lastEventId;
        if (event.type === "start") this.#save(chat.id); // its id is what a reload needs
        this.#onChange(chat, turn);
      }
    } catch (error) {
      outcome = run.controller.signal.aborted ? FINISHED : outcomeOf(error, answer.id);
      if (run.controller.signal.aborted) answer.finishReason = "cancelled";
    }
    clearInterval(saving);
    this.#running.delete(chat.id);
    this.#end(chat, turn, outcome, apiKey);
  }

  /**
   * @param {import("./store.js").Chat} chat
   * @param {import("./store.js").Turn} turn
   * @param {Outcome} outcome
   * @param {string} [apiKey]
   */
  #end(chat, turn, outcome, apiKey = "") {
    const { answer } = turn;
    Object.assign(answer, outcome);
    if (answer.thinkingSince) answer.thoughtMs ??= Date.now() - answer.thinkingSince;
    chat.updatedAt = Date.now();
    this.#chats.save(chat);
    this.#onEnd(chat, turn, apiKey);
  }

  /** @param {string} chatId */
  #save(chatId) {
    const chat = this.#chats.get(chatId);
    if (chat) this.#chats.save(chat);
  }
}

/**
 * @param {import("./store.js").Chat} chat
 * @param {import("./store.js").AnswerRecord} answer
 * @param {import("./ask.js").AttachOptions} options
 */
function open(chat, answer, options) {
  if (answer.id) return attach(ASK_URL, answer.id, { ...options, lastEventId: answer.lastEventId || undefined });
  const model = answer.asked || undefined;
  return ask(ASK_URL, conversation(chat), { ...options, model, idempotencyKey: answer.key });
}

/**
 * The messages that a chat's last question is asked with: the same ones each time.
 * @param {import("./store.js").Chat} chat
 */
function conversation(chat) {
  /** @type {import("./ask.js").Message[]} */
  const messages = [];
  for (const { question, images = [], answer } of chat.turns.slice(-MAX_TURNS_SENT)) {
    messages.push({ role: "user", content: contentOf(question, images.filter(Boolean)) });
    const { text } = withoutThinking(answer); // as models are trained to see their history
    if (text.trim()) messages.push({ role: "assistant", content: text });
  }
  if (messages.at(-1)?.role === "assistant") messages.pop();
  return messages;
}

/**
 * @param {string} question
 * @param {string[]} images
 * @returns {import("./ask.js").Message["content"]}
 */
function contentOf(question, images) {
  if (!images.length) return question || "(an image)"; // which is no longer kept
  /** @type {import("./ask.js").ContentPart[]} */
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return question ? [{ type: "text", text: question }, ...parts] : parts;
}

/**
 * Add an event to the record. Returns how the answer ended, or null while it goes on.
 * @param {import("./store.js").AnswerRecord} answer
 * @param {import("./ask.js").AskEvent} event
 * @returns {Outcome | null}
 */
function take(answer, event) {
  switch (event.type) {
    case "start":
      Object.assign(answer, { id: event.id, model: event.model });
      return null;
    case "delta":
      answer.text += event.content;
      noteThinking(answer);
      return null;
    case "reasoning":
      answer.reasoning += event.content;
      noteThinking(answer);
      return null;
    case "done":
      answer.finishReason = event.finish_reason;
      answer.tokens = event.usage?.completion_tokens ?? null;
      return FINISHED;
    case "error":
      return { state: "failed", fault: fault(event.error, event.content, event.details, event.request_id) };
    default:
      return null; // newer than this page
  }
}

/**
 * Note for how long an answer thinks before its text begins.
 * @param {import("./store.js").AnswerRecord} answer
 */
function noteThinking(answer) {
  if (answer.thoughtMs !== undefined) return;
  const { text, reasoning } = withoutThinking(answer, true);
  if (reasoning) answer.thinkingSince ??= Date.now();
  if (text) answer.thoughtMs = answer.thinkingSince ? Math.max(1, Date.now() - answer.thinkingSince) : 0;
}

/**
 * @param {unknown} error
 * @param {string} id the answer's
 * @returns {Outcome}
 */
function outcomeOf(error, id) {
  if (error instanceof ConnectionLost) {
    const content = id
      ? "The connection was lost. The answer may still be there: reconnect to go on with it."
      : "The server could not be reached. Your question is kept here: reconnect to send it.";
    return { state: "lost", fault: fault("connection_lost", content) };
  }
  if (error instanceof AskError) {
    const told = fault(error.error, error.content, error.details, error.requestId);
    const { retryAfterSeconds: seconds, loginUrl, accepts } = error;
    const asksForKey = error.error === "unauthenticated" && (accepts.length === 0 || accepts.includes("keys"));
    const retryAt = seconds ? Date.now() + seconds * 1_000 : null;
    return { state: "failed", fault: { ...told, retryAt, loginUrl, asksForKey } };
  }
  const content = "The server's answer could not be read. Please ask again.";
  return { state: "failed", fault: fault("unexpected_response", content, String(error)) };
}

/**
 * @param {string} code
 * @param {string} content
 * @param {string} [details]
 * @param {string} [requestId]
 */
function fault(code, content, details = "", requestId = "") {
  return { code, content, details, requestId, retryAt: null };
}
