"use strict";
// A part opens where a link leads and on paper; a table wider than its place says so.
const reveal = id => { const part = document.getElementById(id); if (part?.tagName === "DETAILS") part.open = true; };
document.addEventListener("click", event => reveal(event.target.closest?.('a[href^="#"]')?.hash.slice(1)));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
const measure = () => document.querySelectorAll(".scroll").forEach(box => box.parentElement.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1));
addEventListener("resize", measure);
document.addEventListener("toggle", measure, true);
reveal(location.hash.slice(1));
measure();

// The threshold slider: place 0 flags nothing, place i the scores from the i-th threshold. Rules are those of
// n3r score: of the thresholds that keep to a bound the lowest, and the cheapest.
for (const box of document.querySelectorAll(".slider")) {
  const { threshold, of, orders_a_day: perDay } = JSON.parse(box.dataset.choice);
  const [chosenOn] = Object.values(of);
  const field = name => box.querySelector(`[name="${name}"]`);
  const number = name => Number(field(name)?.value);
  const at = (counts, i) => i ? counts[i - 1] : 0;
  const alarms = (rows, i) => at(rows.flagged, i) - at(rows.caught, i);
  const missed = (rows, i) => rows.amount ? rows.total - at(rows.amount, i) : rows.n_frauds - at(rows.caught, i);
  const cost = (rows, i) => missed(rows, i) * number("missed") + alarms(rows, i) * number("alarm");
  const lowest = keeps => { let i = threshold.length; while (i && !keeps(i)) i--; return i; };
  const rules = {
    fpr: () => lowest(i => alarms(chosenOn, i) <= number("fpr") / 100 * (chosenOn.n - chosenOn.n_frauds)),
    capacity: () => lowest(i => at(chosenOn.flagged, i) <= Math.min(1, number("capacity") / (perDay ?? 100)) * chosenOn.n),
    cheapest: () => { let best = 0; for (let i = 1; i <= threshold.length; i++) if (cost(chosenOn, i) < cost(chosenOn, best)) best = i; return best; },
  };
  const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)} %` : "n/a";
  const rounded = value => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  const figures = {
    recall: (rows, i) => share(at(rows.caught, i), rows.n_frauds),
    amount: (rows, i) => share(at(rows.amount, i), rows.total),
    precision: (rows, i) => share(at(rows.caught, i), at(rows.flagged, i)),
    fpr: (rows, i) => share(alarms(rows, i), rows.n - rows.n_frauds),
    flagged: (rows, i) => share(at(rows.flagged, i), rows.n),
    alerts: (rows, i) => rounded(at(rows.flagged, i) / rows.n * perDay),
    cost: (rows, i) => rounded(cost(rows, i) / rows.n * 1000),
    daily: (rows, i) => rounded(cost(rows, i) / rows.n * perDay),
  };
  const show = () => {
    const i = number("at");
    field("threshold").textContent = i ? Number(threshold[i - 1].toPrecision(6)) : "none: nothing is flagged";
    for (const cell of box.querySelectorAll("[data-figure]")) cell.textContent = figures[cell.dataset.figure](of[cell.dataset.of], i);
  };
  const choose = rule => { if (rules[rule]) field("at").value = rules[rule](); show(); };
  field("at").max = threshold.length;
  box.addEventListener("input", event => choose(event.target.name));
  box.addEventListener("click", event => { if (event.target.value === "cheapest") choose("cheapest"); });
  box.hidden = false;
  choose("fpr");
}
