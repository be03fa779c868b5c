// A POST that, with the strategy its README advises for language models, reconnects after errors only.
import { EventSourcePlus } from "event-source-plus";
import { ended, key, message, question, url } from "./report.mjs";

const source = new EventSourcePlus(`${url}/ask`, {
  method: "post",
  headers: { "Content-Type": "application/json", "Idempotency-Key": key },
  body: JSON.stringify({ messages: [{ role: "user", content: question }] }),
  retryStrategy: "on-error",
});
const controller = source.listen({ onMessage: ({ id, data }) => message(id, data) });
controller.onAbort(({ type }) => ended(type));
