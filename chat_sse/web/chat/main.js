// @ts-check
/** The chat page: what the reader does, turned into chats and answers. */

import { Answers } from "./answers.js";
import { Key } from "./key.js";
import { Chats, newAnswer, randomId } from "./store.js";
import { Transcript } from "./transcript.js";

/** Some 25,000 words: more than any model reads well, and far below what the server takes. */
const MAX_QUESTION_CHARS = 100_000;
const TITLE_CHARS = 60;
const TOAST_MS = 8_000;
/** A screen reader is given this much of an answer; the rest can be read on the page. */
const ANNOUNCED_CHARS = 2_000;

const STARTERS = [
  "Explain server-sent events to me, with a small example",
  "Compare three ways to keep a secret out of a web page, in a table",
  "Help me say no to a meeting, kindly and in two sentences",
  "Plan two unhurried days in Lisbon",
];

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const narrow = matchMedia("(max-width: 55.99rem)");

let chatId = location.hash.slice(1);
let editing = false;
/** The chats whose last question waits for a key. */
const locked = new Set();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;

const chats = new Chats({
  onFault: () => toast("This browser's storage is full or closed, so chats are not kept. Deleting some may help."),
  onForeignChange: (id) => {
    if (!answers.isRunning(id)) showIfCurrent(id);
    showList();
  },
});

const transcript = new Transcript(
  { element: $("transcript"), scroller: $("scroller"), jump: $("jump") },
  (action, turn, pressed) => ACTIONS[action](turn, pressed),
);

const key = new Key(
  {
    form: $("key-form"),
    input: $("key"),
    fault: $("key-fault"),
    forget: $("forget-key"),
    announcer: $("announcer"),
  },
  () => {
    for (const id of locked) goOn(chats.get(id));
    locked.clear();
    $("question").focus();
  },
);

const answers = new Answers(chats, {
  apiKey: () => key.value,
  onChange: (chat, turn) => {
    if (chat.id !== chatId) return;
    transcript.refresh(chat);
    if (turn.answer.state !== "running" || !turn.answer.text) showComposer();
  },
  onEnd: (chat, turn, apiKey) => {
    if (turn.answer.fault?.code === "unauthenticated") unlock(chat, apiKey);
    showList();
    if (chat.id !== chatId) return;
    showComposer();
    announce(turn.answer);
  },
});

/** @type {Record<string, (turn: import("./store.js").Turn, pressed: HTMLElement) => void>} */
const ACTIONS = {
  edit: startEditing,
  resume,
  retry: askAgain,
  copy: (turn, button) => copy(turn.answer.text, button),
  "copy-code": (_, button) => copy(button.closest(".code")?.querySelector("code")?.textContent ?? "", button),
};

function currentChat() {
  return chats.get(chatId);
}

// Asking

function submit() {
  const text = $("question").value.trim();
  if (fault(text) || !text || answers.isRunning(chatId)) return;
  let chat = currentChat();
  if (!chat) {
    chat = { id: randomId(), title: "", updatedAt: 0, turns: [] };
    chats.add(chat);
    chatId = chat.id;
    history.pushState(null, "", `#${chatId}`);
    transcript.show(chat, stateOf(chat));
  }
  if (editing) chat.turns.pop();
  stopEditing();
  chat.turns.push({ question: text, answer: newAnswer() });
  if (chat.turns.length === 1) chat.title = titleOf(text);
  chat.updatedAt = Date.now();
  $("question").value = "";
  answers.run(chat);
  showAround(chat);
  transcript.follow();
}

/** Ask the last question once more, for another answer. */
function askAgain() {
  const chat = currentChat();
  if (!chat) return;
  renew(chat);
  showAround(chat);
  transcript.follow();
  $("question").focus();
}

/** @param {import("./store.js").Chat} chat */
function renew(chat) {
  const { question } = /** @type {import("./store.js").Turn} */ (chat.turns.pop());
  chat.turns.push({ question, answer: newAnswer() });
  answers.run(chat);
}

/**
 * Have the reader give a key, unless another one than the refused one is there by now.
 * @param {import("./store.js").Chat} chat
 * @param {string} refused
 */
function unlock(chat, refused) {
  locked.add(chat.id);
  if (refused === key.value) key.request();
  else goOn(chat);
}

