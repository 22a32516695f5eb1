"use strict";
// The board: all rows of data/board.js with a column picker, filters, sorting and export. Its state is in the address.
(() => {
  const place = document.querySelector("[data-module=board]");
  const data = vbench_data.board;
  if (!place || !data) return;

  const MOST_FACET_VALUES = 30;
  const NARROW = matchMedia("(max-width: 40rem)").matches;
  const state = readState();
  const columns = data.columns.map((column, index) => ({ ...column, index, field: `cells.${index}` }));
  const initial = state.get("columns");
  const shown = new Set(initial ? initial.split(".").map(Number) : columns.filter((c) => c.is_headline).map((c) => c.index));
  const several = data.machines.length > 1;
  const ends = columns.map((column) => rangeOf(column));

  function rangeOf(column) {
    const values = data.rows.map((row) => row.cells[column.index]?.value).filter((value) => value != null);
    return values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
  }

  // The state is behind the first & of the address: #leaderboard&sort=3.desc&find=c3d
  function readState() {
    return new URLSearchParams(location.hash.split("&").slice(1).join("&"));
  }

  let written = state.toString();
  function writeState() {
    for (const [key, value] of [...state]) if (value === "") state.delete(key);
    const text = state.toString();
    if (text === written) return;
    written = text;
    history.replaceState(null, "", `#leaderboard${text ? `&${text}` : ""}`);
  }

  function say(cell) {
    return cell.text === undefined ? "–" : `${cell.is_lower_bound ? "≥ " : ""}${cell.text}`;
  }

  function valueNode(column, cell, row) {
    if (!cell) return element("span", { class: "none" }, "–");
    if (cell.failure) return element("a", { class: "failure", href: cell.page || null }, cell.text);
    const chips = cell.value == null ? [] : [...(cell.doubts || []), ...(cell.remarks || [])];
    const button = element("button", { type: "button", class: cell.best ? "value best" : "value" }, say(cell));
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      explain(column, cell, row);
    });
    return element(
      "div",
      {},
      button,
      ...chips.map((chip) => element("span", { class: "chip" }, chip)),
      cell.interval ? element("small", {}, `${cell.is_range ? "range " : ""}${cell.interval}`) : "",
      cell.value == null ? "" : bar(column, cell),
    );
  }

  // The interval of a cell on the range of its column; a tick for the value.
  function bar(column, cell) {
    const [low, high] = ends[column.index];
    if (!(high > low)) return "";
    const at = (value) => 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    const [start, end] = [at(cell.low ?? cell.value), at(cell.high ?? cell.value)];
    const span = element("span", {});
    span.style.left = `${start}%`;
    span.style.width = `max(3px, ${end - start}%)`;
    return element("span", { class: "bar", "aria-hidden": "true" }, span);
  }

  function explain(column, cell, row) {
    const facts = [
      ["Row", row.label],
      ["Metric", `${column.title}: ${column.meaning}`],
      ["Value", cell.value == null ? "unknown" : `${cell.value.toLocaleString("en", { maximumSignificantDigits: 9 })} ${column.unit}`],
      ["95 % interval", cell.interval && !cell.is_range ? `${cell.low} to ${cell.high} ${column.unit}` : ""],
      ["Range of the runs", cell.interval && cell.is_range ? `${cell.low} to ${cell.high} ${column.unit}` : ""],
      ["Values", cell.n ?? ""],
      ["Rank", cell.rank ? (cell.rank[0] === cell.rank[1] ? cell.rank[0] : `${cell.rank[0]} to ${cell.rank[1]}`) : ""],
      ["How", data.explanations[cell.how]],
      ["Not ranked", (cell.doubts || []).join(", ")],
      ["Remarks", (cell.remarks || []).join(", ")],
      ["Machine", row.machine],
    ].filter(([, value]) => value !== "" && value !== undefined);
    openPopover(
      "About this value",
      element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))])),
      row.page ? element("a", { href: row.page }, "Page of the model") : "",
    );
  }

  function head(title, ...rest) {
    return () => element("button", { type: "button" }, title, ...rest);
  }

  function metricHead(column) {
    const arrow = column.better === "lower" ? " ↓" : column.better === "higher" ? " ↑" : "";
    const unit = column.shown_unit ? element("span", { class: "unit" }, ` ${column.shown_unit}`) : "";
    return () => element("span", {}, element("button", { type: "button" }, column.title, unit.cloneNode ? unit.cloneNode(true) : "", arrow), " ", aboutButton(column.title, column.meaning));
  }

  // Unknown values are last in both directions, and timings of one machine stay together.
  function byValue(column) {
    return (a, b, rowA, rowB, _, direction) => {
      const sign = direction === "desc" ? -1 : 1;
      const [x, y] = [a?.value ?? null, b?.value ?? null];
      if (x === null || y === null) return sign * ((x === null) - (y === null));
      const apart = column.is_of_machine ? collator.compare(rowA.getData().machine, rowB.getData().machine) : 0;
      return sign * apart || x - y;
    };
  }

  function factorText(value) {
    return value === undefined || value === null ? "–" : Array.isArray(value) ? value.join(", ") : String(value);
  }

  const modelColumn = {
    title: "Model",
    titleFormatter: head("Model"),
    field: "model",
    frozen: !NARROW,
    minWidth: 150,
    maxInitialWidth: 300,
    widthGrow: 2,
    responsive: 0,
    sorter: (a, b, rowA, rowB) => collator.compare(rowA.getData().label, rowB.getData().label),
    formatter: (cell) => {
      const row = cell.getRow().getData();
      const name = row.page ? element("a", { href: row.page }, row.model) : row.model;
      // On a phone the columns of what differs are folded away, and rows of one model would look the same.
      const differing = data.factors.map((factor) => row.factors[factor.name]).filter((value) => value != null).map(factorText);
      const mode = NARROW ? [...differing, ...(several && row.machine ? [`machine ${row.machine}`] : [])].join(", ") : "";
      return element("div", {}, name, row.args ? element("small", {}, row.args) : "", mode ? element("small", {}, mode) : "", row.failure && !Object.keys(row.cells).length ? element("span", { class: "chip" }, row.failure) : "");
    },
  };
  const factorColumns = data.factors.map((factor) => ({
    title: factor.title,
    titleFormatter: head(factor.title),
    field: `factors.${factor.name}`,
    responsive: 99,
    sorter: (a, b) => collator.compare(factorText(a), factorText(b)),
    formatter: (cell) => document.createTextNode(factorText(cell.getValue())),
  }));
  // The ranks that a row may have by the column that orders the board, in the band of all that cannot be told apart.
  const orderColumn = columns[data.ranked_by];
  const rankOf = (row) => row.cells[data.ranked_by]?.rank;
  const rankColumn = {
    title: "Rank",
    titleFormatter: () => element("span", {}, element("button", { type: "button" }, "Rank"), " ", aboutButton("Rank", `The first and the last rank by ${orderColumn.title} that the 95 % intervals allow${orderColumn.is_of_machine ? ", on each machine" : ""}. Rows whose ranks overlap cannot be told apart.`)),
    field: "rank",
    responsive: 0,
    hozAlign: "right",
    headerHozAlign: "right",
    sorter: (a, b, rowA, rowB, _, direction) => {
      const [x, y] = [rankOf(rowA.getData()), rankOf(rowB.getData())];
      if (!x || !y) return (direction === "desc" ? -1 : 1) * (!x - !y);
      return x[0] - y[0] || x[1] - y[1];
    },
    formatter: (cell) => {
      const rank = rankOf(cell.getRow().getData());
      return document.createTextNode(rank ? (rank[0] === rank[1] ? rank[0] : rank.join("–")) : "–");
    },
  };
  const machineColumn = { title: "machine", titleFormatter: head("machine"), field: "machine", responsive: 98, formatter: (cell) => document.createTextNode(cell.getValue() || "–") };
  // The column that orders the rows is the first, whatever else has to be scrolled to.
  const inOrder = [...columns].sort((a, b) => (b === orderColumn) - (a === orderColumn));
  const metricColumns = inOrder.map((column, place) => ({
    title: column.title,
    titleFormatter: metricHead(column),
    field: column.field,
    visible: shown.has(column.index),
    responsive: 1 + place,
    hozAlign: "right",
    headerHozAlign: "right",
    minWidth: 90,
    maxInitialWidth: 190,
    sorter: byValue(column),
    headerSortStartingDir: column.better === "higher" ? "desc" : "asc",
    formatter: (cell) => valueNode(column, cell.getValue(), cell.getRow().getData()),
  }));

  const count = element("output", { "aria-live": "polite" });
  const search = element("input", { type: "search", autocomplete: "off", spellcheck: "false", value: state.get("find") || "" });
  const facets = [...data.factors.map((f) => [f.name, f.title, (row) => factorText(row.factors[f.name])]), ...(several ? [["machine", "machine", (row) => row.machine || "–"]] : [])];
  const selects = facets.map(([name, title, read]) => {
    const values = [...new Set(data.rows.map(read))].sort(collator.compare);
    if (values.length < 2 || values.length > MOST_FACET_VALUES) return null;
    const select = element("select", {}, element("option", { value: "" }, "all"), ...values.map((value) => element("option", { value }, value)));
    select.value = state.get(name) || "";
    select.addEventListener("change", () => { state.set(name, select.value); refresh(); });
    return { read, select, label: element("label", {}, `${title} `, select) };
  }).filter(Boolean);

  const ranges = new Map();
  const rangeBox = element("div", { class: "choices" });

  function drawRanges() {
    rangeBox.replaceChildren(...columns.filter((column) => shown.has(column.index)).map((column) => {
      const inputs = ["min", "max"].map((end) => {
        const key = `${end}${column.index}`;
        const input = element("input", { type: "number", step: "any", "aria-label": `${column.title}, ${end}imum` , placeholder: end, value: state.get(key) || "" });
        input.addEventListener("input", () => { state.set(key, input.value); refresh(); });
        return input;
      });
      return element("fieldset", {}, element("legend", {}, `${column.title} ${column.shown_unit}`), ...inputs);
    }));
    readRanges();
  }

  function readRanges() {
    ranges.clear();
    for (const column of columns) {
      const [low, high] = ["min", "max"].map((end) => state.get(`${end}${column.index}`));
      if (low || high) ranges.set(column.index, [low ? Number(low) * column.divisor : -Infinity, high ? Number(high) * column.divisor : Infinity]);
    }
  }

  function isShown(row) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = words.length ? [row.label, row.suite, row.model, row.args, row.machine, ...Object.values(row.factors).map(factorText)].join(" ").toLowerCase() : "";
    if (!words.every((word) => text.includes(word))) return false;
    if (!selects.every(({ read, select }) => !select.value || read(row) === select.value)) return false;
    for (const [index, [low, high]] of ranges) {
      const value = row.cells[index]?.value;
      if (value == null || value < low || value > high) return false;
    }
    return true;
  }

  function refresh() {
    readRanges();
    table.setFilter(isShown);
    writeState();
    tell();
  }

  function tell() {
    const active = table.getDataCount("active");
    count.textContent = active === data.rows.length ? `${active} rows` : `${active} of ${data.rows.length} rows`;
  }

  const picker = element("div", { class: "choices" }, ...columns.map((column) => {
    const box = element("input", { type: "checkbox" });
    box.checked = shown.has(column.index);
    box.addEventListener("change", () => {
      if (box.checked) shown.add(column.index);
      else shown.delete(column.index);
      table[box.checked ? "showColumn" : "hideColumn"](column.field);
      state.set("columns", [...shown].sort((a, b) => a - b).join("."));
      writeState();
      drawRanges();
    });
    return element("label", {}, box, ` ${column.title}`);
  }));

  // Exports: what is shown, each metric with its interval, number of values and status.
  function exported() {
    const visible = columns.filter((column) => shown.has(column.index));
    const heads = ["model", "arguments", "suite", ...data.factors.map((factor) => factor.title), "machine"];
    for (const column of visible) {
      const name = `${column.title}${column.unit ? ` [${column.unit}]` : ""}`;
      heads.push(name, `${name} low`, `${name} high`, `${name} n`, `${name} status`);
    }
    const rows = table.getData("active").map((row) => {
      const fixed = [row.model, row.args, row.suite, ...data.factors.map((factor) => row.factors[factor.name] ?? ""), row.machine];
      const values = visible.flatMap((column) => {
        const cell = row.cells[column.index] || {};
        const status = (cell.failure && cell.text) || row.failure || [...(cell.doubts || []), ...(cell.remarks || [])].join("; ");
        return [cell.value ?? "", cell.low ?? "", cell.high ?? "", cell.n ?? "", status];
      });
      return [...fixed.map((value) => (Array.isArray(value) ? value.join(", ") : value)), ...values];
    });
    return { heads, rows };
  }

  const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
  const FORMATS = {
    CSV: ["csv", "text/csv", ({ heads, rows }) => csvText([heads, ...rows])],
    JSON: ["json", "application/json", ({ heads, rows }) => JSON.stringify(rows.map((row) => Object.fromEntries(heads.map((name, i) => [name, row[i] === "" ? null : row[i]]))), null, 1)],
    Markdown: ["md", "text/markdown", ({ heads, rows }) => {
      const line = (cells) => `| ${cells.map((cell) => String(cell).replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", " ")).join(" | ")} |`;
      return [line(heads), line(heads.map(() => "---")), ...rows.map(line)].join("\n") + "\n";
    }],
    LaTeX: ["tex", "application/x-tex", ({ heads, rows }) => {
      const line = (cells) => `${cells.map((cell) => String(cell).replace(/[&%$#_{}\\~^]/g, (c) => LATEX[c] || `\\${c}`).replaceAll("\n", " ")).join(" & ")} \\\\`;
      return [`\\begin{tabular}{${"l".repeat(heads.length)}}`, line(heads), "\\hline", ...rows.map(line), "\\end{tabular}", ""].join("\n");
    }],
  };
  const buttons = Object.entries(FORMATS).map(([name, [ending, type, write]]) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => saveFile(`board.${ending}`, type, write(exported())));
    return button;
  });

  search.addEventListener("input", () => { state.set("find", search.value); refresh(); });
  const grid = element("div", { class: "board" });
  place.append(
    element("div", { class: "tools" }, element("label", {}, "Find ", search), ...selects.map(({ label }) => label), count,
      element("span", { class: "save", role: "group", "aria-label": "Save these rows" }, "Save as ", ...buttons)),
    element("details", {}, element("summary", {}, "Columns"), picker),
    element("details", {}, element("summary", {}, "Limits"), rangeBox),
    grid,
  );

  const [sortIndex, sortDirection] = (state.get("sort") || "").split(".");
  const sortField = /^\d+$/.test(sortIndex) ? `cells.${sortIndex}` : sortIndex;
  const table = new Tabulator(grid, {
    data: data.rows,
    columns: [...(NARROW ? [{ formatter: "responsiveCollapse", width: 34, headerSort: false, hozAlign: "center", titleFormatter: () => document.createTextNode("") }] : []), modelColumn, ...(orderColumn ? [rankColumn] : []), ...factorColumns, ...(several ? [machineColumn] : []), ...metricColumns],
    columnDefaults: { headerSortTristate: true, headerWordWrap: true, vertAlign: "top" },
    layout: NARROW ? "fitColumns" : "fitDataFill",
    responsiveLayout: NARROW ? "collapse" : false,
    responsiveLayoutCollapseStartOpen: false,
    responsiveLayoutCollapseFormatter: (items) => element("dl", { class: "card" }, ...items.flatMap((item) => [element("dt", {}, item.title), element("dd", {}, cardText(item.value))])),
    initialSort: sortDirection ? [{ column: sortField, dir: sortDirection }] : [],
    ...(data.rows.length > 30 ? { height: "75vh" } : {}),
    placeholder: "No row respects the filters.",
  });

  function cardText(value) {
    if (value && typeof value === "object" && !Array.isArray(value)) {
      return [say(value), value.interval ? `(${value.interval})` : "", ...(value.doubts || []), ...(value.remarks || [])].filter(Boolean).join(" ");
    }
    return factorText(value);
  }

  table.on("tableBuilt", () => {
    document.querySelector(".plain-board").classList.add("replaced");
    // A grid may only contain rows and groups of them, and the element that scrolls is neither.
    grid.removeAttribute("aria-owns");
    grid.setAttribute("aria-label", "Board");
    grid.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
    grid.querySelector(".tabulator-table").setAttribute("role", "presentation");
    drawRanges();
    table.setFilter(isShown);
    tell();
  });
  table.on("dataFiltered", () => tell());
  table.on("dataSorted", (sorters) => {
    const [first] = sorters;
    state.set("sort", first ? `${first.field.replace("cells.", "")}.${first.dir}` : "");
    if (table.initialized) writeState();
  });
})();
