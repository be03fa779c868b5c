/**
 * Reading one stream: bytes in, events out, until it ends, breaks or falls silent.
 *
 * A part of `/ask.js`. Import from there.
 */
/** One connection broke; the next may not. The callers of `ask` never see it. */
export declare class Broken extends Error {
    waitMs: number;
    /**
     * @param {unknown} cause
     * @param {number} [waitMs] how long the server asked to be left alone
     */
    constructor(cause: unknown, waitMs?: number);
}
/**
 * Read a response's events until it ends. Throws Broken when it breaks or falls silent.
 * @param {Response} response
 * @param {string} lastEventId What was last seen before this stream.
 * @param {number} silenceMs
 * @returns {AsyncGenerator<StreamMessage, void, undefined>}
 */
export declare function readEvents(response: Response, lastEventId: string, silenceMs: number): AsyncGenerator<StreamMessage, void, undefined>;
/**
 * Wait for a promise. Rejects when it takes longer than `ms`.
 * @template T
 * @param {number} ms
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export declare function within<T>(ms: number, promise: Promise<T>): Promise<T>;
export type StreamMessage = {
    /**
     * The event's name; "message" for unnamed ones.
     */
    type: string;
    data: string;
    lastEventId: string;
    /**
     * Milliseconds, when the field came since the event before.
     */
    retry: number | null;
};
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
export declare class EventStreamParser {
    #private;
    /** @param {string} [lastEventId] What was last seen before this stream. */
    constructor(lastEventId?: string);
    /**
     * Take the next bytes and give the events that they complete.
     * @param {Uint8Array} bytes
     * @returns {StreamMessage[]}
     */
    feed(bytes: Uint8Array): StreamMessage[];
}
