/**
 * The requests that one answer takes: ask, resume, stop. What comes of them: a stream, a refusal, a break.
 *
 * A part of `/ask.js`. Import from there.
 */

import { Broken, readEvents, within } from "./ask-stream.js";

/** The service sends a heartbeat every 15 s; after three missed ones nobody is there any more. */
const SILENCE_MS = 45_000;
/** Statuses of gateways and restarts: while an answer is being resumed they say nothing about it. */
const TRANSIENT = new Set([408, 429, 502, 503, 504]);

/** The server refused: `status` is HTTP's, the rest is the error body, made up where a gateway sent none. */
export class AskError extends Error {
  /**
   * @param {number} status
   * @param {Partial<import("./ask.js").ErrorBody>} body
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
    /** Of a 401: who may ask, such as `keys` or `jwt`; empty when the server did not say. */
    this.accepts = body.accepts ?? [];
    /** Of a 401: where to log in; `{url}` in it stands for the page to come back to. null when nowhere. */
    this.loginUrl = body.login_url ?? null;
  }
}

/** @typedef {{body: string, key: string | undefined}} Question Without a key it gets one when it is first sent. */

/**
 * An answer's stream, from one connection.
 * @typedef {object} Stream
 * @property {string} id The answer's, "" when the server does not name it before the first event.
 * @property {AsyncGenerator<import("./ask-stream.js").StreamMessage, void, undefined>} messages Throws Broken.
 */

/** The requests of one answer. One connection is open at a time. */
export class Requests {
  #url;
  #options;
  #question;
  #connection = new AbortController();

  /**
   * @param {string} url
   * @param {import("./ask.js").AttachOptions} options
   * @param {Question | null} question null for an answer that is only attached to
   */
  constructor(url, options, question) {
    this.#url = url;
    this.#options = options;
    this.#question = question;
  }

  /**
   * Open the stream: from the start with the question, after that at the last event seen. Throws Broken when
   * another connection may succeed, and AskError when the server refuses.
   * @param {string} id The answer's, "" while it is not known.
   * @param {string} lastEventId "" before the first event.
   * @param {boolean} again whether a connection has broken before this one
   * @returns {Promise<Stream | null>} null when there is nothing more to read
   */
  async open(id, lastEventId, again) {
    const question = lastEventId ? null : this.#question;
    const response = question === null ? await this.#get(id, lastEventId) : await this.#post(question);
    if (response.status === 204) return null;
    if (response.ok && response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      const { silenceMs = SILENCE_MS } = this.#options;
      return {
        id: response.headers.get("Content-Location")?.split("/").pop() ?? "",
        messages: readEvents(response, lastEventId, silenceMs),
      };
    }
    const error = await refusal(response);
    if (again && TRANSIENT.has(response.status)) throw new Broken(error, 1000 * (error.retryAfterSeconds ?? 0));
    throw error;
  }

  /**
   * Stop the answer for all its readers.
   * @param {string} id
   */
  stop(id) {
    // `keepalive`: a page that is being closed may still stop what it asked for. A stop that does not arrive
    // is no harm: without a reader the server stops by itself.
    const { credentials } = this.#options;
    const init = { method: "DELETE", headers: this.#headers(), credentials, keepalive: true };
    fetch(this.#address(id), init).catch(() => {});
  }

  /**
   * Close the open connection, if any.
   * @param {unknown} [reason]
   */
  close(reason) {
    this.#connection.abort(reason);
  }

  /**
   * @param {string} id
   * @param {string} lastEventId
   */
  #get(id, lastEventId) {
    /** @type {Record<string, string>} */
    const place = lastEventId ? { "Last-Event-ID": lastEventId } : {};
    return this.#fetch(this.#address(id || lastEventId.replace(/\.\d+$/, "")), { headers: place });
  }

  /** @param {Question} question */
  async #post(question) {
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

  /** What every request carries. */
  #headers() {
    const { headers, apiKey } = this.#options;
    const all = new Headers(headers);
    if (apiKey) all.set("Authorization", `Bearer ${apiKey}`);
    return all;
  }

  /** @param {string} id */
  #address(id) {
    const [, path, query] = /** @type {RegExpExecArray} */ (/^([^?#]*?)\/*(\?[^#]*)?(?:#.*)?$/.exec(this.#url));
    return `${path}/${encodeURIComponent(id)}${query ?? ""}`;
  }
}

/**
 * @param {Response} response
 * @returns {Promise<AskError>}
 */
async function refusal(response) {
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  /** @type {Partial<import("./ask.js").ErrorBody>} */
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
