// Charts, drawn by Plotly in the colours of the page.

// After Okabe and Ito: colour-blind people tell them apart.
const PALETTES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7a68c4"],
  dark: ["#4aa8e0", "#f08a4b", "#37c79b", "#e39cc5", "#f0b93a", "#9fd6f7", "#c9a866", "#ab9cf0"],
};
const DASHES = ["solid", "dash", "dot", "dashdot"];
const FATES = {
  stable: "#0072b2", unstable: "#e69f00", undecided: "#8c6d31", pending: "#f0e442", failed: "#c8281e",
  rejected: "#cc79a7", known: "#56b4e9", duplicate: "#a8d8ee", not_handed_in: "#b8bec6",
};
const Q_NAMES = {
  verdict: "exact: the verdicts", judged: "where the protocol looks", path: "on the path", commensurate: "at commensurate q-points", mesh: "on the mesh",
};

async function loadLibrary(name) {
  const code = new TextDecoder().decode(await inflate(name));
  document.head.append(element("script", { textContent: code }));
}

// Colour and kind of line of a set, by its place in the order of the report.
function setStyle(place) {
  const palette = PALETTES[document.documentElement.dataset.theme];
  return { color: palette[place % palette.length], dash: DASHES[Math.floor(place / palette.length) % DASHES.length] };
}

function bandBetween(x, low, high, fill, name) {
  return {
    x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()].map((value) => 100 * value),
    fill: "toself", fillcolor: fill, line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: name, mode: "lines",
  };
}

function lineWithBand(name, style, x, y, low, high, hover) {
  const line = {
    x, y: y.map((value) => 100 * value), name, legendgroup: name, mode: "lines", line: { ...style, width: 2 },
    customdata: low.map((value, i) => [100 * value, 100 * high[i]]), hovertemplate: hover,
  };
  return [bandBetween(x, low, high, faded(style.color, 0.16), name), line];
}

function thresholdChart(data, kind, chosen) {
  const { grid, kinds } = data.thresholds;
  const depths = grid.map((value) => -value);
  const traces = data.order.flatMap((name, place) => {
    const curve = kinds[kind].curves[name];
    if (!curve) return [];
    const hover = `${forPlotly(name)}: %{y:.1f} % (%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>`;
    return lineWithBand(name, setStyle(place), depths, curve.per_relaxed, curve.per_relaxed_low, curve.per_relaxed_high, hover);
  });
  const mark = (x, dash, ink) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: ink, width: 1.5, dash } });
  const shapes = data.thresholds.protocol.filter((value) => value < 0).map((value) => mark(-value, "dot", colour("soft")));
  return draw(byId("threshold-chart"), traces, {
    hovermode: "x unified",
    shapes: [...shapes, mark(-grid[chosen], "solid", colour("accent"))],
    xaxis: { type: "log", title: { text: "unstable below −x THz" }, exponentformat: "power", dtick: 1 },
    yaxis: { title: { text: "stable per relaxed (%)" }, rangemode: "tozero" },
  });
}

function funnelChart(data) {
  const table = data.tables.leaderboard.data;
  const sets = [...table.set].reverse();
  const share = (name) => table[name].map((value, row) => (100 * value) / table.generated[row]).reverse();
  const traces = Object.entries(FATES)
    .filter(([name]) => table[name].some((value) => value > 0))
    .map(([name, fill]) => ({
      type: "bar", orientation: "h", name: name.replaceAll("_", " "), y: sets, x: share(name), customdata: [...table[name]].reverse(),
      marker: { color: fill }, hovertemplate: `%{y}: %{customdata:,} ${name.replaceAll("_", " ")} (%{x:.1f} %)<extra></extra>`,
    }));
  byId("funnel-chart").style.height = `${150 + 34 * sets.length}px`;
  return draw(byId("funnel-chart"), traces, {
    barmode: "stack", bargap: 0.25,
    xaxis: { title: { text: "share of the crystals generated (%)" }, range: [0, 100] },
    yaxis: { type: "category", title: { text: "set" } },
  });
}

