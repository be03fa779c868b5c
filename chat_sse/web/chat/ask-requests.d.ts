/**
 * The requests that one answer takes: ask, resume, stop. What comes of them: a stream, a refusal, a break.
 *
 * A part of `/ask.js`. Import from there.
 */
/** The server refused: `status` is HTTP's, the rest is the error body, made up where a gateway sent none. */
export declare class AskError extends Error {
    status: number;
    /** The code to program against, such as `rate_limit_error`. */
    error: string;
    /** For the person. */
    content: string;
    /** For the developer. */
    details: string;
    requestId: string;
    /** Whether asking again can help. */
    retryable: boolean;
    /** From `Retry-After`; null when the server named no time. */
    retryAfterSeconds: number | null;
    /** Of a 401: who may ask, such as `keys` or `jwt`; empty when the server did not say. */
    accepts: string[];
    /** Of a 401: where to log in; `{url}` in it stands for the page to come back to. null when nowhere. */
    loginUrl: string | null;
    /**
     * @param {number} status
     * @param {Partial<import("./ask.js").ErrorBody>} body
     * @param {number | null} retryAfterSeconds
     */
    constructor(status: number, body: Partial<import("./ask.js").ErrorBody>, retryAfterSeconds: number | null);
}
export type Question = {
    body: string;
    key: string | undefined;
};
export type Stream = {
    /**
     * The answer's, "" when the server does not name it before the first event.
     */
    id: string;
    /**
     * Throws Broken.
     */
    messages: AsyncGenerator<import("./ask-stream.js").StreamMessage, void, undefined>;
};
/** @typedef {{body: string, key: string | undefined}} Question Without a key it gets one when it is first sent. */
/**
 * An answer's stream, from one connection.
 * @typedef {object} Stream
 * @property {string} id The answer's, "" when the server does not name it before the first event.
 * @property {AsyncGenerator<import("./ask-stream.js").StreamMessage, void, undefined>} messages Throws Broken.
 */
/** The requests of one answer. One connection is open at a time. */
export declare class Requests {
    #private;
    /**
     * @param {string} url
     * @param {import("./ask.js").AttachOptions} options
     * @param {Question | null} question null for an answer that is only attached to
     */
    constructor(url: string, options: import("./ask.js").AttachOptions, question: Question | null);
    /**
     * Open the stream: from the start with the question, after that at the last event seen. Throws Broken when
     * another connection may succeed, and AskError when the server refuses.
     * @param {string} id The answer's, "" while it is not known.
     * @param {string} lastEventId "" before the first event.
     * @param {boolean} again whether a connection has broken before this one
     * @returns {Promise<Stream | null>} null when there is nothing more to read
     */
    open(id: string, lastEventId: string, again: boolean): Promise<Stream | null>;
    /**
     * Stop the answer for all its readers.
     * @param {string} id
     */
    stop(id: string): void;
    /**
     * Close the open connection, if any.
     * @param {unknown} [reason]
     */
    close(reason?: unknown): void;
}
