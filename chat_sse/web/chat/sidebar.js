// @ts-check
/** The sidebar, which is a drawer on narrow screens: the chats, and the theme. */

import { $ } from "./dom.js";

const narrow = matchMedia("(max-width: 55.99rem)");

export function isDrawerOpen() {
  return document.body.classList.contains("drawer-open");
}

function openSidebar() {
  document.body.classList.add("drawer-open");
  layOutSidebar();
  $("close-sidebar").focus();
}

export function closeSidebar() {
  if (!isDrawerOpen()) return;
  document.body.classList.remove("drawer-open");
  layOutSidebar();
  $("open-sidebar").focus();
}

function layOutSidebar() {
  const open = narrow.matches && isDrawerOpen();
  $("sidebar").inert = narrow.matches && !open;
  $("stage").inert = open;
  $("scrim").hidden = !open;
  $("open-sidebar").setAttribute("aria-expanded", String(open));
}

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

$("open-sidebar").addEventListener("click", openSidebar);
$("close-sidebar").addEventListener("click", closeSidebar);
$("scrim").addEventListener("click", closeSidebar);
narrow.addEventListener("change", layOutSidebar);
$("theme").addEventListener("change", (/** @type {any} */ event) => chooseTheme(event.target.value));
$("theme").querySelector(`[value=${document.documentElement.dataset.theme ?? "auto"}]`).checked = true;
layOutSidebar();
