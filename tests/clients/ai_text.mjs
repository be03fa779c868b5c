// AI SDK 4: what `useChat({api, streamProtocol: "text"})` calls, with the body that it posts.
// Order: {"api", "run"}. Each line of output is one report, in JSON.

import { callChatApi, fillMessageParts, generateId } from "@ai-sdk/ui-utils";

const order = JSON.parse(process.argv[2]);
const report = (what) => console.log(JSON.stringify(what));

const sent = [{ role: "user", content: "Hello!", ...(order.files && { experimental_attachments: order.files }) }];
const messages = fillMessageParts(sent).map(({ role, content, experimental_attachments, parts }) => ({
  role,
  content,
  ...(experimental_attachments !== undefined && { experimental_attachments }),
  parts,
}));

const aborting = new AbortController();
let text = "";
let finish = null;
let error = null;
try {
  await callChatApi({
    api: order.api,
    body: { id: order.chatId, messages },
    streamProtocol: "text",
    credentials: undefined,
    headers: undefined,
    abortController: () => aborting,
    restoreMessagesOnFailure() {},
    onResponse(response) {
      report({ status: response.status, type: response.headers.get("content-type") });
    },
    onUpdate({ message }) {
      text = message.content;
      if (order.run === "stop" && text.includes("first")) aborting.abort();
    },
    onFinish(message, { finishReason }) {
      finish = finishReason;
    },
    onToolCall: undefined,
    generateId,
    lastMessage: messages.at(-1),
  });
} catch (caught) {
  error = { name: caught.name, message: caught.message };
}
report({ finished: true, text, finish, error });
