// @ts-check
/** The chats, kept in this browser's localStorage: one entry a chat, so that saving one is a small write. */

const PREFIX = "chat-sse:chat:";

/**
 * @typedef {{code: string, content: string, details: string, requestId: string, retryAt: number | null,
 *   loginUrl?: string | null, asksForKey?: boolean}} Fault
 *   retryAt: when asking again is of use, in milliseconds since the epoch; null for at once
 * @typedef {object} AnswerRecord
 * @property {"running" | "done" | "failed" | "lost"} state lost: the network was gone for too long, and the
 *   answer may still be there
 * @property {string} key The idempotency key: asking with it again is not paid again.
 * @property {number} askedAt Milliseconds since the epoch.
 * @property {string} id "" until the server has told it.
 * @property {string} lastEventId Where to go on; written together with the text up to there.
 * @property {string} text
 * @property {string} reasoning
 * @property {string} model
 * @property {string | null} finishReason
 * @property {number | null} tokens
 * @property {Fault | null} fault
 * @property {string} [asked] The model that the reader chose, "" for the service's own choice.
 * @property {number} [thinkingSince] When its reasoning began, in milliseconds since the epoch.
 * @property {number} [thoughtMs] For how long it reasoned before its text; absent until that has begun.
 * @typedef {{paths: Turn[][], shown: number}} Fork
 * @typedef {{question: string, answer: AnswerRecord, images?: string[], fork?: Fork}} Turn
 * @typedef {{id: string, title: string, updatedAt: number, turns: Turn[]}} Chat
 */

/** @returns {string} 128 random bits; `crypto.randomUUID` is missing on plain http. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} asked the model, "" for the service's own choice
 * @returns {AnswerRecord}
 */
export function newAnswer(asked) {
  return {
    asked, state: "running", key: randomId(), askedAt: Date.now(), id: "", lastEventId: "", text: "", reasoning: "",
    model: "", finishReason: null, tokens: null, fault: null,
  };
}

export class Chats {
  /** @type {Map<string, Chat>} */
  #chats = new Map();
  /** The ids of chats that are not in the storage as they are here. @type {Set<string>} */
  #unsaved = new Set();
  #onFault;

  /**
   * @param {{onFault: () => void, onForeignChange: (id: string) => void}} callbacks onFault: a chat could not
   *   be saved, told once until it could; onForeignChange: another tab has changed or deleted one
   */
  constructor({ onFault, onForeignChange }) {
    this.#onFault = onFault;
    for (const name of storedNames()) this.#read(name);
    addEventListener("storage", ({ key }) => {
      if (!key?.startsWith(PREFIX)) return;
      this.#chats.delete(key.slice(PREFIX.length));
      this.#read(key);
      onForeignChange(key.slice(PREFIX.length));
    });
    addEventListener("beforeunload", (event) => {
      if (this.#unsaved.size) event.preventDefault(); // the browser asks whether to leave what would be lost
    });
  }

  /** All chats, the latest first. */
  list() {
    return [...this.#chats.values()].sort((a, b) => b.updatedAt - a.updatedAt);
  }

  /** @param {string} id */
  get(id) {
    return this.#chats.get(id);
  }

  /**
   * Add a chat, a deleted one too.
   * @param {Chat} chat
   */
  add(chat) {
    this.#chats.set(chat.id, chat);
    this.save(chat);
  }

  /**
   * Save a chat, unless it has been deleted.
   * @param {Chat} chat
   */
  save(chat) {
    if (this.#chats.get(chat.id) !== chat) return;
    try {
      localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
      this.#unsaved.delete(chat.id);
    } catch {
      // It is full, or forbidden. What it holds stays there, and the chat goes on until the page is closed.
      const known = this.#unsaved.has(chat.id);
      this.#unsaved.add(chat.id);
      if (!known) this.#onFault();
    }
  }

  /** @param {string} id */
  delete(id) {
    this.#chats.delete(id);
    this.#unsaved.delete(id);
    try {
      localStorage.removeItem(PREFIX + id);
    } catch {
      this.#onFault();
    }
    for (const unsaved of this.#unsaved) this.save(/** @type {Chat} */ (this.get(unsaved))); // there is room now
  }

  /**
   * Add chats from elsewhere. One that is here already, and otherwise, is kept beside it.
   * @param {Chat[]} chats
   * @returns {number} how many are new
   */
  take(chats) {
    let count = 0;
    for (const chat of chats) {
      const own = this.get(chat.id);
      if (own && JSON.stringify(own) === JSON.stringify(chat)) continue;
      this.add(own ? { ...chat, id: randomId() } : chat);
      count += 1;
    }
    return count;
  }

  /** @param {string} name */
  #read(name) {
    try {
      const chat = JSON.parse(localStorage.getItem(name) ?? "null");
      if (Array.isArray(chat?.turns) && PREFIX + chat.id === name) this.#chats.set(chat.id, chat);
    } catch {
      // not ours, or cut off: there is nothing to show
    }
  }
}

function storedNames() {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  } catch {
    return [];
  }
}
