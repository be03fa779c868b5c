// The event stream parser of ask.js by the letter of WHATWG HTML, "9.2.6 Interpreting an event stream".

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStreamParser } from "../../chat_sse/web/chat/ask.js";

const utf8 = new TextEncoder();

/** Parse a stream that arrives in these pieces. */
function parse(...pieces) {
  const parser = new EventStreamParser();
  return pieces.flatMap((piece) => parser.feed(typeof piece === "string" ? utf8.encode(piece) : piece));
}

const dataOf = (messages) => messages.map(({ data }) => data);

test("an event without a name is a message", () => {
  assert.deepEqual(parse("id: 7\ndata: hi\n\n"), [{ type: "message", data: "hi", lastEventId: "7", retry: null }]);
});

test("the standard's first example: lines of data are joined", () => {
  assert.deepEqual(dataOf(parse("data: YHOO\ndata: +2\ndata: 10\n\n")), ["YHOO\n+2\n10"]);
});

test("the standard's second example: ids hold until they change, and an empty one resets", () => {
  const stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
  const told = parse(stream).map(({ data, lastEventId }) => [data, lastEventId]);
  assert.deepEqual(told, [["first event", "1"], ["second event", ""], [" third event", ""]]);
});

test("the standard's third example: empty data is an event, and what the end cuts off is none", () => {
  assert.deepEqual(dataOf(parse("data\n\ndata\ndata\n\ndata:")), ["", "\n"]);
});

test("the standard's fourth example: one space after the colon is not part of the value", () => {
  assert.deepEqual(dataOf(parse("data:test\n\ndata: test\n\n")), ["test", "test"]);
});

test("CR, LF and CRLF end lines, in one stream and split anywhere", () => {
  assert.deepEqual(dataOf(parse("data: a\r\rdata: b\n\ndata: c\r\n\r\n")), ["a", "b", "c"]);
  assert.deepEqual(dataOf(parse("data: a\r", "\n\r", "\ndata: b\r", "\r", "data: c\n", "\n")), ["a", "b", "c"]);
});

test("a CR at the end of a piece dispatches at once, without waiting for a LF", () => {
  assert.deepEqual(dataOf(parse("data: a\r\r")), ["a"]);
});

test("U+2028, U+2029 and U+0085 end no line", () => {
  assert.deepEqual(dataOf(parse("data: a\u2028b\u2029c\u0085d\n\n")), ["a\u2028b\u2029c\u0085d"]);
});

test("one BOM at the start is taken off, a second one is not", () => {
  assert.deepEqual(dataOf(parse("\uFEFFdata: a\n\n")), ["a"]);
  assert.deepEqual(dataOf(parse(Uint8Array.of(0xef), Uint8Array.of(0xbb), Uint8Array.of(0xbf), "data: a\n\n")), ["a"]);
  assert.deepEqual(dataOf(parse("\uFEFF\uFEFFdata: a\n\ndata: b\n\n")), ["b"]);
});

test("bytes that are no UTF-8 are replaced, and the stream goes on", () => {
  assert.deepEqual(dataOf(parse("data: a", Uint8Array.of(0xff), "\n\ndata: b\n\n")), ["a\uFFFD", "b"]);
});

test("comments, unknown fields and heartbeats between lines say nothing", () => {
  assert.deepEqual(dataOf(parse(": hb\ndata: a\n: hb\n: hb\nfoo: bar\nDATA: no\n data: no\n\n:\n\n")), ["a"]);
});

test("an id with a NUL is ignored, and so is a retry that is not all digits", () => {
  const [message] = parse("id: 1\nid: 2\0\nretry: 1e3\nretry: -5\ndata: a\n\n");
  assert.deepEqual([message.lastEventId, message.retry], ["1", null]);
  assert.equal(parse("retry: 250\ndata: a\n\n")[0].retry, 250);
});

test("an event's name and data end with it, even when there was no data", () => {
  const told = parse("event: x\n\nevent: y\ndata: 1\n\ndata: 2\n\n").map(({ type, data }) => [type, data]);
  assert.deepEqual(told, [["y", "1"], ["message", "2"]]);
});

test("any split of the bytes gives the same events", () => {
  const stream = utf8.encode(
    "\uFEFFretry: 10\r\nid: a.0\r\ndata: {\"x\":\"é€😀\"}\r\n\r\n: hb\rid: a.1\rdata: one\rdata: two\r\r" +
      "id: a.2\nevent: n\ndata\n\ndata: cut off",
  );
  const whole = parse(stream);
  assert.equal(whole.length, 3);
  for (let first = 0; first <= stream.length; first += 1) {
    for (let second = first; second <= stream.length; second += 1) {
      const pieces = [stream.slice(0, first), stream.slice(first, second), stream.slice(second)];
      assert.deepEqual(parse(...pieces), whole, `split at ${first} and ${second}`);
    }
  }
  assert.deepEqual(parse(...Array.from(stream, (byte) => Uint8Array.of(byte))), whole);
});

test("a line of ten megabytes in small pieces costs no more than its length", { timeout: 20_000 }, () => {
  const piece = "x".repeat(1_000);
  const messages = parse("data: ", ...Array(10_000).fill(piece), "\n\n");
  assert.equal(messages[0].data.length, 10_000_000);
});
