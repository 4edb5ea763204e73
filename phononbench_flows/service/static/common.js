"use strict";
// What all pages share: asking the API, the theme, and notices.

const byId = (id) => document.getElementById(id);

async function ask(address, options = {}) {
  const answer = await fetch(address, options);
  const found = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(found.detail ?? `The server answered ${answer.status}.`);
  return found;
}

function complain(error) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = error.message;
}

function notice(text) {
  byId("notice").hidden = !text;
  byId("notice").textContent = text ?? "";
}

const crystalAddress = (key) => `/crystals/${encodeURIComponent(key).replaceAll("%40", "@")}`;

// Rows of a table whose cells know what they are: on a phone each row is a card.
function fillTable(table, columns, rows) {
  const head = columns.map(({ label, number }) => element("th", { scope: "col", class: number ? "number" : "" }, label));
  const lines = rows.map((row) =>
    element("tr", {}, ...columns.map(({ label, number, cell }) => {
      const made = element("td", { class: number ? "number" : "" }, cell(row));
      made.dataset.label = typeof label === "string" ? label : "";
      return made;
    })),
  );
  table.tHead.replaceChildren(element("tr", {}, ...head));
  table.tBodies[0].replaceChildren(...lines);
}

const badge = (status) => element("span", { class: `badge ${status}` }, status);

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* private windows keep nothing */ }
  document.dispatchEvent(new Event("theme"));
}

function startTheme() {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* as above */ }
  wear(kept === "dark" || kept === "light" ? kept : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => wear(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const here = location.pathname === "/" ? "/" : `/${location.pathname.split("/")[1]}`;
  for (const link of document.querySelectorAll(".bar nav a")) {
    const there = link.getAttribute("href");
    if (there === here || (there === "/" && here === "/crystals") || (there === "/upload" && here === "/uploads")) link.setAttribute("aria-current", "page");
  }
}

addEventListener("DOMContentLoaded", startTheme);
