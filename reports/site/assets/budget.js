"use strict";
// Limits per metric over one large chart of cost against gain, from data/board.js.
(() => {
  const place = document.querySelector("[data-module=budget]");
  const data = vbench_data.board;
  if (!place || !data) return;

  const MOST_NAMES = 12;
  const MOST_LISTED = 10;
  const STEPS = 200;
  const columns = data.columns.map((column, index) => ({ ...column, index })).filter((column) => column.is_headline && column.better);
  const valuesOf = (column) => data.rows.map((row) => row.cells[column.index]?.value).filter((value) => value != null);
  const known = columns.filter((column) => new Set(valuesOf(column)).size > 1 || valuesOf(column).length > 1);
  const gains = known.filter((column) => column.better === "higher");
  const costs = known.filter((column) => column.better === "lower");
  if (!gains.length || !costs.length) { place.previousElementSibling?.remove(); return; }
  const preferred = (list, names) => names.map((name) => list.find((column) => column.metric.startsWith(name))).find(Boolean) || list[0];
  const name = (column) => `${column.title}${column.shown_unit ? `, ${column.shown_unit}` : ""}`;

  function choice(label, list, first) {
    const select = element("select", {}, ...list.map((column) => element("option", { value: column.index }, column.title)));
    select.value = first.index;
    select.addEventListener("change", show);
    return [select, element("label", {}, `${label} `, select)];
  }

  const [costChoice, costLabel] = choice("Cost", costs, preferred(costs, ["latency.p50", "macs.", "params."]));
  const [gainChoice, gainLabel] = choice("Gain", gains, preferred(gains, ["accuracy.top1", "throughput."]));
  const machines = [...new Set(data.rows.map((row) => (row.failure ? "" : row.machine)).filter(Boolean))].sort();
  const machineChoice = element("select", {}, element("option", { value: "" }, "all"), ...machines.map((letter) => element("option", { value: letter }, `${letter}: ${data.machines.find((m) => m.letter === letter)?.name || ""}`)));
  const rowsOf = (letter) => data.rows.filter((row) => row.machine === letter).length;
  // Machines are not ranked with each other, so one of them is chosen first: the one with the most rows.
  if (machines.length > 1) machineChoice.value = machines.reduce((a, b) => (rowsOf(b) > rowsOf(a) ? b : a));
  machineChoice.addEventListener("change", show);

  // One slider per metric; positions are on a logarithmic scale if all values are above zero.
  const sliders = [...costs, ...gains].map((column) => {
    const values = valuesOf(column);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const isLog = low > 0 && high / low > 15;
    const open = column.better === "lower" ? STEPS : 0;
    const input = element("input", { type: "range", min: 0, max: STEPS, step: 1 });
    input.value = open;
    const output = element("output", {}, "any");
    const limit = () => {
      const share = Number(input.value) / STEPS;
      return isLog ? low * (high / low) ** share : low + share * (high - low);
    };
    const isOpen = () => Number(input.value) === open;
    const setLimit = (value) => {
      const share = isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      if (Number.isFinite(share)) input.value = Math.round(STEPS * share);
    };
    input.addEventListener("input", show);
    const label = element("label", {}, `${column.title} ${column.better === "lower" ? "at most" : "at least"}`, input, output);
    return { column, label, limit, setLimit, isOpen, output };
  });

  const selects = { cost: costChoice, gain: gainChoice, machine: machineChoice };
  const list = element("ol", {});
  const verdict = element("p", { "aria-live": "polite" });
  const chart = element("div", { class: "plot-large", role: "group" });
  place.append(
    element("div", { class: "tools" }, costLabel, gainLabel, ...(machines.length > 1 ? [element("label", {}, "machine ", machineChoice)] : [])),
    element("div", { class: "sliders" }, ...sliders.map((slider) => slider.label)),
    verdict, chart, list,
  );

  function fits(row) {
    if (machineChoice.value && row.machine && row.machine !== machineChoice.value) return false;
    return sliders.every((slider) => {
      if (slider.isOpen()) return true;
      const value = row.cells[slider.column.index]?.value;
      // A value at the limit itself fits, whatever the rounding of the slider.
      return value != null && (slider.column.better === "lower" ? value <= slider.limit() * (1 + 1e-9) : value >= slider.limit() * (1 - 1e-9));
    });
  }

  function nameOf(row) {
    return row.machine && machines.length > 1 ? `, machine ${row.machine}` : "";
  }

  function isRanked(cell) {
    return !(cell.doubts?.length) && !cell.is_lower_bound;
  }

  function show() {
    for (const slider of sliders) {
      const text = (slider.limit() / slider.column.divisor).toLocaleString("en", { maximumSignificantDigits: 3 });
      slider.output.textContent = slider.isOpen() ? "any" : `${text} ${slider.column.shown_unit}`;
    }
    const [cost, gain] = [data.columns[costChoice.value], data.columns[gainChoice.value]];
    const points = data.rows.map((row) => ({ row, x: row.cells[costChoice.value], y: row.cells[gainChoice.value] })).filter(({ x, y }) => x?.value != null && y?.value != null);
    const inside = points.filter(({ row }) => fits(row));
    const ranked = inside.filter(({ x, y }) => isRanked(x) && isRanked(y)).sort((a, b) => b.y.value - a.y.value || a.x.value - b.x.value);
    // A gain that belongs to a machine, such as clips/s, is ranked within each machine only.
    const apart = gain.is_of_machine ? [...new Set(ranked.map(({ row }) => row.machine))].sort() : [];
    const isMixed = apart.length > 1;
    const best = isMixed ? undefined : ranked[0];
    const listed = isMixed ? apart.map((letter) => ranked.find(({ row }) => row.machine === letter)) : ranked.slice(0, MOST_LISTED);
    const level = best ? ranked.filter(({ y }) => (y.high ?? y.value) >= (best.y.low ?? best.y.value)) : [];
    const unranked = inside.length - ranked.length;
    const among = unranked ? ` of those that are ranked; ${unranked} hollow ${unranked > 1 ? "points are" : "point is"} not` : "";
    verdict.textContent = best
      ? `${inside.length} of ${points.length} rows fit. ${level.length > 1 ? `${level.length} of them lead in ${gain.title} and cannot be separated` : `${best.row.label} has the highest ${gain.title}`}${among}.`
      : isMixed
        ? `${inside.length} of ${points.length} rows fit. Machines are not ranked with each other; the list has the highest ${gain.title} of each${among}.`
        : `${inside.length} of ${points.length} rows fit; none of them can be ranked.`;
    list.replaceChildren(...listed.map(({ row, x, y }) => element("li", {},
      row.page ? element("a", { href: row.page }, row.label) : row.label,
      ` ${y.text} ${gain.whole_unit}${y.interval ? ` (${y.interval})` : ""} at ${x.text} ${cost.whole_unit}${nameOf(row)}`)));
    const alt = `${gain.title} against ${cost.title}: ${inside.length} points within the limits`;
    chart.setAttribute("aria-label", alt);
    whenPlotly(() => draw(points, inside, ranked, best, cost, gain));
  }

  function frontier(ranked) {
    const kept = [];
    for (const point of [...ranked].sort((a, b) => a.x.value - b.x.value || b.y.value - a.y.value)) {
      if (!kept.length || point.y.value > kept.at(-1).y.value) kept.push(point);
    }
    return kept;
  }

  function draw(points, inside, ranked, best, cost, gain) {
    const style = getComputedStyle(document.documentElement);
    const colour = (property) => style.getPropertyValue(property).trim();
    const among = new Set(inside);
    const front = machines.length > 1 && !machineChoice.value && (cost.is_of_machine || gain.is_of_machine) ? [] : frontier(ranked);
    const [dx, dy] = [cost.divisor, gain.divisor];
    const trace = (list, marker, extra = {}) => ({
      type: "scatter", mode: "markers",
      x: list.map(({ x }) => x.value / dx), y: list.map(({ y }) => y.value / dy),
      ids: list.map(({ row }) => row.page), customdata: list.map(({ row }) => escapeMarkup(`${row.label}${nameOf(row)}`)),
      hovertemplate: `%{customdata}<br>${escapeMarkup(`%{y:.4g} ${gain.whole_unit} at %{x:.4g} ${cost.whole_unit}`)}<extra></extra>`, marker, ...extra,
    });
    const errors = (list) => ({ type: "data", symmetric: false, array: list.map(({ y }) => ((y.high ?? y.value) - y.value) / dy), arrayminus: list.map(({ y }) => (y.value - (y.low ?? y.value)) / dy), width: 0, thickness: 1, color: colour("--muted") });
    const outside = points.filter((point) => !among.has(point));
    const hollow = inside.filter(({ x, y }) => !isRanked(x) || !isRanked(y));
    const solid = ranked.filter((point) => !front.includes(point));
    const xs = points.map(({ x }) => x.value).filter((value) => value > 0);
    const axis = { gridcolor: colour("--rule"), linecolor: colour("--rule"), tickfont: { color: colour("--muted") }, zeroline: false, automargin: true };
    const traces = [
      trace(outside, { color: colour("--rule"), size: 6 }),
      trace(hollow, { color: colour("--paper"), size: 9, line: { color: colour("--muted"), width: 1.4 } }),
      trace(solid, { color: colour("--muted"), size: 9 }, solid.length < 60 ? { error_y: errors(solid) } : {}),
      { type: "scatter", mode: "lines", x: front.map(({ x }) => x.value / dx), y: front.map(({ y }) => y.value / dy), line: { color: colour("--accent"), width: 1.3, shape: "hv" }, hoverinfo: "skip" },
      trace(front, { color: colour("--accent"), size: 11, symbol: "diamond" }, { mode: "markers+text", text: front.map(() => ""), meta: front.map(({ row }) => shortened(row.label)), textfont: { color: colour("--ink"), size: 11 }, cliponaxis: false, error_y: errors(front) }),
    ];
    const band = best && best.y.low !== undefined ? [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: best.y.low / dy, y1: best.y.high / dy, fillcolor: colour("--loud"), line: { width: 0 }, layer: "below" }] : [];
    const layout = {
      font: { family: colour("--font"), size: 12, color: colour("--ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 16, t: 28, b: 8 }, showlegend: false, hovermode: "closest", dragmode: "zoom", height: 520, shapes: band,
      hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
      xaxis: { ...axis, title: { text: escapeMarkup(name(cost)) }, ...(xs.length === points.length && Math.max(...xs) > 15 * Math.min(...xs) ? { type: "log" } : {}) },
      yaxis: { ...axis, title: { text: escapeMarkup(name(gain)) } },
    };
    Plotly.react(chart, traces, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "toImage"] }).then(() => nameFront(traces));
    if (!chart.dataset.listens) {
      chart.dataset.listens = "yes";
      openOnClick(chart);
      chart.on("plotly_relayout", () => nameFront(chart.data));
    }
  }

  const PLACES = ["top right", "top left", "bottom right", "bottom left", "middle right", "middle left"];
  const measured = document.createElement("canvas").getContext("2d");

  // Names the points of the frontier where the name covers no other point and no other name; else the list names them.
  function nameFront(traces) {
    const { xaxis, yaxis, font } = chart._fullLayout;
    const front = traces.length - 1;
    measured.font = `11px ${font.family}`;
    const spots = traces.filter((trace) => trace.mode !== "lines").flatMap((trace) => trace.x.map((x, i) => ({ x: xaxis.d2p(x), y: yaxis.d2p(trace.y[i]) })));
    const taken = spots.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
    const [text, textposition] = [[], []];
    traces[front].x.forEach((x, i) => {
      const name = i < MOST_NAMES ? traces[front].meta[i] : "";
      const width = measured.measureText(name).width;
      const place = PLACES.find((each) => {
        const box = boxOf(each, xaxis.d2p(x), yaxis.d2p(traces[front].y[i]), width);
        const isFree = box[0] >= 0 && box[2] <= xaxis._length && box[3] <= yaxis._length && taken.every((other) => !overlap(box, other));
        if (isFree && name) taken.push(box);
        return isFree;
      });
      text.push(place ? escapeMarkup(name) : "");
      textposition.push(place || PLACES[0]);
    });
    Plotly.restyle(chart, { text: [text], textposition: [textposition] }, [front]);
  }

  // Left, top, right and bottom of a name of this width beside the marker at (x, y).
  function boxOf(place, x, y, width) {
    const [vertical, horizontal] = place.split(" ");
    const left = horizontal === "right" ? x + 7 : x - 7 - width;
    const top = { top: y - 20, middle: y - 7, bottom: y + 6 }[vertical];
    return [left, top, left + width, top + 14];
  }

  function overlap(a, b) {
    return a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  }

  function shortened(text) {
    return text.length > 32 ? `${text.slice(0, 31)}…` : text;
  }

  // The choices are behind the first & of the address, as on the board: #budget&cost=2&gain=5&limit2=0.02
  function readState() {
    if (!/^#budget&/.test(location.hash)) return;
    const state = new URLSearchParams(location.hash.split("&").slice(1).join("&"));
    for (const [key, select] of Object.entries(selects)) {
      if ([...select.options].some((option) => option.value === state.get(key))) select.value = state.get(key);
    }
    for (const slider of sliders) if (state.has(`limit${slider.column.index}`)) slider.setLimit(Number(state.get(`limit${slider.column.index}`)));
  }

  function writeState() {
    const state = new URLSearchParams(Object.entries(selects).map(([key, select]) => [key, select.value]));
    for (const slider of sliders) if (!slider.isOpen()) state.set(`limit${slider.column.index}`, Number(slider.limit().toPrecision(6)));
    history.replaceState(null, "", `#budget&${state}`);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  readState();
  show();
  place.addEventListener("input", writeState);  // fires after the listener of the control itself
})();
