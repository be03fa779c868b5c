// @ts-check
/** What is typed and not sent, for each chat: it survives another chat and a reload. */

const PREFIX = "chat-sse:draft:";

/**
 * @typedef {{text: string, editing: number, edited: string}} Draft editing: the turn whose question is edited,
 *   -1 for none; edited: that question so far
 */

/** @type {Draft} */
const NONE = { text: "", editing: -1, edited: "" };

export class Drafts {
  /** Also when the storage is full. @type {Map<string, Draft>} */
  #drafts = new Map();

  /**
   * @param {string} chatId "" for the chat that is not begun yet
   * @returns {Draft}
   */
  get(chatId) {
    return this.#drafts.get(chatId) ?? read(chatId);
  }

  /**
   * @param {string} chatId
   * @param {Draft} draft
   */
  set(chatId, draft) {
    this.#drafts.set(chatId, draft);
    try {
      if (draft.text || draft.editing >= 0) localStorage.setItem(PREFIX + chatId, JSON.stringify(draft));
      else localStorage.removeItem(PREFIX + chatId);
    } catch {
      // it holds until the page is closed
    }
  }

  /** @param {string} chatId */
  delete(chatId) {
    this.set(chatId, NONE);
  }
}

/** @param {string} chatId */
function read(chatId) {
  try {
    const { text, editing, edited } = JSON.parse(localStorage.getItem(PREFIX + chatId) ?? "{}");
    return { text: String(text ?? ""), editing: Number(editing ?? -1), edited: String(edited ?? "") };
  } catch {
    return NONE;
  }
}
