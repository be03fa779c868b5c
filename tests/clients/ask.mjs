// Asks with ask.js as a program of its own, and reports on standard output, one JSON a line.
// Order (argv): {url, messages | attach, options, stopAfter, leaveAfter}; the last two count events, and 0
// stops before the first.

import { ask, attach } from "../../chat_sse/web/chat/ask.js";

const order = JSON.parse(process.argv[2]);
const report = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);
const controller = new AbortController();
const options = {
  ...order.options,
  signal: controller.signal,
  onConnection: ({ state, attempt, delayMs }) => report({ connection: state, attempt, delayMs }),
};
const answer = order.attach ? attach(order.url, order.attach, options) : ask(order.url, order.messages, options);
const stop = () => controller.abort();
let count = 0;
if (order.stopAfter === 0) process.stdin.once("data", stop);
try {
  for await (const event of answer) {
    count += 1;
    report({ event, lastEventId: answer.lastEventId });
    if (count === order.stopAfter) stop();
    if (count === order.leaveAfter) break;
  }
  report({ ended: true, id: answer.id });
} catch (error) {
  const { name, message, status, content, details, retryable, requestId, retryAfterSeconds, id, lastEventId } = error;
  const told = { status, content, details, retryable, requestId, retryAfterSeconds, id, lastEventId };
  report({ threw: name, message, error: error.error, ...told });
}
process.stdin.destroy();
