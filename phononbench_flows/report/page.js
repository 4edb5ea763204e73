// Puts the page together: first what needs no charts, then the charts.

const state = { kind: "judged", chosen: 0, rank: "per_relaxed" };
let libraries;

function showHead(data) {
  const { judge, overall } = data;
  showUnfinished(data);
  byId("judged-by").textContent =
    `Judged by protocol ${judge.protocol_name} (${judge.protocol_id}) with ${judge.potential}; newest result of ${data.newest.slice(0, 10)}.`;
  const facts = [
    ["generated", count(overall.generated)], ["relaxed", count(overall.relaxed)], ["failed", count(overall.failed)], ["stable", count(overall.stable)],
    ["stable per relaxed", overall.per_relaxed], ["stable per generated", overall.per_generated],
  ];
  byId("overall").replaceChildren(...facts.map(([name, value]) => {
    const key = name.replace("stable ", "").replace(" ", "_");
    const ends = typeof value === "number" && element("small", {}, `${percent(overall[`${key}_low`])} to ${percent(overall[`${key}_high`])}`);
    return element("div", {}, element("dt", {}, name), element("dd", {}, typeof value === "number" ? percent(value) : value ?? "none", ends || null));
  }));
}

// What is still being computed is said wherever a rate is shown.
function showUnfinished(data) {
  const note = data.unfinished_note;
  byId("unfinished").hidden = !note;
  byId("unfinished").textContent = note ?? "";
  for (const id of note ? ["leaderboard", "thresholds", "rules", "funnel", "breakdowns", "elements", "convergence"] : []) {
    byId(id).querySelector("h2").after(element("p", { class: "hint unfinished" }, note));
  }
}

function interval(curve, key, row, largest) {
  const [rate, low, high] = [key, `${key}_low`, `${key}_high`].map((name) => curve[name][row]);
  const bar = element("div", { class: "interval", "aria-hidden": "true" }, element("i"), element("b"));
  bar.firstChild.style.left = ofWidth(low / largest);
  bar.firstChild.style.width = ofWidth((high - low) / largest);
  bar.lastChild.style.left = ofWidth(rate / largest);
  const text = element("span", {}, element("b", {}, percent(rate)), " ", element("small", {}, `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`));
  return element("div", { class: `rate ${key === "per_generated" ? "generated" : ""}` }, bar, text);
}

// Rates by threshold at the chosen kind of q-points; none where nothing was judged.
const judgedAt = (data) => data.thresholds.kinds[state.kind] ?? { curves: {}, turns: [] };

// The sets in the order of the chosen rate at the chosen threshold; those of which nothing was relaxed come last.
function ranking(data) {
  const { curves } = judgedAt(data);
  const rate = (name) => curves[name]?.[state.rank][state.chosen] ?? -1;
  const left = (name) => (data.unfinished[name] ? 1 : 0);
  return [...data.order].sort((a, b) => left(a) - left(b) || rate(b) - rate(a));
}

function showBoard(data) {
  const { curves, turns } = judgedAt(data);
  const table = data.tables.leaderboard.data;
  const { chosen } = state;
  const highest = (key) => Math.max(0.01, ...Object.values(curves).map((curve) => curve[`${key}_high`][chosen] ?? 0));
  const largest = { per_relaxed: highest("per_relaxed"), per_generated: highest("per_generated") };
  const labels = ["", "Set", "Generated", "Relaxed", "Stable", "Stable per relaxed", "Stable per generated"];
  const head = labels.map((label, place) => element("th", { scope: "col", class: place > 1 && place < 5 ? "number" : "" }, label));
  const lines = ranking(data).map((name, place) => {
    const row = table.set.indexOf(name);
    const curve = curves[name];
    const about = ["model", "training_set", "condition"].map((key) => table[key][row]).filter(Boolean).join(", ");
    const rates = ["per_relaxed", "per_generated"].map((key) =>
      element("td", {}, curve && curve[key][chosen] !== null ? interval(curve, key, chosen, largest[key]) : "none"));
    if (state.kind === "verdict") {
      const rule = rateText(...["by_rule", "by_rule_low", "by_rule_high"].map((name) => table[name][row]));
      rates[0].append(element("span", { class: "about" }, `published rule: ${rule}`));
    }
    const numbers = [table.generated[row], table.relaxed[row], curve ? curve.stable[chosen] : 0];
    const pending = data.unfinished[name];
    const left = pending ? element("span", { class: "badge pending" }, `${count(pending)} pending`) : null;
    const cells = [element("td", { class: "rank" }, pending ? "–" : String(place + 1)),
      element("td", {}, name, left && " ", left, about ? element("span", { class: "about" }, about) : null),
      ...numbers.map((value) => element("td", { class: "number" }, count(value))), ...rates];
    cells.forEach((cell, column) => { cell.dataset.label = labels[column]; });
    return element("tr", { "data-set": name }, ...cells);
  });
  byId("board").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
  byId("turns").replaceChildren(...(turns[chosen] ?? []).map((text) => element("p", { class: "warning" }, `The denominator matters: ${text}`)));
}

