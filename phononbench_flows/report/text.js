// Everything that comes from a file goes into the page as text, never as markup.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// In a column `set`: all of them together. No set bears this name, since names of sets hold no spaces.
const ALL_SETS = "all sets";

// Plotly reads tags and entities in its texts.
const forPlotly = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const minus = (text) => text.replaceAll("-", "−");
const percent = (rate) => `${(100 * rate).toFixed(1)} %`;
const ofWidth = (share) => `${100 * share}%`;
const count = (number) => number.toLocaleString("en-GB");
const thz = (value) => `${minus(String(Number(value.toPrecision(3))))} THz`;
const precise = (value) => minus(Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(4));

// A formula with its numbers set low.
const formula = (text) => text.split(/(\d+)/).map((part) => (/^\d+$/.test(part) ? element("sub", {}, part) : part));

function rateText(rate, low, high) {
  if (rate === null || rate === undefined) return "none";
  return `${percent(rate)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;
}

const asPercent = /^(share|half_width|difference|order_|sample_|per_relaxed|per_generated|by_)/;

function cellText(table, name, row) {
  const value = table.data[name][row];
  if (value === null) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (asPercent.test(name)) {
    const [low, high] = ["_low", "_high"].map((end) => table.data[name + end]?.[row]);
    return minus(low === undefined || low === null ? percent(value) : rateText(value, low, high));
  }
  return Number.isInteger(value) ? count(value) : minus(String(Number(value.toPrecision(4))));
}

// A table of the report; ends of intervals stand in the cell of their rate.
function plainTable(table) {
  const names = Object.keys(table.data).filter((name) => !(/_(low|high)$/.test(name) && name.replace(/_(low|high)$/, "") in table.data));
  const numeric = (name) => table.data[name].some((value) => typeof value === "number");
  const side = (name) => (numeric(name) ? "number" : "");
  const head = names.map((name) => element("th", { scope: "col", class: side(name) }, table.labels[name]));
  const body = table.data[names[0]].map((_, row) =>
    element("tr", {}, ...names.map((name) => element("td", { class: side(name) }, cellText(table, name, row)))),
  );
  return element(
    "div",
    { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)),
  );
}

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}
