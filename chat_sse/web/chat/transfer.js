// @ts-check
/** Chats as files: all of them as JSON, to be imported again, and one as Markdown, to be read elsewhere. */

import { $ } from "./dom.js";
import { toast } from "./feedback.js";
import { withoutThinking } from "./thinking.js";

const FORMAT = "chat-sse chats";

/**
 * @param {string} name
 * @param {string} type
 * @param {string} text
 */
function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {import("./store.js").Chat[]} chats */
export function exportChats(chats) {
  const day = new Date().toISOString().slice(0, 10);
  download(`chats-${day}.json`, "application/json", JSON.stringify({ format: FORMAT, chats }, null, 1));
}

/** @param {import("./store.js").Chat} chat */
function exportMarkdown(chat) {
  const turns = chat.turns.map(({ question, answer }) => {
    const quoted = question.replace(/^/gm, "> ");
    return `${quoted}\n\n${withoutThinking(answer).text.trim() || answer.fault?.content || ""}`;
  });
  const name = chat.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
  download(`${name}.md`, "text/markdown", `# ${chat.title}\n\n${turns.join("\n\n")}\n`);
}

/**
 * Return the chats of an exported file. Throws when it is none.
 * @param {string} text
 * @returns {import("./store.js").Chat[]}
 */
function chatsOf(text) {
  const { format, chats } = JSON.parse(text);
  if (format !== FORMAT || !Array.isArray(chats) || !chats.every(isChat)) throw new Error("not exported chats");
  for (const { answer } of chats.flatMap(({ turns }) => turns)) {
    if (answer.state === "running") Object.assign(answer, { state: "done", finishReason: "cancelled" });
  }
  return chats;
}

/** @param {any} chat */
function isChat(chat) {
  const isText = (/** @type {unknown} */ value) => typeof value === "string";
  return /^[0-9a-f]{32}$/.test(chat?.id) && isText(chat.title) && Number.isFinite(chat.updatedAt) && arePath(chat.turns);
}

/** @param {any} turns @returns {boolean} */
function arePath(turns) {
  return Array.isArray(turns) && turns.length > 0 && turns.every(isTurn);
}

/** @param {any} turn @returns {boolean} */
function isTurn(turn) {
  const { question, answer, fork, images = [] } = turn ?? {};
  const texts = [question, answer?.state, answer?.key, answer?.id, answer?.text, answer?.reasoning, ...images];
  if (!texts.every((text) => typeof text === "string") || typeof answer.askedAt !== "number") return false;
  if (answer.fault && typeof answer.fault.content !== "string") return false;
  if (!images.every((/** @type {string} */ image) => /^(data:image\/|$)/.test(image))) return false;
  if (!fork) return true;
  const { paths, shown } = fork;
  const others = Array.isArray(paths) && paths.every((/** @type {any} */ path, index) => (index === shown ? path.length === 0 : arePath(path)));
  return others && Number.isInteger(shown) && shown < paths.length;
}

/**
 * @param {import("./store.js").Chats} chats
 * @param {() => import("./store.js").Chat | undefined} current
 * @param {() => void} onImport
 */
export function wireFiles(chats, current, onImport) {
  const input = $("import-file");
  $("export").addEventListener("click", () => exportChats(chats.list()));
  $("import").addEventListener("click", () => input.click());
  $("save-markdown").addEventListener("click", () => {
    const chat = current();
    if (chat) exportMarkdown(chat);
  });
  input.addEventListener("change", async () => {
    try {
      const count = chats.take(chatsOf(await input.files[0].text()));
      toast(count === 1 ? "One chat is imported." : `${count} chats are imported.`);
    } catch {
      toast("This file holds no exported chats.");
    }
    input.value = ""; // so that the same file can be chosen again
    onImport();
  });
}
