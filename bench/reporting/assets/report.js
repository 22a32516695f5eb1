"use strict";
// Tables that sort, filter, unfold and save themselves; charts that are drawn when they come into sight.

const chartSource = document.currentScript.dataset.charts;
const collator = new Intl.Collator("en", { numeric: true });

function valueOf(cell) {
  const raw = cell.dataset.sort;
  if (raw === undefined) return cell.firstChild ? cell.firstChild.textContent : "";
  return raw === "" ? null : Number(raw);
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

function enhanceTable(box) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const waiting = box.querySelector("template");
  const rows = [...body.rows, ...(waiting ? waiting.content.querySelectorAll("tr") : [])];
  const step = Number(box.dataset.atOnce);
  const [field, count] = [box.querySelector("input"), box.querySelector("output")];
  const more = box.querySelector("[data-do=more]");
  let order = rows;
  let limit = step;

  function show() {
    const words = field ? field.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    const found = words.length ? order.filter((row) => words.every((word) => textOf(row).includes(word))) : order;
    body.replaceChildren(...found.slice(0, limit));
    if (count) count.textContent = words.length ? `${found.length} of ${rows.length} rows` : `${rows.length} rows`;
    if (more) more.parentElement.hidden = found.length <= limit;
    return found;
  }

  function sortBy(head, direction) {
    const [index, sign] = [head.cellIndex, direction === "descending" ? -1 : 1];
    const keyed = rows.map((row) => [row, valueOf(row.cells[index])]);
    keyed.sort(([rowA, a], [rowB, b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const apart = "within" in head.dataset ? compare(rowA.dataset.group || "", rowB.dataset.group || "") : 0;
      return apart || sign * compare(a, b);
    });
    order = direction === "none" ? rows : keyed.map(([row]) => row);
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", each === head ? direction : "none");
    show();
  }

  for (const head of table.tHead.rows[0].cells) addSorting(head, sortBy);
  if (field) field.addEventListener("input", show);
  if (more) more.addEventListener("click", () => { limit += step; show(); });
  const save = box.querySelector("[data-do=save]");
  if (save) save.addEventListener("click", () => saveTable(table, show()));
  const tools = box.querySelector(".tools");
  if (tools) tools.hidden = false;
}

function textOf(row) {
  if (row.words === undefined) row.words = row.textContent.toLowerCase();
  return row.words;
}

function addSorting(head, sortBy) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = head.title;
  button.append(...head.childNodes);
  head.append(button);
  head.setAttribute("aria-sort", "none");
  const first = head.dataset.first || "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  button.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    sortBy(head, now === "none" ? first : now === first ? second : "none");
  });
}

// What is saved next to a value, if any cell of its column has it.
const EXTRAS = { low: "low", high: "high", n: "n", marks: "marks" };

// Saves the rows that the filter shows, in the order of the page.
function saveTable(table, rows) {
  const columns = [...table.tHead.rows[0].cells].flatMap((head, index) => [
    { name: head.dataset.name, read: (row) => savedText(row.cells[index]) },
    ...Object.entries(EXTRAS)
      .filter(([key]) => rows.some((row) => key in row.cells[index].dataset))
      .map(([key, word]) => ({ name: `${head.dataset.name} ${word}`, read: (row) => row.cells[index].dataset[key] ?? "" })),
  ]);
  const heads = columns.map((column) => column.name);
  const lines = rows.map((row) => columns.map((column) => column.read(row)));
  const quote = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const text = [heads, ...lines].map((line) => line.map(quote).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${table.id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function savedText(cell) {
  const value = valueOf(cell);
  if (value === null) return "";
  // A text that a spreadsheet would run as a formula is quoted.
  return typeof value === "string" ? cellText(cell).replace(/^(?=[=+\-@\t\r])/, "'") : value;
}

function cellText(cell) {
  return [...cell.childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(" ");
}

function coloured(data, style) {
  if (typeof data === "string") {
    const named = /^var\((--[a-z0-9-]+)\)$/.exec(data);
    return named ? style.getPropertyValue(named[1]).trim() : data;
  }
  if (Array.isArray(data)) return data.map((item) => coloured(item, style));
  if (data === null || typeof data !== "object") return data;
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, coloured(value, style)]));
}

function draw(place) {
  place.dataset.drawn = "yes";
  const data = JSON.parse(document.getElementById(`chart-${place.dataset.chart}`).textContent);
  const figure = coloured(data, getComputedStyle(document.documentElement));
  window.Plotly.purge(place);
  window.Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
}

function watchCharts() {
  const places = document.querySelectorAll(".plot");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const place of places) seen.observe(place);
  const redraw = () => { for (const place of places) if (place.dataset.drawn) draw(place); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // On paper everything is drawn, in the colours and the width of paper.
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    for (const place of places) draw(place);
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    redraw();
  });
}

// The script that draws is larger than the page: it is read once the page can be read.
function loadCharts(source) {
  const script = document.createElement("script");
  script.src = source;
  script.addEventListener("load", watchCharts);
  document.head.append(script);
}

function watchSections() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const link = links.get(target.id);
      if (isIntersecting) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);
}

document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("[data-table]")) enhanceTable(box);
  watchSections();
});
addEventListener("load", () => {
  if (chartSource) setTimeout(loadCharts, 0, chartSource);
});
