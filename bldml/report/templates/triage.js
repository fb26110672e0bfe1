"use strict";
// Verdicts are kept in this browser until they are saved; the page asks for nothing and sends nothing.
const main = document.getElementById("main");
const cards = [...document.querySelectorAll(".card-of")];
const key = `bldml review ${main.dataset.survey}`;
let current = -1;

const stored = () => {
  try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
};
const verdicts = stored();

const show = () => {
  let done = 0;
  for (const card of cards) {
    const verdict = verdicts[card.dataset.path];
    if (verdict) { card.dataset.verdict = verdict; done += 1; } else { delete card.dataset.verdict; }
    for (const button of card.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
  document.getElementById("state").textContent = `${done} of ${cards.length} reviewed`;
};

const judge = (card, verdict) => {
  // The same verdict again takes it back.
  if (verdicts[card.dataset.path] === verdict) delete verdicts[card.dataset.path];
  else verdicts[card.dataset.path] = verdict;
  // Without a storage, as in a private window, the verdicts last as long as the page.
  try { localStorage.setItem(key, JSON.stringify(verdicts)); } catch { /* see above */ }
  show();
};

const go = (index) => {
  if (index < 0 || index >= cards.length) return;
  current = index;
  cards[index].focus();
  cards[index].scrollIntoView({block: "nearest"});
};

const unreviewed = () => cards.findIndex((card, index) => index > current && !verdicts[card.dataset.path]);

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

const table = () => {
  const lines = ["path,verdict,label,predicted,probability,unit,model"];
  for (const card of cards) {
    const {path, asked, other, predicted, probability, unit} = card.dataset;
    const verdict = verdicts[path];
    if (!verdict) continue;
    const label = {confirm: asked, reject: other}[verdict] ?? "";
    lines.push([path, verdict, label, predicted, probability, unit, main.dataset.model].map(cell).join(","));
  }
  return `${lines.join("\n")}\n`;
};

cards.forEach((card, index) => {
  card.addEventListener("focusin", () => { current = index; });
  for (const button of card.querySelectorAll("button"))
    button.addEventListener("click", () => { current = index; judge(card, button.dataset.verdict); });
});

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], {type: "text/csv"}));
  link.download = "confirmed.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
document.getElementById("next").addEventListener("click", () => go(unreviewed()));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const verdict = {c: "confirm", r: "reject", n: "not a leaf"}[event.key];
  if (event.key === "j") go(current + 1);
  else if (event.key === "k") go(current - 1);
  else if (verdict && current >= 0) { judge(cards[current], verdict); }
  else return;
  event.preventDefault();
});

show();
