// The table of crystals: search, filters, order, pages, and the dialog that a row opens.

const PAGE = 50;
const COLUMNS = [
  ["id", "Crystal"], ["formula", "Formula"], ["set", "Set"], ["status", "Status"], ["published", "Published rule"], ["lowest", "Lowest (THz)"],
  ["natoms", "Atoms"], ["number", "Space group"], ["reason", "Reason"],
];
const LOOKS = ["point", "q", "interpolated (THz)", "exact (THz)", "cell (atoms)"];
const NUMERIC = new Set(["lowest", "natoms"]);
const FILTERS = { set: "filter-set", status: "filter-status", system: "filter-system", published: "filter-published" };

class Crystals {
  constructor(data) {
    this.data = data;
    this.columns = data.crystals;
    this.rules = this.columns.published; // at each threshold of the published rule
    this.columns.published = this.rules.map(([strict]) => strict ?? null);
    this.total = this.columns.id.length;
    this.structureAt = beginnings(this.columns.size);
    const places = Object.keys(data.bands).map(Number).sort((a, b) => a - b);
    const starts = beginnings(places.map((place) => data.bands[place].size));
    this.bandsAt = new Map(places.map((place, i) => [place, starts[i]]));
    this.texts = this.columns.id.map((_, row) => this.searchText(row));
    this.order = { column: "id", down: false };
    this.page = 0;
    this.fillFilters();
    this.listen();
    this.show();
  }

  searchText(row) {
    const names = ["id", "formula", "set", "status", "reason", "detail", "space_group", "system", "duplicate_of", "known_as", "source"];
    const words = names.map((name) => this.columns[name][row] ?? "");
    return [...words, ...this.columns.elements[row]].join("\n").toLowerCase();
  }

  fillFilters() {
    const every = (name) => [...new Set(this.columns[name])].filter((value) => value !== null).sort();
    const options = (values, all) => [["", all], ...values.map((value) => [value, value])];
    fillSelect(byId("filter-set"), options(every("set"), "all sets"));
    fillSelect(byId("filter-status"), options(every("status"), "any"));
    fillSelect(byId("filter-published"), options(every("published"), "any"));
    fillSelect(byId("filter-system"), options(every("system"), "any"));
    fillSelect(byId("filter-element"), options([...new Set(this.columns.elements.flat())].sort(), "any"));
    const head = COLUMNS.map(([name, label]) => {
      const button = element("button", { type: "button" }, label);
      button.addEventListener("click", () => this.sortBy(name));
      return element("th", { scope: "col", id: `column-${name}`, class: NUMERIC.has(name) ? "number" : "" }, button);
    });
    byId("crystal-table").tHead.replaceChildren(element("tr", {}, ...head));
  }

  listen() {
    for (const id of ["search", ...Object.values(FILTERS), "filter-element", "filter-bands"]) {
      byId(id).addEventListener("input", () => { this.page = 0; this.show(); });
    }
    byId("previous-page").addEventListener("click", () => this.turn(-1));
    byId("next-page").addEventListener("click", () => this.turn(1));
    byId("detail-close").addEventListener("click", () => byId("detail").close());
    byId("detail-previous").addEventListener("click", () => this.step(-1));
    byId("detail-next").addEventListener("click", () => this.step(1));
    byId("detail").addEventListener("close", () => this.closed());
    listenToSaving(this);
  }

  closed() {
    Plotly.purge(byId("bands-chart"));
    this.view?.dispose();
    this.view = this.opened = this.redrawBands = null;
    keepInAddress(this);
  }

  turn(by) {
    this.page += by;
    this.show();
  }

  sortBy(column) {
    this.order = { column, down: this.order.column === column && !this.order.down };
    this.page = 0;
    this.show();
  }

  showElement(symbol) {
    byId("filter-element").value = symbol;
    this.page = 0;
    this.show();
    byId("crystals").scrollIntoView();
  }

