// Keeps the page as it is now: each event has one part of it. Without this script the page is right and stands still.
(() => {
  "use strict";
  const RETRY_AFTER_MS = 5000;
  const live = document.getElementById("live");
  if (!live) return;

  const say = (text) => {
    if (live.textContent !== text) live.textContent = text;
  };

  // What a reader has opened, chosen or ticked stays so, as long as it is about the same.
  const keep = (from, to) => {
    for (const old of from.querySelectorAll("[id]")) {
      const now = to.getElementById(old.id);
      if (!now) continue;
      if (old.open) now.setAttribute("open", "");
      if (old.checked && old.value === now.value) now.checked = true;
      if (old instanceof HTMLSelectElement) {
        for (const option of now.options) option.selected = option.value === old.value;
        if (now.selectedIndex < 0) now.selectedIndex = 0;
      }
    }
  };

  const replace = (id, html) => {
    const part = document.getElementById(id);
    const next = document.createElement("template");
    next.innerHTML = html;
    keep(part, next.content);
    if (part.innerHTML === next.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.replaceChildren(next.content);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const follow = () => {
    const events = new EventSource("/ui/events");
    for (const id of ["state", "members", "lag", "journal", "operations"]) {
      events.addEventListener(id, (event) => replace(id, event.data));
    }
    events.onopen = () => say("Live: the page changes with the cluster.");
    events.onerror = () => {
      say("Not live: this member does not answer. The page shows what it said last.");
      if (events.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_AFTER_MS);
    };
  };

  document.addEventListener("submit", () => say("Asked. The answer comes when it is done."));
  follow();
})();
