// @ts-check
/** The way to the site's login, and back to the question that it was refused. */

/** In this tab's storage: the chat whose last question waits for its visitor to come back. */
const NAME = "chat-sse:login";

export class Login {
  /** The chat that the visitor has just come back to; its next refusal sends nobody away by itself. */
  #returned = take();

  /** The chat to go on with, "" when nobody has come back from a login. */
  get returned() {
    return this.#returned;
  }

  /**
   * Leave for the login, unless it has just sent the visitor back and the service refuses all the same.
   * @param {string} chatId
   * @param {string} address
   */
  offer(chatId, address) {
    if (this.#returned === chatId) this.#returned = "";
    else this.go(chatId, address);
  }

  /**
   * @param {string} chatId
   * @param {string} address where `{url}` stands for the page to come back to
   */
  go(chatId, address) {
    const url = new URL(address.replaceAll("{url}", encodeURIComponent(location.href)), location.href);
    if (!/^https?:$/.test(url.protocol)) return;
    try {
      sessionStorage.setItem(NAME, chatId);
    } catch {
      return; // without a memory it would go there again and again
    }
    location.assign(url);
  }
}

function take() {
  try {
    const chatId = sessionStorage.getItem(NAME) ?? "";
    sessionStorage.removeItem(NAME);
    return chatId;
  } catch {
    return "";
  }
}
