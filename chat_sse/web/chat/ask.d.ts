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
export { AskError } from "./ask-requests.js";
export { EventStreamParser } from "./ask-stream.js";
export type ContentPart = {
    type: "text";
    text: string;
} | {
    type: "image_url";
    image_url: {
        url: string;
        detail?: "auto" | "low" | "high";
    };
};
export type Message = {
    role: "user" | "assistant";
    content: string | ContentPart[];
};
export type Usage = {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
};
export type ErrorBody = {
    role: "assistant";
    content: string;
    error: string;
    details: string;
    request_id: string;
    retryable: boolean;
    accepts?: string[];
    login_url?: string | null;
};
export type StartEvent = {
    type: "start";
    id: string;
    model: string;
};
export type DeltaEvent = {
    type: "delta";
    content: string;
};
export type ReasoningEvent = {
    type: "reasoning";
    content: string;
};
export type DoneEvent = {
    type: "done";
    finish_reason: string | null;
    usage: Usage | null;
};
export type ErrorEvent = {
    type: "error";
} & ErrorBody;
export type AskEvent = StartEvent | DeltaEvent | ReasoningEvent | DoneEvent | ErrorEvent;
export type Connection = {
    state: "open";
} | {
    state: "reconnecting";
    attempt: number;
    delayMs: number;
    error: unknown;
};
export type AttachOptions = {
    /**
     * Stops the answer for all its readers when it aborts.
     */
    signal?: AbortSignal;
    /**
     * The service's, where it asks for one: sent with every request as
     * `Authorization: Bearer`, and never in a URL.
     */
    apiKey?: string;
    /**
     * Sent with every request.
     */
    headers?: HeadersInit;
    /**
     * As for `fetch`.
     */
    credentials?: RequestCredentials;
    /**
     * The last event already seen; without it the answer is read from its start.
     */
    lastEventId?: string;
    /**
     * Consecutive failed connections before `ConnectionLost`. Default 8.
     */
    maxFailures?: number;
    /**
     * A connection without a byte for so long counts as broken. Default 45,000.
     */
    silenceMs?: number;
    /**
     * Told of each break and each success after it.
     */
    onConnection?: (connection: Connection) => void;
};
export type OwnAskOptions = {
    /**
     * The same key with the same question attaches to the same answer and is
     * paid for once. Default: a new random one.
     */
    idempotencyKey?: string;
    /**
     * One of the models that the server offers.
     */
    model?: string;
    /**
     * 0 to 2.
     */
    temperature?: number;
    /**
     * The server may allow fewer.
     */
    max_output_tokens?: number;
};
export type AskOptions = Omit<AttachOptions, "lastEventId"> & OwnAskOptions;
export type StreamMessage = import("./ask-stream.js").StreamMessage;
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
export declare class ConnectionLost extends Error {
    id: string;
    lastEventId: string;
    /**
     * @param {Answer} answer
     * @param {unknown} cause
     */
    constructor(answer: Answer, cause: unknown);
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
export declare function ask(url: string | URL, messages: Message[], options?: AskOptions): Answer;
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
export declare function attach(url: string | URL, id: string, options?: AttachOptions): Answer;
/** An answer being read: an async iterable, to be iterated once. */
export declare class Answer {
    #private;
    /** The answer's id, "" until it is known. */
    id: string;
    /** The last event's id, "" before the first: where to attach again. */
    lastEventId: string;
    /**
     * @param {string | URL} url
     * @param {AttachOptions} options
     * @param {{body: string, key: string | undefined} | null} question
     * @param {string} [id]
     */
    constructor(url: string | URL, options: AttachOptions, question: {
        body: string;
        key: string | undefined;
    } | null, id?: string);
    /** @returns {AsyncGenerator<AskEvent, void, undefined>} */
    [Symbol.asyncIterator](): AsyncGenerator<AskEvent, void, undefined>;
    /** Connect at once instead of waiting, when the connection has broken. */
    reconnect(): void;
}