/**
 * Go on with what was refused for want of a key: the answer, or the question, for which nothing was paid.
 * @param {import("./store.js").Chat | undefined} chat
 */
function goOn(chat) {
  if (!chat || answers.isRunning(chat.id)) return;
  if (chat.turns.at(-1)?.answer.id) answers.resume(chat);
  else renew(chat);
  if (chat.id === chatId) showAround(chat);
}

/** Go on with an answer whose connection was lost. */
function resume() {
  const chat = currentChat();
  if (chat) answers.resume(chat);
  showAround(chat);
  $("question").focus();
}

function startEditing() {
  const turn = currentChat()?.turns.at(-1);
  if (!turn || answers.isRunning(chatId)) return;
  editing = true;
  $("question").value = turn.question;
  showComposer();
  $("question").focus();
}

function stopEditing() {
  if (editing) $("question").value = "";
  editing = false;
  showComposer();
}

/**
 * What is wrong with a question, "" for nothing.
 * @param {string} text
 */
function fault(text) {
  const over = text.length - MAX_QUESTION_CHARS;
  return over > 0 ? `Too long by ${over.toLocaleString("en")} characters.` : "";
}

/** @param {string} text */
function titleOf(text) {
  const line = text.split("\n", 1)[0];
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS).trimEnd()}…` : line;
}

// Chats

/** @param {string} id */
function openChat(id) {
  history.pushState(null, "", id ? `#${id}` : location.pathname + location.search);
  arrive();
  closeSidebar();
  $("question").focus();
}

/** Show the chat that the address names, with nothing typed yet. */
function arrive() {
  chatId = location.hash.slice(1);
  editing = false;
  $("question").value = "";
  showChat();
}

/** @param {string} id */
function deleteChat(id) {
  const chat = chats.get(id);
  if (!chat) return;
  answers.stop(id);
  chats.delete(id);
  if (id === chatId) openChat("");
  showList();
  $("new-chat").focus();
  toast(`“${chat.title}” is deleted.`, "Undo", () => {
    chats.add(chat);
    openChat(id);
  });
}

// Showing

/** @param {import("./store.js").Chat} chat */
function stateOf(chat) {
  return () => ({ running: answers.isRunning(chat.id), reconnecting: answers.isReconnecting(chat.id) });
}

function showChat() {
  const chat = currentChat();
  transcript.forget();
  transcript.show(chat, chat ? stateOf(chat) : () => ({ running: false, reconnecting: false }));
  if (chat?.turns.at(-1)?.answer.state === "running") answers.resume(chat);
  showAround(chat);
}

/** @param {import("./store.js").Chat | undefined} chat */
function showAround(chat) {
  $("empty").hidden = Boolean(chat);
  $("title").textContent = chat?.title ?? "New chat";
  document.title = chat ? `${chat.title} · ask` : "ask";
  showList();
  showComposer();
}

/** @param {string} id */
function showIfCurrent(id) {
  if (id === chatId) showChat();
}

function showList() {
  const items = chats.list().map((chat) => {
    const link = document.createElement("a");
    link.href = `#${chat.id}`;
    link.textContent = chat.title || "Untitled";
    if (chat.id === chatId) link.setAttribute("aria-current", "page");
    if (answers.isRunning(chat.id)) link.classList.add("running");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "icon-button";
    remove.dataset.delete = chat.id;
    remove.setAttribute("aria-label", `Delete ${link.textContent}`);
    remove.append(icon("trash"));
    const item = document.createElement("li");
    item.append(link, remove);
    return item;
  });
  $("chat-list").replaceChildren(...items);
}

function showComposer() {
  const running = answers.isRunning(chatId);
  const text = $("question").value;
  const problem = fault(text.trim());
  $("editing").hidden = !editing;
  $("send").hidden = running;
  $("stop").hidden = !running;
  $("send").disabled = !text.trim() || Boolean(problem);
  $("fault").textContent = problem;
  $("question").setAttribute("aria-invalid", String(Boolean(problem)));
  if (!CSS.supports("field-sizing", "content")) {
    $("question").style.height = "auto";
    $("question").style.height = `${$("question").scrollHeight}px`;
  }
}

/** @param {string} name */
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/**
 * Tell a screen reader, once: nothing is said while an answer grows.
 * @param {import("./store.js").AnswerRecord} answer
 */
