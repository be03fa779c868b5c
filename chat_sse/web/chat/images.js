// @ts-check
/** Images of a question: scaled down here, and neither sent nor kept beyond what one request may hold. */

import { $, element, iconButton } from "./dom.js";

export const MAX_IMAGES = 4;
/** Models see no more than this of an image. */
const MAX_SIDE_PX = 1_024;
/** Of one image as a `data:` URL. */
const MAX_CHARS = 150_000;
/** Of all images of a conversation: the service takes a body of 1 MiB by default, with the text. */
const MAX_CHARS_OF_ALL = 600_000;

/**
 * Return an image as a JPEG in a `data:` URL, as small as it has to be. Throws for what is no image.
 * @param {Blob} file
 */
async function scaled(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  let side = Math.min(MAX_SIDE_PX, Math.max(bitmap.width, bitmap.height));
  for (; ; side *= 0.75) {
    const scale = side / Math.max(bitmap.width, bitmap.height);
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    context.fillStyle = "#fff"; // behind what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    for (const quality of [0.85, 0.65]) {
      const url = canvas.toDataURL("image/jpeg", quality);
      if (url.length <= MAX_CHARS) return url;
    }
  }
}

/** The images of the question that is being written. */
export class Attachments {
  /** @type {string[]} */
  #images = [];
  #onChange;

  /**
   * @param {(images: string[]) => void} onChange
   * @param {(fault: string) => void} onFault
   */
  constructor(onChange, onFault) {
    this.#onChange = onChange;
    const input = $("image-file");
    const add = (/** @type {FileList} */ files) => this.#add([...files], onFault);
    $("attach").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      await add(input.files);
      input.value = "";
    });
    $("question").addEventListener("paste", (/** @type {ClipboardEvent} */ event) => {
      const files = event.clipboardData?.files;
      if (!files?.length) return;
      event.preventDefault();
      add(files);
    });
    document.addEventListener("dragover", (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); // or the browser opens the file
    });
    document.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      add(event.dataTransfer.files);
    });
    $("images").addEventListener("click", (/** @type {any} */ { target }) => {
      const index = target.closest("[data-action=remove-image]")?.dataset.index;
      if (index !== undefined) this.#changed(this.#images.toSpliced(Number(index), 1));
    });
  }

  get images() {
    return this.#images;
  }

  /** @param {string[]} images */
  show(images) {
    this.#images = images;
    $("images").hidden = images.length === 0;
    const items = images.map((url, index) => {
      const remove = iconButton("close", `Remove image ${index + 1}`, "remove-image");
      remove.dataset.index = String(index);
      const item = element("li");
      item.append(imageElement(url, index), remove);
      return item;
    });
    $("images").replaceChildren(...items);
  }

  /**
   * @param {File[]} files
   * @param {(fault: string) => void} onFault
   */
  async #add(files, onFault) {
    for (const file of files) {
      if (this.#images.length >= MAX_IMAGES) return onFault(`A question can have ${MAX_IMAGES} images.`);
      try {
        const url = await scaled(file);
        this.#changed([...this.#images, url]);
      } catch {
        onFault(`${file.name || "This file"} is no image that this browser can read.`);
      }
    }
  }

  /** @param {string[]} images */
  #changed(images) {
    this.show(images);
    this.#onChange(images);
  }
}

/**
 * @param {string} url "" for one that is not kept any more
 * @param {number} index
 */
export function imageElement(url, index) {
  if (!url) return element("span", "gone", "An image that is no longer kept");
  const image = /** @type {HTMLImageElement} */ (element("img"));
  image.src = url;
  image.alt = `Image ${index + 1}`;
  return image;
}

/**
 * Forget the oldest images of a chat beyond what would be sent with its next question.
 * @param {import("./store.js").Chat} chat
 */
export function dropOldImages(chat) {
  let room = MAX_CHARS_OF_ALL;
  for (const turn of [...turnsOf(chat.turns)]) {
    turn.images = turn.images?.map((url) => ((room -= url.length) >= 0 ? url : ""));
  }
}

/**
 * The turns that are shown, the newest first, and then those of other versions.
 * @param {import("./store.js").Turn[]} turns
 * @returns {Generator<import("./store.js").Turn>}
 */
function* turnsOf(turns) {
  yield* turns.toReversed();
  for (const { fork } of turns) for (const path of fork?.paths ?? []) yield* turnsOf(path);
}
