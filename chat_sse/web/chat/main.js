// @ts-check
/** The chat page: what the reader does, turned into chats and answers. */

import { Answers } from "./answers.js";
import { $ } from "./dom.js";
import { announce, copy, toast } from "./feedback.js";
import { Key } from "./key.js";
import { Login } from "./login.js";
import { fault, showStarters, titleOf } from "./question.js";
import { closeSidebar, isDrawerOpen, showChats } from "./sidebar.js";
import { Chats, newAnswer, randomId } from "./store.js";
import { withoutThinking } from "./thinking.js";
import { Transcript } from "./transcript.js";

let chatId = location.hash.slice(1);
let editing = false;
/** The chats whose last question waits for a key. */
const locked = new Set();

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

const key = new Key(() => {
  for (const id of locked) goOn(chats.get(id));
  locked.clear();
  $("question").focus();
});

const login = new Login();

const answers = new Answers(chats, {
  apiKey: () => key.value,
  onChange: (chat, turn) => {
    if (chat.id !== chatId) return;
    transcript.refresh(chat);
    if (turn.answer.state !== "running" || !turn.answer.text) showComposer();
  },
  onStart: (chat) => {
    if (chat.id === chatId) transcript.paint(chat);
  },
  onEnd: (chat, turn, apiKey) => {
    const { loginUrl, asksForKey } = turn.answer.fault ?? {};
    if (loginUrl) login.offer(chat.id, loginUrl);
    else if (asksForKey) unlock(chat, apiKey);
    showList();
    if (chat.id !== chatId) return;
    transcript.paint(chat); // not a frame later, when the composer tells already that it is over
    showComposer();
    announce(turn.answer);
  },
});

/** @type {Record<string, (turn: import("./store.js").Turn, pressed: HTMLElement) => void>} */
const ACTIONS = {
  edit: startEditing,
  resume,
  retry: askAgain,
  login: ({ answer }) => login.go(chatId, answer.fault?.loginUrl ?? ""),
  copy: (turn, button) => copy(withoutThinking(turn.answer).text, button),
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
  showChats(chats.list(), chatId, (id) => answers.isRunning(id));
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
  if (isDrawerOpen()) closeSidebar();
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
$("chat-list").addEventListener("click", (/** @type {any} */ event) => {
  const link = event.target.closest("a");
  const remove = event.target.closest("[data-delete]");
  if (remove) deleteChat(remove.dataset.delete);
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab shows it as well
  event.preventDefault();
  openChat(link.hash.slice(1));
});
addEventListener("popstate", arrive);

showStarters((question) => {
  $("question").value = question;
  submit();
});
showChat();
if (login.returned) goOn(chats.get(login.returned));
// Answers of other chats that a reload has interrupted go on as well.
for (const chat of chats.list()) {
  if (chat.turns.at(-1)?.answer.state === "running") answers.resume(chat);
}
$("question").focus();