function breakdownChart(place, table, by, order) {
  const data = table.data;
  const values = [...new Set(data[by])];
  if (values.every((value) => typeof value === "number")) values.sort((a, b) => a - b);
  const labels = values.map((value) => forPlotly(value));
  const names = data.set ? [...order.filter((name) => data.set.includes(name)), ...(data.set.includes(ALL_SETS) ? [ALL_SETS] : [])] : [ALL_SETS];
  const traces = names.map((name) => {
    const rows = values.map((value) => data[by].findIndex((other, row) => other === value && (!data.set || data.set[row] === name)));
    const rate = (key) => rows.map((row) => (row < 0 || data[key][row] === null ? null : 100 * data[key][row]));
    const [y, low, high] = ["per_relaxed", "per_relaxed_low", "per_relaxed_high"].map(rate);
    return {
      name, mode: "markers", x: labels, y,
      marker: { size: 9, color: name === ALL_SETS ? colour("soft") : setStyle(order.indexOf(name)).color, symbol: name === ALL_SETS ? "diamond" : "circle" },
      error_y: { type: "data", symmetric: false, array: y.map((v, i) => high[i] - v), arrayminus: y.map((v, i) => v - low[i]), thickness: 1.6, width: 4 },
      customdata: rows.map((row) => (row < 0 ? 0 : data.relaxed[row])),
      hovertemplate: "%{fullData.name}, %{x}: %{y:.1f} % of %{customdata:,} relaxed<extra></extra>",
    };
  });
  return draw(place, traces, {
    scattermode: "group", scattergap: 0.3, xaxis: { type: "category", title: { text: forPlotly(table.labels[by]) } },
    yaxis: { title: { text: "stable per relaxed (%)" }, range: [-3, 103] }, showlegend: names.length > 1,
  });
}

// The published rule, the cured interpolation and exact frequencies beside each other.
function rulesChart(place, table, by, set) {
  const rows = table.data.set.flatMap((name, row) => (set === null || name === set ? [row] : []));
  const palette = PALETTES[document.documentElement.dataset.theme];
  const looks = { by_rule: [4, "diamond"], by_cured: [2, "square"], by_exact: [0, "circle"] };
  const traces = Object.entries(looks).map(([rule, [place, symbol]]) => {
    const rate = (key) => rows.map((row) => (table.data[key][row] === null ? null : 100 * table.data[key][row]));
    const [y, low, high] = [rule, `${rule}_low`, `${rule}_high`].map(rate);
    return {
      name: table.labels[rule], mode: "markers", x: rows.map((row) => forPlotly(table.data[by][row])), y, marker: { size: 9, color: palette[place], symbol },
      error_y: { type: "data", symmetric: false, array: y.map((v, i) => high[i] - v), arrayminus: y.map((v, i) => v - low[i]), thickness: 1.6, width: 4 },
      customdata: rows.map((row) => table.data.relaxed[row]),
      hovertemplate: "%{fullData.name}, %{x}: %{y:.1f} % of %{customdata:,} relaxed<extra></extra>",
    };
  });
  return draw(place, traces, {
    scattermode: "group", scattergap: 0.3, xaxis: { type: "category", title: { text: forPlotly(table.labels[by]) } },
    yaxis: { title: { text: "stable per relaxed (%)" }, range: [-3, 103] },
  });
}

function convergenceChart(data) {
  const table = data.tables.convergence.data;
  const traces = data.order.flatMap((name, place) => {
    const rows = table.set.flatMap((other, row) => (other === name ? [row] : []));
    const pick = (key) => rows.map((row) => table[key][row]);
    const hover = `${forPlotly(name)}, first %{x:,}: %{customdata[0]:.1f} to %{customdata[1]:.1f} %<extra></extra>`;
    return lineWithBand(name, setStyle(place), pick("crystals"), pick("per_relaxed"), pick("order_low"), pick("order_high"), hover);
  });
  return draw(byId("convergence-chart"), traces, {
    xaxis: { type: "log", title: { text: "crystals tested" }, dtick: 1 },
    yaxis: { title: { text: "stable per relaxed (%)" }, range: [0, 100] },
  });
}
