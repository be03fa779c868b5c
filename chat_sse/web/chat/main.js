// @ts-check
/** The chat page: what the reader does, turned into chats and answers. */

import { Answers } from "./answers.js";
import { ChatList } from "./chat-list.js";
import { Composer } from "./composer.js";
import { $ } from "./dom.js";
import { ANNOUNCED_CHARS, announce, copy, toast } from "./feedback.js";
import { dropOldImages } from "./images.js";
import { Key } from "./key.js";
import { Login } from "./login.js";
import { ModelPicker } from "./models.js";
import { namesItself, showStarters, titleOf } from "./question.js";
import { closeSidebar, isDrawerOpen } from "./sidebar.js";
import { Chats, newAnswer, randomId } from "./store.js";
import { withoutThinking } from "./thinking.js";
import { exportChats, wireFiles } from "./transfer.js";
import { Transcript } from "./transcript.js";
import { addVersion, showVersion } from "./versions.js";

let chatId = location.hash.slice(1);
/** The chats whose last question waits for a key. */
const locked = new Set();

const chats = new Chats({
  onFault: () => {
    const told = "This browser's storage is full or closed: this chat is lost when the page is closed. Delete some, or save them.";
    toast(told, "Export all", () => exportChats(chats.list()));
  },
  onForeignChange: (id) => {
    if (id === chatId && !answers.isRunning(id)) showChat();
    showList();
  },
});

const transcript = new Transcript(
  { element: $("transcript"), scroller: $("scroller"), jump: $("jump") },
  ({ id }) => ({ running: answers.isRunning(id), reconnecting: answers.isReconnecting(id) }),
  (action, turn, pressed) => ACTIONS[action](turn, pressed),
);

const models = new ModelPicker();

const key = new Key(() => {
  models.load(key.value);
  for (const id of locked) goOn(chats.get(id));
  locked.clear();
  composer.focus();
});

const login = new Login();

const chatList = new ChatList(chats, (id) => answers.isRunning(id), {
  open: openChat,
  remove: deleteChat,
  renamed: () => showAround(currentChat()),
});

const composer = new Composer({
  submit,
  stop: () => answers.stop(chatId),
  editLast: () => edit(currentChat()?.turns.at(-1)),
});

const answers = new Answers(chats, {
  apiKey: () => key.value,
  onChange: (chat, turn) => {
    if (chat.id !== chatId) return;
    transcript.refresh(chat);
    if (turn.answer.state !== "running" || !turn.answer.text) composer.show(answers.isRunning(chatId));
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
    composer.show(answers.isRunning(chatId));
    announce(turn.answer, transcript.lastText(ANNOUNCED_CHARS));
  },
});

/** @type {Record<string, (turn: import("./store.js").Turn, pressed: HTMLElement) => void>} */
const ACTIONS = {
  edit,
  resume,
  reconnect: () => answers.reconnect(chatId),
  version: (turn, button) => switchVersion(turn, Number(button.dataset.path)),
  retry: askAgain,
  login: ({ answer }) => login.go(chatId, answer.fault?.loginUrl ?? ""),
  copy: (turn, button) => copy(withoutThinking(turn.answer).text, button),
  "copy-code": (_, button) => copy(button.closest(".code")?.querySelector("code")?.textContent ?? "", button),
};

function currentChat() {
  return chats.get(chatId);
}

// Asking

/**
 * @param {string} text
 * @param {string[]} images
 * @param {number} editing the turn that the question takes the place of, -1 for none
 */
function submit(text, images, editing) {
  let chat = currentChat();
  if (!chat) {
    chat = { id: randomId(), title: "", updatedAt: 0, turns: [] };
    chats.add(chat);
    chatId = chat.id;
    history.pushState(null, "", `#${chatId}`);
    composer.open(chatId, 0);
    transcript.show(chat);
  }
  const turn = { question: text, images, answer: newAnswer(models.value) };
  const named = namesItself(chat);
  if (editing < 0) chat.turns.push(turn);
  else addVersion(chat, editing, turn);
  if (named) chat.title = titleOf(chat.turns[0].question);
  start(chat);
}

/** Ask the last question once more, for another answer. */
function askAgain() {
  const chat = currentChat();
  if (!chat || answers.isRunning(chatId)) return;
  const { question, images, answer } = /** @type {import("./store.js").Turn} */ (chat.turns.at(-1));
  const again = { question, images, answer: newAnswer(models.value) };
  if (answer.text || answer.reasoning) addVersion(chat, chat.turns.length - 1, again);
  else renew(chat);
  start(chat);
}

