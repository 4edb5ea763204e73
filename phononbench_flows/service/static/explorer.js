"use strict";
// The explorer: filters that stand in the address, and a table that the server gives page by page.

const COLUMNS = [
  { name: "id", label: "Crystal" }, { name: "formula", label: "Formula" }, { name: "set", label: "Set" },
  { name: "status", label: "Status" }, { name: "published", label: "Published rule", unsorted: true }, { name: "lowest", label: "Lowest (THz)", number: true },
  { name: "natoms", label: "Atoms", number: true }, { name: "space_group", label: "Space group" },
  { name: "potential", label: "Potential" }, { name: "reason", label: "Reason" },
];
const SELECTS = { set: "set", status: "status", potential: "potential", protocol: "protocol", crystal_system: "system" };
const form = byId("filters");
// Not form.elements: that is the field of this name.
const fields = Object.fromEntries([...form.querySelectorAll("[name]")].map((field) => [field.name, field]));
let asked = 0;
let waiting;

const CELLS = {
  id: (row) => element("a", { href: crystalAddress(row.key) }, row.id),
  formula: (row) => (row.formula ? element("span", {}, ...formula(row.formula)) : ""),
  status: (row) => badge(row.status),
  lowest: (row) => (row.lowest === null ? "" : precise(row.lowest)),
  space_group: (row) => (row.space_group === null ? "" : `${row.symbol} (${row.space_group})`),
};

// The address is the truth: filters, order and page.
const address = () => new URLSearchParams(location.search);

function go(changes, replace = false) {
  const next = address();
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === false) next.delete(name);
    else next.set(name, value);
  }
  const text = next.toString();
  history[replace ? "replaceState" : "pushState"](null, "", text ? `?${text}` : location.pathname);
  show();
}

function fillForm() {
  const now = address();
  if ([...byId("more").querySelectorAll("[name]")].some(({ name }) => now.has(name))) byId("more").open = true;
  for (const field of Object.values(fields)) {
    if (field.type === "checkbox") field.checked = now.has(field.name);
    else {
      const value = now.get(field.name) ?? "";
      if (field.tagName === "SELECT" && value && ![...field.options].some((option) => option.value === value)) field.append(element("option", { value }, value));
      if (field !== document.activeElement) field.value = value;
    }
  }
}

async function fillChoices() {
  const facets = await ask("/api/facets");
  for (const [name, column] of Object.entries(SELECTS)) {
    const options = Object.entries(facets[column]).map(([value, number]) => [value, `${value} (${count(number)})`]);
    fillSelect(fields[name], [["", "any"], ...options]);
  }
  fillForm();
}

function counted(page) {
  const pending = page.pending ? ` ${count(page.pending)} of them are still being computed and have no verdict yet.` : "";
  const part = page.complete ? "" : ` The store is being read: ${count(page.read)} of ${count(page.total ?? 0)} so far.`;
  byId("counted").textContent = `${count(page.found)} found.${pending}${part}`;
  notice(pending && "Some of these crystals are pending: what is counted here is provisional.");
}

function drawTable(page) {
  const now = address();
  const [sort, down] = [now.get("sort") ?? "id", now.get("down") === "true"];
  fillTable(byId("crystals"), COLUMNS.map(({ name, label, number }) => ({ label, number, cell: CELLS[name] ?? ((row) => row[name] ?? "") })), page.rows);
  [...byId("crystals").tHead.rows[0].cells].forEach((head, place) => {
    const { name, label, unsorted } = COLUMNS[place];
    if (unsorted) return;
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", () => go({ sort: name === "id" && !(sort === "id" && !down) ? "" : name, down: sort === name && !down ? "true" : "", page: "" }));
    head.replaceChildren(button);
    if (name === sort) head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
  const first = (page.page - 1) * page.per_page;
  byId("page-text").textContent = page.rows.length ? `${count(first + 1)}–${count(first + page.rows.length)} of ${count(page.found)}` : "none";
  byId("previous").disabled = page.page === 1;
  byId("next").disabled = first + page.rows.length >= page.found;
  byId("previous").onclick = () => go({ page: page.page > 2 ? page.page - 1 : "" });
  byId("next").onclick = () => go({ page: page.page + 1 });
}

function linkDownloads() {
  const now = address();
  for (const name of ["page", "per_page"]) now.delete(name);
  const text = now.toString();
  for (const link of document.querySelectorAll("#selection a")) {
    link.href = `/api/download/${link.dataset.form}${text ? `?${text}` : ""}`;
    link.setAttribute("download", "");
  }
}

async function show() {
  clearTimeout(waiting);
  const mine = ++asked;
  fillForm();
  linkDownloads();
  try {
    const page = await ask(`/api/crystals${location.search}`);
    if (mine !== asked) return;
    byId("trouble").hidden = true;
    counted(page);
    drawTable(page);
    document.documentElement.dataset.ready = "table";
    // Pending crystals become verdicts, and a store that is being read grows.
    if (!page.complete || page.pending) waiting = setTimeout(refresh, page.complete ? 10000 : 1500);
  } catch (error) {
    if (mine === asked) complain(error);
  }
}

async function refresh() {
  await fillChoices().catch(complain);
  await show();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  history.pushState(null, "", location.pathname);
  show();
});
form.addEventListener("change", ({ target }) => go({ [target.name]: target.type === "checkbox" ? (target.checked ? "true" : "") : target.value.trim(), page: "" }));
fields.q.addEventListener("input", () => go({ q: fields.q.value.trim(), page: "" }, true));
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href).catch(() => prompt("The address of what is shown:", location.href));
  byId("copy").textContent = "Copied";
  setTimeout(() => { byId("copy").textContent = "Copy the address"; }, 1500);
});
addEventListener("popstate", show);
addEventListener("DOMContentLoaded", () => { fillChoices().catch(complain); show(); });
