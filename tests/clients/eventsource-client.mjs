// A POST that reconnects after every end, also a good one: the caller closes it at the terminal event.
import { createEventSource } from "eventsource-client";
import { ended, key, message, question, terminal, url } from "./report.mjs";

const source = createEventSource({
  url: `${url}/ask`,
  method: "POST",
  headers: { "Content-Type": "application/json", "Idempotency-Key": key },
  body: JSON.stringify({ messages: [{ role: "user", content: question }] }),
});
for await (const { id, data } of source) {
  message(id, data);
  if (terminal(data)) break;
}
source.close();
ended("closed");
