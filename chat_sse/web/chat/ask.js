/**
 * The client of `/ask`: one question, one paid answer, whatever the network does.
 *
 *     import { ask } from "/ask.js";
 *     for await (const event of ask("/ask", [{ role: "user", content: "Hello!" }])) {
 *       if (event.type === "delta") show(event.content);
 *     }
 *
 * It has no dependencies and runs in browsers and in Node 18 and later. The wire is server-sent events
 * (WHATWG HTML, "9.2 Server-sent events"), read from `fetch` instead of `EventSource`, which can neither
 * post nor show an error's body.
 *
 * The module has two parts beside it, `ask-requests.js` and `ask-stream.js`. A copy needs all three.
 */

import { Requests } from "./ask-requests.js";
import { Broken } from "./ask-stream.js";

export { AskError } from "./ask-requests.js";
export { EventStreamParser } from "./ask-stream.js";

/** How long to wait before the first reconnect when the server has sent no `retry:`. */
const RETRY_MS = 2_000;
/** No wait grows beyond this: an answer nobody reads is given up by the server within seconds. */
const MAX_RETRY_MS = 10_000;
/** Consecutive failures after which the connection counts as lost: a little over a minute. */
const MAX_FAILURES = 8;
/** How long a stop waits for the answer's last event. */
const STOP_MS = 5_000;

/**
 * @typedef {{type: "text", text: string}
 *   | {type: "image_url", image_url: {url: string, detail?: "auto" | "low" | "high"}}} ContentPart
 * @typedef {{role: "user" | "assistant", content: string | ContentPart[]}} Message
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number}} Usage
 * @typedef {{role: "assistant", content: string, error: string, details: string, request_id: string,
 *   retryable: boolean, accepts?: string[], login_url?: string | null}} ErrorBody
 * @typedef {{type: "start", id: string, model: string}} StartEvent
 * @typedef {{type: "delta", content: string}} DeltaEvent
 * @typedef {{type: "reasoning", content: string}} ReasoningEvent
 * @typedef {{type: "done", finish_reason: string | null, usage: Usage | null}} DoneEvent
 * @typedef {{type: "error"} & ErrorBody} ErrorEvent
 * @typedef {StartEvent | DeltaEvent | ReasoningEvent | DoneEvent | ErrorEvent} AskEvent
 */

/**
 * @typedef {{state: "open"} | {state: "reconnecting", attempt: number, delayMs: number, error: unknown}} Connection
 */

/**
 * @typedef {object} AttachOptions
 * @property {AbortSignal} [signal] Stops the answer for all its readers when it aborts.
 * @property {string} [apiKey] The service's, where it asks for one: sent with every request as
 *   `Authorization: Bearer`, and never in a URL.
 * @property {HeadersInit} [headers] Sent with every request.
 * @property {RequestCredentials} [credentials] As for `fetch`.
 * @property {string} [lastEventId] The last event already seen; without it the answer is read from its start.
 * @property {number} [maxFailures] Consecutive failed connections before `ConnectionLost`. Default 8.
 * @property {number} [silenceMs] A connection without a byte for so long counts as broken. Default 45,000.
 * @property {(connection: Connection) => void} [onConnection] Told of each break and each success after it.
 */

/**
 * @typedef {object} OwnAskOptions
 * @property {string} [idempotencyKey] The same key with the same question attaches to the same answer and is
 *   paid for once. Default: a new random one.
 * @property {string} [model] One of the models that the server offers.
 * @property {number} [temperature] 0 to 2.
 * @property {number} [max_output_tokens] The server may allow fewer.
 */

/** @typedef {Omit<AttachOptions, "lastEventId"> & OwnAskOptions} AskOptions */

/** @typedef {import("./ask-stream.js").StreamMessage} StreamMessage */

/** The network stayed away for too long. The answer may still be running: attach to `id`, or ask with the same key. */
export class ConnectionLost extends Error {
  /**
   * @param {Answer} answer
   * @param {unknown} cause
   */
  constructor(answer, cause) {
    super("The connection to the server was lost.", { cause });
    this.name = "ConnectionLost";
    this.id = answer.id;
    this.lastEventId = answer.lastEventId;
  }
}

/**
 * Ask. The question is sent once the answer is iterated.
 *
 * The iteration yields each event of the wire once and in order, and ends after the terminal one (`done` or
 * `error`). It throws AskError when the server refuses, ConnectionLost when no connection can be made any
 * more, and the signal's reason when it was aborted before the start or when a stop is not confirmed within
 * 5 s. Leaving the loop early only stops reading: the server gives the answer up some seconds later, unless
 * somebody attaches to it.
 *
 * @param {string | URL} url Of `/ask`; relative to the page in browsers.
 * @param {Message[]} messages
 * @param {AskOptions} [options]
 * @returns {Answer}
 */
