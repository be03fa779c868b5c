// AG-UI's own client, with nothing set but the URL.
// Order: {"url", "run", "threadId", "runId"}. Each line of output is one report, in JSON.

import { HttpAgent } from "@ag-ui/client";

const order = JSON.parse(process.argv[2]);
console.error = () => {}; // it says there what it throws
const report = (what) => console.log(JSON.stringify(what));

const agent = new HttpAgent({ url: order.url, threadId: order.threadId });
agent.addMessage({ id: "m1", role: "user", content: order.content ?? "Hello!" });

const seen = { types: [], error: null, outcome: null, usage: null };
agent.subscribe({
  onEvent({ event }) {
    seen.types.push(event.type);
    if (order.run === "stop" && event.delta === "first") agent.abortRun();
  },
  onRunErrorEvent({ event }) {
    seen.error = { message: event.message, code: event.code ?? null };
  },
  onRunFinishedEvent({ event, outcome, result }) {
    Object.assign(seen, { outcome, reason: result?.finishReason, usage: event.usage });
  },
});

async function run() {
  let thrown = null;
  try {
    await agent.runAgent({ runId: order.runId, tools: order.tools });
  } catch (error) {
    thrown = { message: error.message, status: error.status ?? null };
  }
  const messages = agent.messages.map(({ role, content }) => [role, content]);
  report({ ...seen, thrown, messages, id: agent.messages.at(-1).id });
}

await run();
if (order.then) {
  agent.addMessage({ id: "m2", role: "user", content: order.then });
  order.runId = undefined;
  await run();
}
