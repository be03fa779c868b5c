/**
 * Reading one stream: bytes in, events out, until it ends, breaks or falls silent.
 *
 * A part of `/ask.js`. Import from there.
 */

/** One connection broke; the next may not. The callers of `ask` never see it. */
export class Broken extends Error {
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
 * Read a response's events until it ends. Throws Broken when it breaks or falls silent.
 * @param {Response} response
 * @param {string} lastEventId What was last seen before this stream.
 * @param {number} silenceMs
 * @returns {AsyncGenerator<StreamMessage, void, undefined>}
 */
export async function* readEvents(response, lastEventId, silenceMs) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const parser = new EventStreamParser(lastEventId);
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

/**
 * Wait for a promise. Rejects when it takes longer than `ms`.
 * @template T
 * @param {number} ms
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function within(ms, promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no byte for ${ms} ms`)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
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
