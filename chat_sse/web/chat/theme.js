// @ts-check
// The chosen theme, before the first paint. Without a choice the system's holds.
try {
  const theme = localStorage.getItem("chat-sse:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage is forbidden: the system's theme it is
}
