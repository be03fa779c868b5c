// OpenAI's SDK for Node, and LangChain.js on top of it, with nothing set but the base URL.
// Order: {"client", "base", "run"}. Each line of output is one report, in JSON.

const order = JSON.parse(process.argv[2]);
const report = (what) => console.log(JSON.stringify(what));

const question = [{ role: "user", content: "Hello!" }];
const aborting = new AbortController();

// Each yields [text, why it ended, usage] as its library hands them over.
const clients = {
  async *openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: order.base, apiKey: "none" });
    const asked = { model: order.model, messages: question };
    if (order.run === "body") {
      const answer = await client.chat.completions.create(asked);
      yield [answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.total_tokens];
      return;
    }
    const options = { signal: aborting.signal };
    const streamed = { ...asked, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create(streamed, options)) {
      const choice = chunk.choices[0];
      yield [choice?.delta.content ?? "", choice?.finish_reason, chunk.usage?.total_tokens];
    }
  },

  async *langchain() {
    const { ChatOpenAI } = await import("@langchain/openai");
    const configuration = { baseURL: order.base };
    const model = new ChatOpenAI({ model: order.model, apiKey: "none", configuration, maxRetries: 1 });
    if (order.run === "body") {
      // It asks again by itself after any 500: the key keeps that from being another question.
      const options = { headers: { "Idempotency-Key": crypto.randomUUID() } };
      const { content, response_metadata, usage_metadata } = await model.invoke("Hello!", { options });
      yield [content, response_metadata.finish_reason, usage_metadata.total_tokens];
      return;
    }
    for await (const chunk of await model.stream("Hello!", { signal: aborting.signal })) {
      yield [chunk.content, chunk.response_metadata.finish_reason, chunk.usage_metadata?.total_tokens];
    }
  },
};

const got = { text: "", reason: null, usage: null, error: null };
try {
  for await (const [text, reason, usage] of clients[order.client]()) {
    got.text += text;
    got.reason = reason || got.reason;
    got.usage = usage ?? got.usage;
    if (order.run === "stop" && got.text.includes("first")) aborting.abort();
  }
} catch (error) {
  got.error = { name: error.constructor.name, message: error.message, code: error.code ?? null };
}
report(got);
