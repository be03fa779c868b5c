// @ts-check
/** The page's elements. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/** @param {string} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {string} [text]
 */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/**
 * @param {string} label
 * @param {string} action
 * @param {string} [className]
 */
export function button(label, action, className = "quiet") {
  const made = /** @type {HTMLButtonElement} */ (element("button", className, label));
  made.type = "button";
  made.dataset.action = action;
  return made;
}

/**
 * A button that is a picture; its label is read out, and shown to whoever points at it.
 * @param {string} name of the icon
 * @param {string} label
 * @param {string} action
 */
export function iconButton(name, label, action) {
  const made = button("", action, "icon-button");
  made.append(icon(name));
  made.setAttribute("aria-label", label);
  made.title = label;
  return made;
}
