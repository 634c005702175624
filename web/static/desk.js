// The only script: keeps unfinished pages fresh and adds keys. Every page is complete without it.
// The keys stand in KEYS and in the dialog of base.html, which `?` opens.
// Refresh = fetch the same address, swap the elements marked `data-live` whose content changed.

const note = () => document.querySelector("[data-live-note]");
let paused = false;
let timer;
const served = new Map(); // what the server sent for each live element, to see whether it changed

const secondsOf = (page) => Number(page.body.dataset.refreshSeconds || 0);

// How an element is found again in what the server sends anew: by its id, its address, or what it stands for in a form.
function placeOf(element) {
  if (element?.id) return `#${CSS.escape(element.id)}`;
  const href = element?.getAttribute("href");
  if (href) return `[href="${CSS.escape(href)}"]`;
  return element?.name ? `[name="${CSS.escape(element.name)}"][value="${CSS.escape(element.value)}"]` : null;
}

function swap(fresh) {
  const focused = placeOf(document.activeElement);
  for (const old of document.querySelectorAll("[data-live]")) {
    const replacement = fresh.getElementById(old.id);
    if (!replacement || replacement.innerHTML === served.get(old.id)) continue;
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && old.contains(selection.anchorNode)) continue;
    const hadFocus = focused && old.contains(document.activeElement);
    const open = [...old.querySelectorAll("details")].map((one) => one.open);
    const ticked = [...old.querySelectorAll("input:checked")].map(placeOf);
    served.set(old.id, replacement.innerHTML);
    old.replaceChildren(...replacement.childNodes);
    old.querySelectorAll("details").forEach((one, at) => { one.open = open[at] ?? one.open; });
    ticked.forEach((one) => { const box = one && old.querySelector(one); if (box) box.checked = true; });
    if (hadFocus) old.querySelector(focused)?.focus();
  }
  showControls();
  reachTexts();
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