  // Rows that pass the filters, in order; those without a value come last.
  found() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const exact = Object.entries(FILTERS).map(([name, id]) => [this.columns[name], byId(id).value]).filter(([, value]) => value);
    const symbol = byId("filter-element").value;
    const rows = [];
    for (let row = 0; row < this.total; row++) {
      if (!exact.every(([column, value]) => column[row] === value)) continue;
      if (symbol && !this.columns.elements[row].includes(symbol)) continue;
      if (byId("filter-bands").checked && !this.bandsAt.has(row)) continue;
      if (words.every((word) => this.texts[row].includes(word))) rows.push(row);
    }
    const values = this.columns[this.order.column];
    const sign = this.order.down ? -1 : 1;
    const compare = (a, b) => (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
    return rows.sort((a, b) => (values[a] === null) - (values[b] === null) || (values[a] === null ? 0 : sign * compare(values[a], values[b])));
  }

  show() {
    this.rows = this.found();
    const pages = Math.max(1, Math.ceil(this.rows.length / PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const first = this.page * PAGE;
    const shown = this.rows.slice(first, first + PAGE);
    byId("crystal-table").tBodies[0].replaceChildren(...shown.map((row) => this.line(row)));
    const range = shown.length ? `${count(first + 1)}–${count(first + shown.length)} of ${count(this.rows.length)}` : "none";
    byId("page-text").textContent = this.rows.length === this.total ? range : `${range} (${count(this.total)} in all)`;
    byId("previous-page").disabled = this.page === 0;
    byId("next-page").disabled = this.page === pages - 1;
    keepInAddress(this);
    for (const [name] of COLUMNS) {
      const heading = byId(`column-${name}`);
      if (name === this.order.column) heading.setAttribute("aria-sort", this.order.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
  }

  line(row) {
    const value = (name) => this.columns[name][row];
    const cells = {
      id: element("button", { type: "button" }, value("id")),
      formula: element("span", {}, ...formula(value("formula") ?? "")),
      status: element("span", { class: `badge ${value("status")}` }, value("status")),
      lowest: value("lowest") === null ? "" : precise(value("lowest")),
      number: value("number") === null ? "" : `${value("space_group")} (${value("number")})`,
    };
    const made = COLUMNS.map(([name, label]) => {
      const cell = element("td", { class: NUMERIC.has(name) ? "number" : "" }, cells[name] ?? value(name) ?? "");
      cell.dataset.label = label;
      return cell;
    });
    const line = element("tr", {}, ...made);
    line.addEventListener("click", () => this.open(row));
    return line;
  }

  step(by) {
    const place = this.rows.indexOf(this.opened) + by;
    if (place >= 0 && place < this.rows.length) this.open(this.rows[place]);
  }

  async open(row) {
    this.opened = row;
    const value = (name) => this.columns[name][row];
    const badge = element("span", { class: `badge ${value("status")}` }, value("status"));
    byId("detail-title").replaceChildren(...formula(value("formula") ?? "unknown"), " ", element("span", { class: "name" }, value("id")), " ", badge);
    const place = this.rows.indexOf(row);
    byId("detail-previous").disabled = place <= 0;
    byId("detail-next").disabled = place < 0 || place === this.rows.length - 1;
    byId("looks").replaceChildren(...this.looks(row));
    byId("facts").replaceChildren(...this.facts(row).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
    if (!byId("detail").open) byId("detail").showModal();
    keepInAddress(this);
    await libraries;
    await Promise.all([this.drawBands(row), this.drawStructure(row)]);
  }

  facts(row) {
    const value = (name) => this.columns[name][row];
    const frequency = (name) => (value(name) === null ? null : `${precise(value(name))} THz`);
    const q = value("q") && ` at q = (${value("q").map((x) => minus(String(Number(x.toFixed(3))))).join(", ")})`;
    const [strict, lenient] = this.rules[row];
    return [
      ["set", value("set")], ...this.exactFacts(row),
      ["published rule", strict === undefined ? null : `${strict} at −0.001 THz, ${lenient} at −0.1 THz, on the interpolated path`],
      ["reason", value("reason")], ["detail", value("detail")],
      ["duplicate of", value("duplicate_of")], ["known as", value("known_as")],
      [this.data.exact ? "lowest exact frequency" : "lowest frequency", value("lowest") === null ? null : frequency("lowest") + (q ?? "")],
      ["on the path", frequency("path")], ["at commensurate q-points", frequency("commensurate")], ["on the mesh", frequency("mesh")],
      ["space group", value("number") === null ? null : `${value("space_group")} (${value("number")}), ${value("system").toLowerCase()}`],
      ["atoms in the cell", value("natoms")],
      ["energy", value("energy") === null ? null : `${minus(value("energy").toFixed(4))} eV per atom`],
      ["source", value("source")],
    ].filter(([, text]) => text !== null).map(([name, text]) => [name, String(text)]);
  }

  // What is known where exact frequencies decide.
  exactFacts(row) {
    if (!this.data.exact) return [];
    const said = (name, unit) => (this.columns[name][row] === null ? null : `${minus(String(Number(this.columns[name][row].toPrecision(4))))} ${unit}`);
    return [
      ["verdict", this.columns.why[row]], ["lowest, cured interpolation", said("cured", "THz")],
      ["noise", said("noise", "THz")], ["softest elastic wave", said("wave", "GPa")],
      ["bulk modulus", said("bulk", "GPa")], ["shear modulus", said("shear", "GPa")],
    ];
  }

  looks(row) {
    const found = this.data.exact ? this.columns.looks[row] : [];
    if (found.length === 0) return [];
    const point = (q) => `(${q.map((x) => minus(String(Number(x.toFixed(4))))).join(", ")})`;
    const lines = found.map(([label, q, before, exact, atoms]) => [label, point(q), before === null ? "" : precise(before), precise(exact), String(atoms)]);
    const cells = (tag, texts) => element("tr", {}, ...texts.map((text, place) => element(tag, { class: place > 1 ? "number" : "" }, text)));
    return [element("h3", {}, "Exact frequencies"), element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, cells("th", LOOKS)), element("tbody", {}, ...lines.map((line) => cells("td", line)))))];
  }

  async drawBands(row) {
    const [chart, note] = [byId("bands-chart"), byId("bands-note")];
    chart.hidden = !this.bandsAt.has(row);
    this.redrawBands = null;
    if (chart.hidden) {
      const judged = this.columns.path[row] !== null;
      note.textContent = judged
        ? `Its band structure is not among the ${count(this.bandsAt.size)} in this page. It is drawn by: phononbench show ${this.columns.id[row]}`
        : `It has no phonons: ${this.columns.status[row]}.`;
      return;
    }
    const buffer = await inflateOnce("bands");
    if (row !== this.opened) return;
    const [threshold] = this.data.thresholds.protocol;
    const [bands, densities] = [readBands(buffer, this.bandsAt.get(row), this.data.bands[row]), readDensities(this.data.bands[row].dos)];
    this.redrawBands = () => bandsChart(chart, bands, threshold, densities);
    await this.redrawBands();
    note.textContent = `Imaginary branches are red and negative; dashed: the threshold, ${thz(threshold)}. Thinned out and rounded for the screen.`;
  }

  async drawStructure(row) {
    const [chart, note] = [byId("structure-chart"), byId("structure-note")];
    chart.hidden = this.columns.size[row] === 0;
    if (chart.hidden) {
      note.textContent = "There is no ordered structure to show.";
      return;
    }
    const buffer = await inflateOnce("structures");
    if (row !== this.opened) return;
    this.view?.dispose();
    this.view = new CrystalView(chart, this.data.elements);
    const symbols = this.view.show(readStructure(buffer, this.structureAt[row], this.columns.size[row]));
    note.replaceChildren(...elementLegend(symbols, this.data.elements), this.columns.path[row] === null ? "as read" : "relaxed");
  }
}