function showThreshold(data) {
  const slider = byId("threshold");
  if (data.thresholds.grid.length === 0) {
    byId("judging").hidden = byId("thresholds").hidden = true;
    showBoard(data);
    return;
  }
  state.chosen = Number(slider.value);
  slider.disabled = state.kind === "verdict";  // verdicts by exact frequencies know no threshold
  const text = thz(data.thresholds.grid[state.chosen]);
  byId("threshold-value").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  showBoard(data);
  if (window.Plotly) thresholdChart(data, state.kind, state.chosen);
}

function listenToBoard(data) {
  const { grid, protocol, kinds } = data.thresholds;
  state.kind = Object.keys(kinds)[0] ?? state.kind;
  const slider = byId("threshold");
  slider.max = grid.length - 1;
  slider.value = protocol.length ? grid.indexOf(protocol[0]) : 0;
  byId("threshold-marks").replaceChildren(...protocol.map((value) => element("option", { value: grid.indexOf(value), label: thz(value) })));
  fillSelect(byId("q-points"), Object.keys(kinds).map((kind) => [kind, Q_NAMES[kind]]));
  slider.addEventListener("input", () => showThreshold(data));
  byId("q-points").addEventListener("input", (event) => { state.kind = event.target.value; showThreshold(data); });
  for (const radio of document.getElementsByName("rank")) {
    radio.addEventListener("input", () => { state.rank = radio.value; showBoard(data); });
  }
  showThreshold(data);
}

function showTables(data) {
  const { tables } = data;
  const into = (id, ...names) => {
    const found = names.filter((name) => tables[name]);
    if (found.length) byId(id).append(...found.map((name) => plainTable(tables[name])));
    else byId(id).hidden = true;
  };
  into("comparison", "comparison");
  into("about-sets", "architectures", "generation_speed");
  into("samples", "samples");
  into("funnel-table", "leaderboard");
  into("failure-table", "failures");
  byId("failures").hidden = !tables.failures;
}

function showPeriodicTable(data, crystals) {
  const table = data.tables.elements.data;
  const [name, measure] = [byId("element-set").value, byId("element-measure").value];
  const rows = new Map(table.set.flatMap((set, row) => (set === name ? [[table.element[row], row]] : [])));
  const value = (row) => table[measure][row];
  const most = Math.max(...[...rows.values()].map(value), measure === "stable" ? 1 : 0.01);
  const share = (x) => (measure === "stable" ? Math.log1p(x) / Math.log1p(most) : x / most);
  byId("periodic").replaceChildren(...Object.entries(data.elements).map(([symbol, look]) => {
    const row = rows.get(symbol);
    const text = row === undefined ? "" : measure === "stable" ? count(value(row)) : percent(value(row));
    const cell = element(row === undefined ? "span" : "button", {}, element("strong", {}, symbol), text);
    cell.style.gridArea = `${look.row} / ${look.column}`;
    if (row === undefined) return cell;
    const said = `${symbol}: ${count(table.stable[row])} stable of ${count(table.relaxed[row])} relaxed, ${cellText(data.tables.elements, "per_relaxed", row)}`;
    cell.title = said;
    cell.setAttribute("aria-label", said);
    cell.style.setProperty("--share", ofWidth(share(value(row))));
    cell.classList.toggle("deep", share(value(row)) > 0.75);
    cell.addEventListener("click", () => crystals.showElement(symbol));
    return cell;
  }));
  const ends = measure === "stable" ? ["0", count(most)] : ["0 %", percent(most)];
  byId("element-scale").replaceChildren(ends[0], element("i"), ends[1]);
}

