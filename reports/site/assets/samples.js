"use strict";
// Charts of the raw samples of a case: in the order of time, and as a histogram.
(() => {
  const MOST_BINS = 60;
  for (const place of document.querySelectorAll("[data-module=samples]")) {
    const data = vbench_data[place.dataset.name];
    if (data) show(place, data);
  }

  function show(place, data) {
    const kinds = Map.groupBy ? Map.groupBy(data.samples, (each) => each.metric) : grouped(data.samples);
    for (const [metric, runs] of kinds) {
      const charts = [["over time", timeline], ["histogram", histogram]].map(([title, draw]) => {
        const plot = element("div", { class: "plot-small", role: "img", "aria-label": `${metric}: ${title} of ${runs.reduce((sum, run) => sum + run.values.length, 0)} samples` });
        whenVisible(plot, () => whenPlotly(() => draw(plot, runs)));
        return element("figure", { class: "chart" }, plot, element("figcaption", {}, `${metric}, ${runs[0].unit}: ${title}. ${stops(runs)}`));
      });
      place.append(element("div", { class: "charts" }, ...charts));
    }
    const pre = element("pre", { tabindex: "0" });
    const details = element("details", {}, element("summary", {}, "The records of this case, without samples"), pre);
    details.addEventListener("toggle", () => { if (!pre.textContent) pre.textContent = JSON.stringify(data.records, null, 1); });
    place.append(details);
  }

  function stops(runs) {
    const reasons = [...new Set(runs.map((run) => run.stopped_because).filter(Boolean))];
    return reasons.length ? `Sampling stopped because: ${reasons.join("; ")}.` : "";
  }

  function grouped(samples) {
    const found = new Map();
    for (const each of samples) found.set(each.metric, [...(found.get(each.metric) || []), each]);
    return found;
  }

  function layoutOf(xTitle, yTitle) {
    const style = getComputedStyle(document.documentElement);
    const colour = (property) => style.getPropertyValue(property).trim();
    const axis = { gridcolor: colour("--rule"), linecolor: colour("--rule"), tickfont: { color: colour("--muted") }, zeroline: false, automargin: true };
    return {
      font: { family: colour("--font"), size: 12, color: colour("--ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 16, t: 8, b: 8 }, height: 260, showlegend: false, bargap: 0.05, barmode: "overlay",
      colorway: [1, 2, 3, 4, 5, 6].map((number) => colour(`--series-${number}`)),
      xaxis: { ...axis, title: { text: xTitle } }, yaxis: { ...axis, title: { text: yTitle } },
    };
  }

  function timeline(plot, runs) {
    const traces = runs.map((run) => ({ type: "scatter", mode: "lines+markers", marker: { size: 3 }, line: { width: 0.8 }, name: `run ${run.run + 1}`, y: run.values, hovertemplate: "sample %{x}: %{y:.5g}<extra>%{fullData.name}</extra>" }));
    Plotly.newPlot(plot, traces, layoutOf("Sample", escapeMarkup(runs[0].unit)), { responsive: true, displayModeBar: false });
  }

  function histogram(plot, runs) {
    const traces = runs.map((run) => ({ type: "histogram", x: run.values, opacity: runs.length > 1 ? 0.6 : 1, nbinsx: MOST_BINS, name: `run ${run.run + 1}` }));
    Plotly.newPlot(plot, traces, layoutOf(escapeMarkup(runs[0].unit), "Samples"), { responsive: true, displayModeBar: false });
  }
})();
