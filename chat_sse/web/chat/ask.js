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
 */

/** How long to wait before the first reconnect when the server has sent no `retry:`. */
const RETRY_MS = 2_000;
/** No wait grows beyond this: an answer nobody reads is given up by the server within seconds. */
const MAX_RETRY_MS = 10_000;
/** Consecutive failures after which the connection counts as lost: a little over a minute. */
const MAX_FAILURES = 8;
/** The service sends a heartbeat every 15 s; after three missed ones nobody is there any more. */
const SILENCE_MS = 45_000;
/** How long a stop waits for the answer's last event. */
const STOP_MS = 5_000;
/** Statuses of gateways and restarts: while an answer is being resumed they say nothing about it. */
const TRANSIENT = new Set([408, 429, 502, 503, 504]);

/**
 * @typedef {{type: "text", text: string}
 *   | {type: "image_url", image_url: {url: string, detail?: "auto" | "low" | "high"}}} ContentPart
 * @typedef {{role: "user" | "assistant", content: string | ContentPart[]}} Message
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number}} Usage
 * @typedef {{role: "assistant", content: string, error: string, details: string, request_id: string,
 *   retryable: boolean}} ErrorBody
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

/** The server refused: `status` is HTTP's, the rest is the error body, made up where a gateway sent none. */
export class AskError extends Error {
  /**
   * @param {number} status
   * @param {Partial<ErrorBody>} body
   * @param {number | null} retryAfterSeconds
   */
  constructor(status, body, retryAfterSeconds) {
    super(body.content || `The server answered with status ${status}.`);
    this.name = "AskError";
    this.status = status;
    /** The code to program against, such as `rate_limit_error`. */
    this.error = body.error ?? "unexpected_response";
    /** For the person. */
    this.content = this.message;
    /** For the developer. */
    this.details = body.details ?? "";
    this.requestId = body.request_id ?? "";
    /** Whether asking again can help. */
    this.retryable = body.retryable ?? (status >= 500 || TRANSIENT.has(status));
    /** From `Retry-After`; null when the server named no time. */
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

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

/** One connection broke; the next may not. Never leaves this module. */
class Broken extends Error {
  /**
   * @param {unknown} cause
   * @param {number} [waitMs] how long the server asked to be left alone
   */
  constructor(cause, waitMs = 0) {
    super("the connection broke", { cause });
    this.waitMs = waitMs;
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
  #url;
  #options;
  #question;
  #retryMs = RETRY_MS;
  #stopping = false;
  #stopSent = false;
  #connection = new AbortController();
  #wake = () => {};

  /**
   * @param {string | URL} url
   * @param {AttachOptions} options
   * @param {{body: string, key: string | undefined} | null} question
   * @param {string} [id]
   */
  constructor(url, options, question, id = "") {
    this.#url = String(url);
    this.#options = options;
    this.#question = question;
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
      deadline = setTimeout(() => this.#connection.abort(signal?.reason), STOP_MS);
      this.#stop();
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      yield* this.#events();
    } finally {
      signal?.removeEventListener("abort", stop);
      clearTimeout(deadline);
      this.#connection.abort();
    }
  }

  /** @returns {AsyncGenerator<AskEvent, void, undefined>} */
  async *#events() {
    const { maxFailures = MAX_FAILURES, onConnection, signal } = this.#options;
    for (let failures = 0; ; ) {
      try {
        const response = await this.#request(failures > 0);
        if (response === null) return;
        if (failures > 0) onConnection?.({ state: "open" });
        for await (const message of this.#read(response)) {
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

  /**
   * Open the stream: from the start with the question, after that at the last event seen.
   * @param {boolean} again whether a connection has broken before this one
   * @returns {Promise<Response | null>} null when there is nothing more to read
   */
  async #request(again) {
    const response = this.lastEventId || this.#question === null ? await this.#get() : await this.#post();
    if (response.status === 204) return null;
    if (response.ok && response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      this.#identify(response.headers.get("Content-Location")?.split("/").pop() ?? "");
      return response;
    }
    const error = await refusal(response);
    if (again && TRANSIENT.has(response.status)) throw new Broken(error, 1000 * (error.retryAfterSeconds ?? 0));
    throw error;
  }

  #get() {
    /** @type {Record<string, string>} */
    const place = this.lastEventId ? { "Last-Event-ID": this.lastEventId } : {};
    return this.#fetch(this.#address(), { headers: place });
  }

  async #post() {
    const question = /** @type {{body: string, key: string | undefined}} */ (this.#question);
    question.key ??= await randomKey();
    const headers = { "Content-Type": "application/json", "Idempotency-Key": question.key };
    return this.#fetch(this.#url, { method: "POST", body: question.body, headers });
  }

  /**
   * @param {string} url
   * @param {RequestInit & {headers: Record<string, string>}} init
   */
  async #fetch(url, init) {
    const headers = this.#headers();
    headers.set("Accept", "text/event-stream");
    for (const [name, value] of Object.entries(init.headers)) headers.set(name, value);
    const { credentials, silenceMs = SILENCE_MS } = this.#options;
    this.#connection = new AbortController();
    const { signal } = this.#connection;
    try {
      return await within(silenceMs, fetch(url, { ...init, headers, credentials, cache: "no-store", signal }));
    } catch (error) {
      this.#connection.abort();
      throw new Broken(error);
    }
  }

  /**
   * Read a response's events until it ends. Throws Broken when it breaks or falls silent.
   * @param {Response} response
   */
  async *#read(response) {
    const { silenceMs = SILENCE_MS } = this.#options;
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const parser = new EventStreamParser(this.lastEventId);
    try {
      for (;;) {
        const { done, value } = await within(silenceMs, reader.read());
        if (done) return;
        yield* parser.feed(value);
      }
    } catch (error) {
      throw new Broken(error);
    } finally {
      reader.cancel().catch(() => {}); // broken already, or of no interest any more
    }
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
    // `keepalive`: a page that is being closed may still stop what it asked for. A stop that does not arrive
    // is no harm: without a reader the server stops by itself.
    const { credentials } = this.#options;
    const init = { method: "DELETE", headers: this.#headers(), credentials, keepalive: true };
    fetch(this.#address(), init).catch(() => {});
  }

  /** What every request carries. */
  #headers() {
    const { headers, apiKey } = this.#options;
    const all = new Headers(headers);
    if (apiKey) all.set("Authorization", `Bearer ${apiKey}`);
    return all;
  }

  #address() {
    const [, path, query] = /** @type {RegExpExecArray} */ (/^([^?#]*?)\/*(\?[^#]*)?(?:#.*)?$/.exec(this.#url));
    return `${path}/${encodeURIComponent(this.id || this.lastEventId.replace(/\.\d+$/, ""))}${query ?? ""}`;
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
 * @typedef {object} StreamMessage
 * @property {string} type The event's name; "message" for unnamed ones.
 * @property {string} data
 * @property {string} lastEventId
 * @property {number | null} retry Milliseconds, when the field came since the event before.
 */

/**
 * The event stream format to the letter: bytes in, split anywhere, events out.
 *
 * Source: WHATWG HTML, "9.2.6 Interpreting an event stream". An event that the stream's end cuts off is not
 * dispatched.
 */
export class EventStreamParser {
  #decoder = new TextDecoder(); // takes off one leading BOM, and keeps the bytes of a split character
  /** @type {string[]} */
  #line = []; // the pieces of a line whose end has not come yet
  #afterCr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  /** @type {number | null} */
  #retry = null;
  #lastEventId;

  /** @param {string} [lastEventId] What was last seen before this stream. */
  constructor(lastEventId = "") {
    this.#lastEventId = lastEventId;
  }

  /**
   * Take the next bytes and give the events that they complete.
   * @param {Uint8Array} bytes
   * @returns {StreamMessage[]}
   */
  feed(bytes) {
    /** @type {StreamMessage[]} */
    const messages = [];
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return messages;
    if (this.#afterCr && text[0] === "\n") text = text.slice(1); // the second half of a split CRLF
    this.#afterCr = text ? text.endsWith("\r") : false;
    const lines = text.split(/\r\n|\n|\r/);
    const rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      const message = this.#take(this.#line.length ? this.#line.join("") + line : line);
      this.#line.length = 0;
      if (message) messages.push(message);
    }
    if (rest) this.#line.push(rest);
    return messages;
  }

  /**
   * @param {string} line
   * @returns {StreamMessage | null}
   */
  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // "" for a comment
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#lastEventId = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.#retry = Number(value);
    return null;
  }

  /** @returns {StreamMessage | null} */
  #dispatch() {
    const data = this.#data;
    const type = this.#type || "message";
    this.#data = [];
    this.#type = "";
    if (!data.length) return null;
    const retry = this.#retry;
    this.#retry = null;
    return { type, data: data.join("\n"), lastEventId: this.#lastEventId, retry };
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

/**
 * @template T
 * @param {number} ms
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function within(ms, promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no byte for ${ms} ms`)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * @param {Response} response
 * @returns {Promise<AskError>}
 */
async function refusal(response) {
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  /** @type {Partial<ErrorBody>} */
  let body = {};
  try {
    body = Object(await response.json());
  } catch {
    // a gateway's page, or a body that broke off: the status must do
  }
  return new AskError(response.status, body, Number.isNaN(wait) ? null : wait);
}

/** 128 random bits. `crypto.randomUUID` is missing on plain http, and `crypto` itself in Node 18. */
async function randomKey() {
  const inNode = "node:crypto"; // not spelled out in the import, where bundlers for browsers would look for it
  const crypto = globalThis.crypto ?? (await import(inNode)).webcrypto;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
