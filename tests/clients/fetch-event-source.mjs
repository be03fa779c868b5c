// A POST with the error handling of its README: an end before the terminal event is retried.
// It is made for browsers. Node has their fetch; a window and a document are all that it lacks, and the
// document's visibility can be changed from outside: SIGUSR2 hides the tab for a moment.
import { ended, key, message, question, terminal, url } from "./report.mjs";

globalThis.window = globalThis;
globalThis.document = Object.assign(new EventTarget(), { hidden: false });
process.on("SIGUSR2", () => {
  for (document.hidden of [true, false]) document.dispatchEvent(new Event("visibilitychange"));
});
const { EventStreamContentType, fetchEventSource } = (await import("@microsoft/fetch-event-source")).default;

class FatalError extends Error {}
class RetriableError extends Error {}

let finished = false;
await fetchEventSource(`${url}/ask`, {
  method: "POST",
  headers: { "Content-Type": "application/json", "Idempotency-Key": key },
  body: JSON.stringify({ messages: [{ role: "user", content: question }] }),
  async onopen(response) {
    if (response.ok && response.headers.get("content-type") === EventStreamContentType) return;
    if (response.status >= 400 && response.status < 500 && response.status !== 429) throw new FatalError();
    throw new RetriableError();
  },
  onmessage({ id, data }) {
    message(id, data);
    finished = terminal(data);
  },
  onclose() {
    if (!finished) throw new RetriableError();
  },
  onerror(error) {
    if (error instanceof FatalError) throw error;
  },
});
ended("resolved");
process.removeAllListeners("SIGUSR2");