function listenToElements(data, crystals) {
  if (!data.tables.elements) {
    byId("elements").hidden = true;
    return;
  }
  const names = data.order.length > 1 ? [ALL_SETS, ...data.order] : data.order;
  fillSelect(byId("element-set"), names.map((name) => [name, name]));
  for (const id of ["element-set", "element-measure"]) byId(id).addEventListener("input", () => showPeriodicTable(data, crystals));
  showPeriodicTable(data, crystals);
}

// A place for a chart, with its numbers.
function breakdown(name, table) {
  const numbers = element("details", {}, element("summary", {}, "Numbers"), plainTable(table));
  const chart = element("div", { class: "chart", id: `chart-${name}`, role: "img", "aria-label": table.title });
  return element("div", { class: "breakdown" }, element("h3", {}, table.title), chart, numbers);
}

function listBreakdowns(data) {
  const made = Object.keys(data.breakdowns).map((name) => breakdown(name, data.tables[name]));
  byId("breakdown-list").replaceChildren(...made);
  byId("breakdowns").hidden = made.length === 0;
}

function listRules(data) {
  byId("rules").hidden = !data.exact;
  if (!data.exact) return;
  const made = Object.keys(data.rules).map((name) => breakdown(name, data.tables[name]));
  byId("rules-list").replaceChildren(plainTable(data.tables.rules), ...made);
  byId("rules-disputed").hidden = !data.tables.disputed;
  if (data.tables.disputed) byId("rules-disputed").append(plainTable(data.tables.disputed));
}

function drawRules(data) {
  if (!data.exact) return;
  rulesChart(byId("rules-chart"), data.tables.rules, "set", null);
  const sets = data.tables.rules.data.set;
  const shown = sets.includes(ALL_SETS) ? ALL_SETS : sets[0];
  for (const [name, by] of Object.entries(data.rules)) rulesChart(byId(`chart-${name}`), data.tables[name], by, shown);
}

function drawCharts(data) {
  drawRules(data);
  if (data.thresholds.grid.length) thresholdChart(data, state.kind, state.chosen);
  funnelChart(data);
  for (const [name, by] of Object.entries(data.breakdowns)) breakdownChart(byId(`chart-${name}`), data.tables[name], by, data.order);
  byId("convergence").hidden = !data.tables.convergence;
  if (data.tables.convergence) convergenceChart(data);
}

function listenToTheme(data) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const wear = (theme) => {
    document.documentElement.dataset.theme = theme;
    if (window.Plotly) drawCharts(data);
  };
  wear(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => wear(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => wear(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

async function start() {
  const data = JSON.parse(new TextDecoder().decode(await inflate("data")));
  data.order = data.tables.leaderboard.data.set;
  listenToTheme(data);
  showHead(data);
  listenToBoard(data);
  showTables(data);
  showCards(data.cards);
  listBreakdowns(data);
  listRules(data);
  const crystals = new Crystals(data);
  listenToElements(data, crystals);
  document.documentElement.dataset.ready = "tables";
  // What can be read already is painted before the browser is busy with the charts.
  await new Promise((resolve) => setTimeout(resolve, 50));
  libraries = Promise.all([loadLibrary("plotly"), loadLibrary("viewer")]);
  await libraries;
  drawCharts(data);
  listenToPaper(() => {
    drawCharts(data);
    crystals.redrawBands?.();
  });
  followAddress(crystals);
  document.documentElement.dataset.ready = "charts";
}

start().catch((error) => {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
