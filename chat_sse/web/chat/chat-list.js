// @ts-check
/** The list of chats: by date, filtered by what is searched for, each to be opened, renamed and deleted. */

import { $, element, iconButton } from "./dom.js";

const DAY_MS = 86_400_000;
const MONTH = new Intl.DateTimeFormat("en", { month: "long", year: "numeric" });

export class ChatList {
  #chats;
  #on;
  #isRunning;
  #currentId = "";
  /** The chat whose title is being edited: the list waits. */
  #renaming = "";

  /**
   * @param {import("./store.js").Chats} chats
   * @param {(id: string) => boolean} isRunning
   * @param {{open: (id: string) => void, remove: (id: string) => void, renamed: (id: string) => void}} callbacks
   */
  constructor(chats, isRunning, callbacks) {
    this.#chats = chats;
    this.#isRunning = isRunning;
    this.#on = callbacks;
    $("filter").addEventListener("input", () => this.#draw());
    $("chat-list").addEventListener("click", (/** @type {any} */ event) => {
      const id = event.target.closest("li")?.dataset.chat;
      const action = event.target.closest("[data-action]")?.dataset.action;
      if (action === "delete-chat") callbacks.remove(id);
      if (action === "rename-chat") this.#rename(id);
      if (!event.target.closest("a") || event.ctrlKey || event.metaKey || event.shiftKey) return; // in a new tab
      event.preventDefault();
      callbacks.open(id);
    });
  }

  /** @param {string} currentId */
  show(currentId) {
    this.#currentId = currentId;
    this.#draw();
  }

  #draw() {
    if (this.#renaming) return;
    const all = this.#chats.list();
    const sought = $("filter").value.trim().toLowerCase();
    const found = sought ? all.filter((chat) => holds(chat, sought)) : all;
    $("filter").hidden = all.length === 0;
    const items = [];
    let group = "";
    for (const chat of found) {
      const name = groupOf(chat.updatedAt);
      if (name !== group) items.push(element("li", "group", name));
      group = name;
      items.push(this.#item(chat));
    }
    if (sought && !found.length) items.push(element("li", "group", "No chat has these words."));
    $("chat-list").replaceChildren(...items);
  }

  /** @param {import("./store.js").Chat} chat */
  #item(chat) {
    const link = /** @type {HTMLAnchorElement} */ (element("a", "", chat.title || "Untitled"));
    link.href = `#${chat.id}`;
    link.dir = "auto";
    if (chat.id === this.#currentId) link.setAttribute("aria-current", "page");
    if (this.#isRunning(chat.id)) link.classList.add("running");
    const item = element("li");
    item.dataset.chat = chat.id;
    const title = link.textContent ?? "";
    item.append(link, iconButton("edit", `Rename ${title}`, "rename-chat"), iconButton("trash", `Delete ${title}`, "delete-chat"));
    return item;
  }

  /** @param {string} id */
  #rename(id) {
    const chat = this.#chats.get(id);
    const item = $("chat-list").querySelector(`[data-chat="${id}"]`);
    if (!chat || !item) return;
    const input = /** @type {HTMLInputElement} */ (element("input", "rename"));
    input.value = chat.title;
    input.dir = "auto";
    input.maxLength = 100;
    input.setAttribute("aria-label", "The chat's new name");
    const leave = (/** @type {boolean} */ keep) => {
      if (!this.#renaming) return;
      this.#renaming = "";
      if (keep && input.value.trim()) chat.title = input.value.trim();
      this.#chats.save(chat);
      this.#on.renamed(id);
      $("chat-list").querySelector(`[data-chat="${id}"] a`)?.focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.stopPropagation();
      leave(event.key === "Enter");
    });
    input.addEventListener("blur", () => leave(true));
    this.#renaming = id;
    item.replaceChildren(input);
    input.focus();
    input.select();
  }
}

/**
 * @param {import("./store.js").Chat} chat
 * @param {string} sought in lower case
 */
function holds(chat, sought) {
  const texts = [chat.title, ...chat.turns.flatMap(({ question, answer }) => [question, answer.text])];
  return texts.some((text) => text.toLowerCase().includes(sought));
}

/** @param {number} time in milliseconds since the epoch */
function groupOf(time) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / DAY_MS);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days <= 7 ? "Last seven days" : MONTH.format(time);
}