// What scrolls by itself can be reached and scrolled by keys.
function reachTexts() {
  for (const one of document.querySelectorAll(".text, .left")) {
    if (one.scrollHeight > one.clientHeight && !one.querySelector("a, button, summary, [tabindex]")) one.tabIndex = 0;
  }
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

// The row or citation at hand: what holds the focus, or the citation in the address.
const atHand = () => document.activeElement?.closest("[data-target], tr") ?? document.querySelector("[data-target]:target");

// The target of keys 1 to 4: the blind row at hand, the citation at hand, or the audit as a whole.
function judgeForm() {
  const target = document.querySelector("[data-at-hand]") ?? atHand();
  return (target ?? document).querySelector("[data-judge]");
}

// Next and previous of the elements that can be stepped over: rows of a list, or citations of an audit.
function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const targets = rows.length ? rows : [...document.querySelectorAll("[data-target]")].filter((one) => one.offsetParent);
  const at = targets.findIndex((one) => one === document.activeElement || one.contains(document.activeElement));
  const next = targets[Math.max(0, Math.min(at + by, targets.length - 1))];
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

// The words that are selected in the flagged answer become what the comment is about.
function comment() {
  const summary = document.querySelector("[data-comment]");
  if (!summary) return;
  const words = document.getSelection()?.toString().trim();
  summary.parentElement.open = true;
  const form = summary.parentElement.querySelector("form");
  if (words) form.elements.quote.value = words;
  form.elements.comment.focus();
}

const press = (selector) => document.querySelector(selector)?.click();
const pressAtHand = (selector) => atHand()?.querySelector(selector)?.click();
const focusOn = (selector) => document.querySelector(selector)?.focus();

// Ticked rows go on a fix list, or are changed on one: to the first field of that form. With nothing ticked, the row at hand is meant.
function decide() {
  const form = document.getElementById("ticked");
  if (!form) return;
  const boxes = [...form.elements].filter((one) => one.type === "checkbox");
  if (!boxes.some((one) => one.checked)) pressAtHand("[form=ticked][type=checkbox]");
  [...form.elements].find((one) => one.matches("select, input:not([type=checkbox], [type=hidden])"))?.focus();
}

// `g` and a letter lead to the pages of the top line.
let going = 0;
function go(key) {
  const link = [...document.querySelectorAll("[data-go]")].find((one) => one.dataset.go === key);
  going = 0;
  link?.click();
  return Boolean(link);
}

// Away from the row or citation at hand: keys then mean the page as a whole.
function leave() {
  document.activeElement?.blur();
  if (document.querySelector("[data-target]:target")) location.hash = "main";
}

const keysDialog = () => document.querySelector("[data-keys-dialog]");

// The verdict that was given last can be taken back by its button with the highest number.
function undo() {
  const buttons = [...document.querySelectorAll("[data-undo]")];
  buttons.sort((a, b) => Number(b.dataset.undo) - Number(a.dataset.undo))[0]?.click();
}

const KEYS = {
  "/": () => { const search = document.querySelector("[data-search]"); search?.focus(); search?.select(); },
  "?": () => keysDialog()?.showModal(),
  j: () => step(1),
  k: () => step(-1),
  n: () => press("[data-next]"),
  p: () => press("[data-prev]"),
  x: () => pressAtHand("[type=checkbox]"),
  f: decide,
  w: () => focusOn("[data-what-if]"),
  a: () => focusOn("[data-actions]"),
  e: () => pressAtHand("[data-example]"),
  m: () => pressAtHand("[data-measure]"),
  c: comment,
  u: undo,
  g: () => { going = Date.now(); },
};
const WRITTEN_IN = "input:not([type=checkbox], [type=radio]), select, textarea";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keysDialog()?.open) return;
  if (event.target.closest(WRITTEN_IN)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "Escape") { leave(); return; }
  if (Date.now() - going < 1500 && go(event.key)) return;
  if (event.key === "Enter") follow(event.target);
  else if (/^[1-4]$/.test(event.key)) {
    judgeForm()?.querySelector(`[data-key="${event.key}"]`)?.click();
  } else if (Object.hasOwn(KEYS, event.key)) {
    event.preventDefault(); // what gets the focus must not get the letter too
    KEYS[event.key]();
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-keys]")) keysDialog().showModal();
});

// Words of the output and the citations that rest on them light each other up, under the mouse and in focus.
function light(target) {
  const piece = target.closest?.("[data-ranks]");
  const citation = piece ? null : target.closest?.("[data-rank]");
  const ranks = piece?.dataset.ranks.split(" ") ?? (citation ? [citation.dataset.rank] : []);
  for (const one of document.querySelectorAll("[data-rank]")) one.classList.toggle("lit-on", Boolean(piece) && ranks.includes(one.dataset.rank));
  let some = false;
  for (const one of document.querySelectorAll("[data-ranks]")) {
    const on = one === piece || (Boolean(citation) && one.dataset.ranks.split(" ").includes(ranks[0]));
    one.classList.toggle("lit-on", on);
    some ||= on;
  }
  document.querySelector(".turn-flagged")?.classList.toggle("lighting", some && Boolean(citation));
}

// A click on lit words, or Enter, leads to their strongest citation; not while words are being selected.
function follow(target) {
  const piece = target.closest?.("[data-ranks]");
  const selection = document.getSelection();
  if (piece && (!selection || selection.isCollapsed)) location.hash = `citation-${piece.dataset.ranks.split(" ")[0]}`;
}

for (const name of ["pointerover", "focusin"]) document.addEventListener(name, (event) => light(event.target));
document.addEventListener("click", (event) => follow(event.target));

for (const one of document.querySelectorAll("[data-keys]")) one.hidden = false;
reachTexts();
// A fold hides how long its texts are until it opens; `toggle` does not bubble.
document.addEventListener("toggle", reachTexts, true);
for (const one of document.querySelectorAll("[data-live]")) served.set(one.id, one.innerHTML);
if (secondsOf(document)) {
  showControls();
  timer = setTimeout(refresh, secondsOf(document) * 1000);
}