function announce(answer) {
  const { fault: failure, finishReason, text } = answer;
  const told = failure ? failure.content : finishReason === "cancelled" ? "The answer was stopped." : text;
  const rest = told.length > ANNOUNCED_CHARS ? " … The answer goes on." : "";
  $("announcer").textContent = told.slice(0, ANNOUNCED_CHARS) + rest;
}

/**
 * @param {string} text
 * @param {string} [action]
 * @param {() => void} [onAction]
 */
function toast(text, action = "", onAction = () => {}) {
  $("toast-text").textContent = text;
  $("toast-action").textContent = action;
  $("toast-action").hidden = !action;
  $("toast-action").onclick = () => {
    $("toast").hidden = true;
    onAction();
  };
  $("toast").hidden = false;
  $("announcer").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}

/**
 * @param {string} text
 * @param {HTMLElement} button
 */
async function copy(text, button) {
  const label = button.textContent;
  try {
    await writeClipboard(text);
    button.textContent = "Copied";
    $("announcer").textContent = "Copied.";
  } catch {
    toast("The browser does not let this page copy. Select the text and copy it by hand.");
    return;
  }
  setTimeout(() => (button.textContent = label === "Copied" ? "Copy" : label), 1_500);
}

/**
 * `navigator.clipboard` is missing on plain http, where the old way still works.
 * @param {string} text
 */
async function writeClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("refused");
}

// The sidebar, which is a drawer on narrow screens

function openSidebar() {
  document.body.classList.add("drawer-open");
  layOutSidebar();
  $("close-sidebar").focus();
}

function closeSidebar() {
  if (!document.body.classList.contains("drawer-open")) return;
  document.body.classList.remove("drawer-open");
  layOutSidebar();
  $("open-sidebar").focus();
}

function layOutSidebar() {
  const open = narrow.matches && document.body.classList.contains("drawer-open");
  $("sidebar").inert = narrow.matches && !open;
  $("stage").inert = open;
  $("scrim").hidden = !open;
  $("open-sidebar").setAttribute("aria-expanded", String(open));
}

// Theme

/** @param {string} theme */
function chooseTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("chat-sse:theme", theme);
  } catch {
    // it holds until the page is closed
  }
}

// Wiring

$("composer").addEventListener("submit", (/** @type {any} */ event) => {
  event.preventDefault();
  submit();
});
$("question").addEventListener("input", showComposer);
$("question").addEventListener("keydown", (/** @type {any} */ event) => {
  if (event.isComposing) return; // this Enter chooses a candidate of an input method
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (event.key === "ArrowUp" && !event.target.value && !event.shiftKey) {
    event.preventDefault();
    startEditing();
  }
});
document.addEventListener("keydown", (/** @type {any} */ event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (document.body.classList.contains("drawer-open")) closeSidebar();
  else if (editing) stopEditing();
  else answers.stop(chatId);
});
$("stop").addEventListener("click", () => {
  answers.stop(chatId);
  $("question").focus();
});
$("cancel-edit").addEventListener("click", () => {
  stopEditing();
  $("question").focus();
});
$("new-chat").addEventListener("click", () => openChat(""));
$("new-chat-narrow").addEventListener("click", () => openChat(""));
$("open-sidebar").addEventListener("click", openSidebar);
$("close-sidebar").addEventListener("click", closeSidebar);
$("scrim").addEventListener("click", closeSidebar);
narrow.addEventListener("change", layOutSidebar);
$("chat-list").addEventListener("click", (/** @type {any} */ event) => {
  const link = event.target.closest("a");
  const remove = event.target.closest("[data-delete]");
  if (remove) deleteChat(remove.dataset.delete);
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab shows it as well
  event.preventDefault();
  openChat(link.hash.slice(1));
});
addEventListener("popstate", arrive);
$("theme").addEventListener("change", (/** @type {any} */ event) => chooseTheme(event.target.value));
$("theme").querySelector(`[value=${document.documentElement.dataset.theme ?? "auto"}]`).checked = true;

for (const text of STARTERS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", () => {
    $("question").value = text;
    submit();
  });
  const item = document.createElement("li");
  item.append(button);
  $("starters").append(item);
}

layOutSidebar();
showChat();
// Answers of other chats that a reload has interrupted go on as well.
for (const chat of chats.list()) {
  if (chat.turns.at(-1)?.answer.state === "running") answers.resume(chat);
}
$("question").focus();
