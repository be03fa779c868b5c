// AI SDK 5 and later: the state machine below `useChat`, and the transport below that.
// Order: {"package", "api", "run"}. Each line of output is one report, in JSON.

const order = JSON.parse(process.argv[2]);
const { AbstractChat, DefaultChatTransport, readUIMessageStream } = await import(order.package);

const report = (what) => console.log(JSON.stringify(what));

// What @ai-sdk/react keeps in React's state, and a page without React in a plain object.
class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(options) {
    super({ ...options, state: new State(), transport: new DefaultChatTransport({ api: order.api }) });
  }
}

const textOf = (message) =>
  (message?.parts ?? []).filter((part) => part.type === "text").map((part) => part.text).join("");

function finished(chat, ending) {
  const message = chat.lastMessage;
  report({
    finished: true,
    status: chat.status,
    error: chat.error?.message ?? null,
    role: message?.role,
    id: message?.id,
    text: textOf(message),
    parts: message?.parts.map((part) => [part.type, part.state ?? null]),
    metadata: message?.metadata ?? null,
    finishReason: ending?.finishReason ?? null,
    aborted: ending?.isAbort ?? null,
  });
}

async function textReaches(chat, wanted) {
  while (!(chat.lastMessage?.role === "assistant" && textOf(chat.lastMessage).includes(wanted))) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

let ending;
const chat = new Chat({ id: order.chatId, onFinish: (event) => (ending = event), onError: () => {} });

const runs = {
  // One question; then, if asked for, the same once more.
  async ask() {
    await chat.sendMessage({ text: "Hello!", files: order.files });
    finished(chat, ending);
    if (order.then === "regenerate") {
      await chat.regenerate();
      finished(chat, ending);
    }
    if (order.then === "again") {
      await chat.sendMessage({ text: "And then?" });
      finished(chat, ending);
    }
  },

  async stop() {
    const answer = chat.sendMessage({ text: "Hello!" });
    await textReaches(chat, "first");
    await chat.stop();
    await answer;
    finished(chat, ending);
  },

  // Stop it for everybody, by the message's id.
  async delete() {
    const answer = chat.sendMessage({ text: "Hello!" });
    await textReaches(chat, "first");
    await fetch(new URL(`/ask/${chat.lastMessage.id}`, order.api), { method: "DELETE" });
    await answer;
    finished(chat, ending);
  },

  // A page is closed in the middle of an answer, and another one opens the same chat.
  async resume() {
    const closing = chat.sendMessage({ text: "Hello!" });
    await textReaches(chat, "first");
    await chat.stop();
    await closing;
    finished(chat, ending);
    const reopened = new Chat({ id: order.chatId, onFinish: (event) => (ending = event), onError: () => {} });
    reopened.messages = chat.messages.slice(0, 1);
    const answer = reopened.resumeStream();
    await textReaches(reopened, "first");
    report({ resumed: true });
    await answer;
    finished(reopened, ending);
    const none = await new DefaultChatTransport({ api: order.api }).reconnectToStream({ chatId: order.chatId });
    report({ none });
  },

  // The transport alone: the chunks as they came, and the messages that the SDK makes of them.
  async transport() {
    const messages = [{ id: "m1", role: "user", parts: [{ type: "text", text: "Hello!" }] }];
    const trigger = "submit-message";
    const stream = await new DefaultChatTransport({ api: order.api }).sendMessages({
      trigger, messages, chatId: order.chatId, messageId: undefined, abortSignal: undefined,
    });
    const [first, second] = stream.tee();
    const chunks = [];
    for await (const chunk of first) chunks.push(chunk);
    let last;
    for await (const message of readUIMessageStream({ stream: second })) last = message;
    report({ chunks, text: textOf(last), message: last });
  },
};

await runs[order.run]();