/**
 * Have a chat's last question answered.
 * @param {import("./store.js").Chat} chat
 */
function start(chat) {
  chat.updatedAt = Date.now();
  dropOldImages(chat);
  answers.run(chat);
  showAround(chat);
  if (chat.id !== chatId) return;
  transcript.showQuestion();
  composer.focus();
}

/**
 * Take the last answer, in which there is nothing, for not given.
 * @param {import("./store.js").Chat} chat
 */
function renew(chat) {
  const turn = /** @type {import("./store.js").Turn} */ (chat.turns.pop());
  chat.turns.push({ ...turn, answer: newAnswer(models.value) });
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
  if (chat.turns.at(-1)?.answer.id) {
    answers.resume(chat);
    if (chat.id === chatId) showAround(chat);
  } else {
    renew(chat);
    start(chat);
  }
}

/** Go on with an answer whose connection was lost. */
function resume() {
  const chat = currentChat();
  if (chat) answers.resume(chat);
  showAround(chat);
  composer.focus();
}

/** @param {import("./store.js").Turn | undefined} turn */
function edit(turn) {
  if (!turn || answers.isRunning(chatId)) return;
  composer.edit(currentChat()?.turns.indexOf(turn) ?? -1, turn);
}

/**
 * @param {import("./store.js").Turn} turn
 * @param {number} path
 */
function switchVersion(turn, path) {
  const chat = currentChat();
  if (!chat || answers.isRunning(chatId)) return;
  composer.cancel();
  const index = chat.turns.indexOf(turn);
  const named = namesItself(chat);
  showVersion(chat, index, path);
  if (named) chat.title = titleOf(chat.turns[0].question);
  chats.save(chat);
  transcript.paint(chat);
  showAround(chat);
  transcript.focusVersions(index);
}

// Chats

/** @param {string} id */
function openChat(id) {
  history.pushState(null, "", id ? `#${id}` : location.pathname + location.search);
  arrive();
  closeSidebar();
  composer.focus();
}

/** Show the chat that the address names, and what is typed there. */
function arrive() {
  chatId = location.hash.slice(1);
  showChat();
}

/** @param {string} id */
function deleteChat(id) {
  const chat = chats.get(id);
  if (!chat) return;
  answers.stop(id);
  chats.delete(id);
  composer.forget(id);
  if (id === chatId) openChat("");
  showList();
  $("new-chat").focus();
  toast(`“${chat.title}” is deleted.`, "Undo", () => {
    chats.add(chat);
    openChat(id);
  });
}

// Showing

function showChat() {
  const chat = currentChat();
  transcript.forget();
  transcript.show(chat);
  composer.open(chatId, chat?.turns.length ?? 0);
  if (chat?.turns.at(-1)?.answer.state === "running") answers.resume(chat);
  showAround(chat);
}

/** @param {import("./store.js").Chat | undefined} chat */
function showAround(chat) {
  $("empty").hidden = Boolean(chat);
  $("save-markdown").hidden = !chat;
  $("title").textContent = chat?.title ?? "New chat";
  document.title = chat ? `${chat.title} · ask` : "ask";
  showList();
  composer.show(answers.isRunning(chatId));
}

function showList() {
  chatList.show(chatId);
}

// Wiring

document.addEventListener("keydown", (/** @type {any} */ event) => {
  if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.code === "KeyO") {
    event.preventDefault();
    openChat("");
  }
  if (event.key !== "Escape" || event.isComposing) return;
  if (isDrawerOpen()) closeSidebar();
  else if (composer.isEditing) composer.cancel();
  else answers.stop(chatId);
});
for (const id of ["new-chat", "new-chat-narrow"]) $(id).addEventListener("click", () => openChat(""));
addEventListener("popstate", arrive);
wireFiles(chats, currentChat, showList);
showStarters((question) => submit(question, [], -1));
models.load(key.value);
showChat();
if (login.returned) goOn(chats.get(login.returned));
// Answers of other chats that a reload has interrupted go on as well.
for (const chat of chats.list()) {
  if (chat.turns.at(-1)?.answer.state === "running") answers.resume(chat);
}
composer.focus();
