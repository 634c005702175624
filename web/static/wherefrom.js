// The only script: keeps unfinished pages fresh and adds a few keys. Every page is complete without it.
// Refresh = fetch the same address, swap the elements marked `data-live` whose content changed.

const note = () => document.querySelector("[data-live-note]");
let paused = false;
let timer;
const served = new Map(); // what the server sent for each live element, to see whether it changed

const secondsOf = (page) => Number(page.body.dataset.refreshSeconds || 0);

function swap(fresh) {
  const focused = document.activeElement?.getAttribute("href");
  for (const old of document.querySelectorAll("[data-live]")) {
    const replacement = fresh.getElementById(old.id);
    if (!replacement || replacement.innerHTML === served.get(old.id)) continue;
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && old.contains(selection.anchorNode)) continue;
    const hadFocus = focused && old.contains(document.activeElement);
    const open = [...old.querySelectorAll("details")].map((one) => one.open);
    served.set(old.id, replacement.innerHTML);
    old.replaceChildren(...replacement.childNodes);
    old.querySelectorAll("details").forEach((one, at) => { one.open = open[at] ?? one.open; });
    if (hadFocus) old.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  }
  showControls();
}

async function refresh() {
  let next = secondsOf(document);
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        next = secondsOf(fresh);
        swap(fresh);
      }
    } catch {
      next *= 4; // the service is away: ask less often, keep what is shown
    }
  }
  if (next) timer = setTimeout(refresh, next * 1000);
}

function showControls() {
  document.querySelectorAll("[data-live-reload]").forEach((one) => { one.hidden = true; });
  document.querySelectorAll("[data-live-toggle]").forEach((one) => {
    one.hidden = false;
    one.textContent = paused ? "Resume" : "Pause";
  });
  note()?.classList.toggle("paused", paused);
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-live-toggle]")) return;
  paused = !paused;
  showControls();
  if (!paused) { clearTimeout(timer); refresh(); }
});

// Keys: / search, j and k to the next and the previous row, n for the next page.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (event.key === "j") rows[Math.min(at + 1, rows.length - 1)]?.focus();
  else if (event.key === "k") rows[Math.max(at - 1, 0)]?.focus();
  else if (event.key === "n") document.querySelector("[data-next]")?.click();
});

for (const one of document.querySelectorAll("[data-live]")) served.set(one.id, one.innerHTML);
if (secondsOf(document)) {
  showControls();
  timer = setTimeout(refresh, secondsOf(document) * 1000);
}