export function ask(url, messages, options = {}) {
  const { idempotencyKey, model, temperature, max_output_tokens, ...attachOptions } = options;
  // Written once: a key's second use must carry the same bytes.
  const body = JSON.stringify({ messages, model, temperature, max_output_tokens });
  return new Answer(url, attachOptions, { body, key: idempotencyKey });
}

/**
 * Attach to an answer, running or finished, as after a page's reload. Never a paid call.
 *
 * Iterates as `ask` does. Throws AskError with status 404 when the answer is unknown or has expired. After
 * the terminal event there is nothing left, and the iteration ends at once.
 *
 * @param {string | URL} url Of `/ask`.
 * @param {string} id The answer's, from its `start` event.
 * @param {AttachOptions} [options]
 * @returns {Answer}
 */
export function attach(url, id, options = {}) {
  return new Answer(url, options, null, id);
}

/** An answer being read: an async iterable, to be iterated once. */
export class Answer {
  #options;
  #requests;
  #retryMs = RETRY_MS;
  #stopping = false;
  #stopSent = false;
  #wake = () => {};

  /**
   * @param {string | URL} url
   * @param {AttachOptions} options
   * @param {{body: string, key: string | undefined} | null} question
   * @param {string} [id]
   */
  constructor(url, options, question, id = "") {
    this.#options = options;
    this.#requests = new Requests(String(url), options, question);
    /** The answer's id, "" until it is known. */
    this.id = id;
    /** The last event's id, "" before the first: where to attach again. */
    this.lastEventId = options.lastEventId ?? "";
  }

  /** @returns {AsyncGenerator<AskEvent, void, undefined>} */
  async *[Symbol.asyncIterator]() {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let deadline;
    const stop = () => {
      deadline = setTimeout(() => this.#requests.close(signal?.reason), STOP_MS);
      this.#stop();
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      yield* this.#events();
    } finally {
      signal?.removeEventListener("abort", stop);
      clearTimeout(deadline);
      this.#requests.close();
    }
  }

  /** @returns {AsyncGenerator<AskEvent, void, undefined>} */
  async *#events() {
    const { maxFailures = MAX_FAILURES, onConnection, signal } = this.#options;
    for (let failures = 0; ; ) {
      try {
        const stream = await this.#requests.open(this.id, this.lastEventId, failures > 0);
        if (stream === null) return;
        this.#identify(stream.id);
        if (failures > 0) onConnection?.({ state: "open" });
        for await (const message of stream.messages) {
          failures = 0;
          this.lastEventId = message.lastEventId;
          this.#retryMs = message.retry ?? this.#retryMs;
          /** @type {AskEvent} */
          const event = JSON.parse(message.data);
          if (event.type === "start") this.#identify(event.id);
          yield event;
          if (event.type === "done" || event.type === "error") return;
        }
        throw new Broken(new Error("the stream ended without a terminal event"));
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        if (this.#stopping) throw signal?.reason;
        if (++failures > maxFailures) throw new ConnectionLost(this, error.cause);
        const delayMs = Math.max(error.waitMs, backoff(this.#retryMs, failures));
        onConnection?.({ state: "reconnecting", attempt: failures, delayMs, error: error.cause });
        await this.#sleep(delayMs);
        if (this.#stopping) throw signal?.reason;
      }
    }
  }

  /** Connect at once instead of waiting, when the connection has broken. */
  reconnect() {
    this.#wake();
  }

  /** @param {string} id */
  #identify(id) {
    this.id ||= id;
    if (this.#stopping) this.#stop();
  }

  #stop() {
    this.#stopping = true;
    this.#wake();
    if (!this.id || this.#stopSent) return;
    this.#stopSent = true;
    this.#requests.stop(this.id);
  }

  /**
   * Wait, but not longer than until the network is back or the answer is stopped.
   * @param {number} ms
   */
  async #sleep(ms) {
    const online = () => this.#wake();
    globalThis.addEventListener?.("online", online);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => resolve(clearTimeout(timer));
    });
    globalThis.removeEventListener?.("online", online);
    this.#wake = () => {};
  }
}

/**
 * The wait before a reconnect: doubled each time, up to a bound, and spread, so that the clients of a server
 * that restarts do not all come back in the same moment.
 * @param {number} retryMs
 * @param {number} failures
 */
function backoff(retryMs, failures) {
  const doubled = retryMs * 2 ** (failures - 1);
  return Math.max(retryMs, Math.min(MAX_RETRY_MS, doubled)) * (1 + Math.random() / 4);
}
