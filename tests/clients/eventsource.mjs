// The browser's EventSource for Node. It has no terminal event of its own: after the last one it reconnects
// with Last-Event-ID, and the service's 204 stops it. Its wait between connections does not keep a process
// alive; in a program that does nothing else, something must.
import { EventSource } from "eventsource";
import { ended, key, message, question, url } from "./report.mjs";

const awake = setInterval(() => {}, 60_000);
const source = new EventSource(`${url}/ask?q=${encodeURIComponent(question)}&id=${key}`);
source.onmessage = (event) => message(event.lastEventId, event.data);
source.onerror = (event) => {
  if (source.readyState !== EventSource.CLOSED) return; // it comes back by itself
  clearInterval(awake);
  ended(event.code);
};
