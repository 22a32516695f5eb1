"use strict";
// On every page: tables that sort, filter, unfold and save themselves; charts that are drawn when they come into sight.

var vbench_data = {};  // data files fill it; `var`, so that it is a property of the window
const chartSource = document.currentScript.dataset.charts || document.body?.dataset.charts;
const collator = new Intl.Collator("en", { numeric: true });

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

let popover;
// Opens a popover that takes the focus: what a hover title says must reach keyboards, fingers and screen readers too.
function openPopover(label, ...contents) {
  if (!popover) {
    popover = element("div", { class: "popover", popover: "auto", role: "dialog" });
    popover.addEventListener("click", (event) => { if (event.target.closest("a")) popover.hidePopover(); });  // it may lead to this page
    document.body.append(popover);
  }
  if (popover.matches(":popover-open")) popover.hidePopover();
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", () => popover.hidePopover());
  popover.setAttribute("aria-label", label);
  popover.replaceChildren(...contents, " ", close);
  popover.showPopover();
  popover.querySelector("a, button").focus();
}

function aboutButton(name, text) {
  const button = element("button", { type: "button", class: "about", "aria-label": `About ${name}` }, "?");
  button.addEventListener("click", (event) => { event.stopPropagation(); openPopover(`About ${name}`, element("p", {}, text)); });
  return button;
}

// The text of a cell with a title becomes a button that opens it; a link keeps its own meaning and gets a button behind it.
function explainCells(row) {
  for (const cell of row.querySelectorAll("[title]")) {
    const text = cell.title;
    cell.removeAttribute("title");
    const first = cell.firstChild;
    if (first?.nodeType !== Node.TEXT_NODE) {
      if (first) first.after(aboutButton(first.textContent, text));
      continue;
    }
    const button = element("button", { type: "button", class: "value" }, first.textContent);
    button.addEventListener("click", () => openPopover(`About ${button.textContent}`, element("p", {}, text)));
    first.replaceWith(button);
  }
}

// The shapes of a drawing that have a title become buttons that open it, with the links of the shape. The drawing is one
// stop of the Tab key: hundreds of rectangles would be too many. Arrows go to the next shape in their direction.
function explainShapes(drawing) {
  const shapes = [...drawing.querySelectorAll("title")].map((title) => {
    const shape = title.parentElement;
    shape.setAttribute("aria-label", title.textContent);
    shape.setAttribute("role", "button");
    title.remove();
    return shape;
  });
  let place = 0;
  const reach = (index) => {
    shapes[place].setAttribute("tabindex", "-1");
    place = index;
    shapes[place].setAttribute("tabindex", "0");
  };
  shapes.forEach((shape, index) => {
    shape.setAttribute("tabindex", index ? "-1" : "0");
    shape.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey) return;  // a link in a new tab
      event.preventDefault();
      reach(index);
      shape.focus();  // where the popover gives the focus back to
      const links = JSON.parse(shape.dataset.links || "[]").map(([address, text]) => element("p", {}, element("a", { href: address }, text)));
      openPopover("About this part of the drawing", element("p", {}, shape.getAttribute("aria-label")), ...links);
    });
    shape.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        shape.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
      }
      const next = { Home: 0, End: shapes.length - 1 }[event.key] ?? nextShape(shapes, index, event.key);
      if (next === undefined) return;
      event.preventDefault();
      reach(next);
      shapes[next].focus();
    });
  });
  if (shapes.length) drawing.setAttribute("role", "group");
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The nearest shape in the direction of an arrow key; what lies off that direction counts as twice as far.
function nextShape(shapes, index, key) {
  if (!ARROWS[key]) return undefined;
  const [right, down] = ARROWS[key];
  const middles = shapes.map((shape) => { const box = shape.getBBox(); return [box.x + box.width / 2, box.y + box.height / 2]; });
  const [x, y] = middles[index];
  const far = middles.map(([itsX, itsY]) => {
    const along = (itsX - x) * right + (itsY - y) * down;
    return along > 0.5 ? along + 2 * Math.abs((itsX - x) * down + (itsY - y) * right) : Infinity;
  });
  const nearest = far.indexOf(Math.min(...far));
  return far[nearest] < Infinity ? nearest : undefined;
}

// plotly reads a little HTML in every text.
function escapeMarkup(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function saveFile(name, type, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A text that a spreadsheet would run as a formula is quoted.
function csvText(lines) {
  const safe = (value) => (typeof value === "string" ? value.replace(/^(?=[=+\-@\t\r])/, "'") : value);
  const quote = (value) => `"${String(safe(value)).replaceAll('"', '""')}"`;
  return lines.map((line) => line.map(quote).join(",")).join("\r\n");
}

// The page of a point opens on a click; only addresses within the site are points' ids.
function openOnClick(plot) {
  plot.on("plotly_click", (event) => {
    const address = event.points[0]?.id;
    if (address && !/^[a-z]+:/i.test(address)) location.href = address;
  });
}

function whenVisible(place, act) {
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) { observer.disconnect(); act(); }
  }, { rootMargin: "400px" }).observe(place);
}

let plotly;  // the promise of plotly's script, which is larger than the page: it is read once the page can be read
function whenPlotly(act) {
  plotly ??= new Promise((resolve) => {
    const load = () => setTimeout(() => {
      const script = element("script", { src: chartSource });
      script.addEventListener("load", () => resolve());
      document.head.append(script);
    });
    if (window.Plotly) resolve();
    else if (document.readyState === "complete") load();
    else addEventListener("load", load);
  });
  plotly.then(act);
}

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
    const shown = found.slice(0, limit);
    shown.forEach(explainCells);
    body.replaceChildren(...shown);
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
  for (const row of body.rows) explainCells(row);
}

function textOf(row) {
  if (row.words === undefined) row.words = row.textContent.toLowerCase();
  return row.words;
}

function addSorting(head, sortBy) {
  const button = document.createElement("button");
  button.type = "button";
  const name = head.firstChild?.textContent || "";
  button.append(...head.childNodes);
  head.append(button, ...(head.title ? [" ", aboutButton(name, head.title)] : []));
  head.removeAttribute("title");
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
  saveFile(`${table.id}.csv`, "text/csv", csvText([heads, ...lines]));
}

function savedText(cell) {
  const value = valueOf(cell);
  if (value === null) return "";
  return typeof value === "string" ? cellText(cell) : value;
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
  const isFirst = !place.dataset.drawn;
  place.dataset.drawn = "yes";
  const data = JSON.parse(document.getElementById(`chart-${place.dataset.chart}`).textContent);
  const figure = coloured(data, getComputedStyle(document.documentElement));
  if (!isFirst) window.Plotly.purge(place);
  window.Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  openOnClick(place);
}

function watchCharts() {
  const places = document.querySelectorAll(".plot");
  for (const place of places) whenVisible(place, () => draw(place));
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

function openDetailsOnPaper() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
}

// In a single file the page of the address is shown and the others are hidden.
function showPage() {
  const name = decodeURIComponent(location.hash.slice(1).split("&")[0]);
  const target = name && document.getElementById(name);
  const pages = [...document.querySelectorAll("main > article")];
  const page = target ? target.closest("article") : pages[0];
  for (const each of pages) each.hidden = each !== page;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash.slice(1) === page.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (target) target.scrollIntoView();
}

function startPage() {
  for (const box of document.querySelectorAll("[data-table]")) if (!box.closest(".plain-board")) enhanceTable(box);
  document.querySelectorAll("svg[data-explained]").forEach(explainShapes);
  if (document.body.classList.contains("single")) {
    showPage();
    addEventListener("hashchange", showPage);
  }
  openDetailsOnPaper();  // before charts are drawn for it: some are in details
  if (document.querySelector(".plot")) whenPlotly(watchCharts);
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startPage);
else startPage();
