// What a reader takes along: files of a crystal, the table as CSV, and addresses that lead back.

const SAVED_FILTERS = { search: "search", set: "filter-set", status: "filter-status", system: "filter-system", published: "filter-published", element: "filter-element" };

function save(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Text that a spreadsheet would run gets an apostrophe in front; numbers are what they are.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  const parts = [value].flat();
  const isNumeric = parts.every((part) => typeof part === "number");
  const text = isNumeric ? parts.join(" ") : parts.join(" ").replace(/^[=+\-@\t\r\n]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function tableCsv(crystals) {
  const names = Object.keys(crystals.columns).filter((name) => !["size", "looks"].includes(name));
  const cell = (name, row) => csvCell(crystals.columns[name][row]);
  return [names.join(","), ...crystals.rows.map((row) => names.map((name) => cell(name, row)).join(","))].join("\n") + "\n";
}

function lengthsAndAngles(vectors) {
  const length = vectors.map((v) => Math.hypot(...v));
  const angle = (i, j) => (180 / Math.PI) * Math.acos(vectors[i].reduce((sum, x, k) => sum + x * vectors[j][k], 0) / (length[i] * length[j]));
  return { length, angle: [angle(1, 2), angle(0, 2), angle(0, 1)] };
}

const ofSymbols = (structure, elements) => {
  const symbols = new Map(Object.entries(elements).map(([symbol, look]) => [look.number, symbol]));
  return structure.sites.map((site) => ({ symbol: symbols.get(site.number), at: site.at }));
};

// Every atom by itself, in P1.
function cifText(name, structure, elements) {
  const { length, angle } = lengthsAndAngles(structure.vectors);
  const head = ["a", "b", "c"].map((axis, i) => `_cell_length_${axis} ${length[i].toFixed(8)}`);
  const angles = ["alpha", "beta", "gamma"].map((axis, i) => `_cell_angle_${axis} ${angle[i].toFixed(8)}`);
  const atoms = ofSymbols(structure, elements).map(({ symbol, at }, i) => `${symbol} ${symbol}${i} ${at.map((x) => x.toFixed(9)).join(" ")} 1`);
  return [
    `data_${name.replace(/[^A-Za-z0-9._-]/g, "_")}`, "_symmetry_space_group_name_H-M 'P 1'", ...head, ...angles, "_symmetry_Int_Tables_number 1",
    "loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'",
    "loop_", "_atom_site_type_symbol", "_atom_site_label", "_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z", "_atom_site_occupancy",
    ...atoms, "",
  ].join("\n");
}

function poscarText(name, structure, elements) {
  const atoms = ofSymbols(structure, elements);
  const kinds = [...new Set(atoms.map((atom) => atom.symbol))];
  const sorted = kinds.map((kind) => atoms.filter((atom) => atom.symbol === kind));
  return [
    name, "1.0", ...structure.vectors.map((v) => v.map((x) => x.toFixed(10)).join(" ")), kinds.join(" "), sorted.map((group) => group.length).join(" "),
    "direct", ...sorted.flat().map(({ symbol, at }) => `${at.map((x) => x.toFixed(9)).join(" ")} ${symbol}`), "",
  ].join("\n");
}

async function saveOpened(crystals, suffix, text) {
  const row = crystals.opened;
  const buffer = await inflateOnce("structures");
  const structure = readStructure(buffer, crystals.structureAt[row], crystals.columns.size[row]);
  const name = crystals.columns.id[row];
  save(`${name}${suffix}`, text(name, structure, crystals.data.elements));
}

function listenToSaving(crystals) {
  byId("save-csv").addEventListener("click", () => save("crystals.csv", tableCsv(crystals)));
  byId("save-cif").addEventListener("click", () => saveOpened(crystals, ".cif", cifText));
  byId("save-poscar").addEventListener("click", () => saveOpened(crystals, ".vasp", poscarText));
}

// Filters and the opened crystal, as the part of the address behind "#".
function placeOf(crystals, opened) {
  const said = new URLSearchParams();
  for (const [name, id] of Object.entries(SAVED_FILTERS)) if (byId(id).value) said.set(name, byId(id).value);
  if (opened !== null && opened !== undefined) said.set("crystal", crystals.columns.id[opened]);
  const text = said.toString();
  return text ? `#crystals?${text}` : "#crystals";
}

function keepInAddress(crystals) {
  byId("filters-link").href = placeOf(crystals, null);
  const opened = crystals.opened ?? null;
  byId("permalink").href = placeOf(crystals, opened);
  const saves = opened !== null && crystals.columns.size[opened] > 0;
  for (const id of ["save-cif", "save-poscar"]) byId(id).disabled = !saves;
  // Nothing is written before what the address says has been read.
  if (!crystals.follows || placeOf(crystals, opened) === location.hash) return;
  if (opened === null && location.hash.startsWith("#crystals") === false && placeOf(crystals, null) === "#crystals") return;
  history.replaceState(null, "", placeOf(crystals, opened));
}

function followAddress(crystals) {
  const read = () => {
    const [section, text] = location.hash.split("?");
    if (section !== "#crystals" || text === undefined) return;
    const said = new URLSearchParams(text);
    for (const [name, id] of Object.entries(SAVED_FILTERS)) byId(id).value = said.get(name) ?? "";
    crystals.page = 0;
    crystals.follows = false;
    crystals.show();
    crystals.follows = true;
    const row = said.has("crystal") ? crystals.columns.id.indexOf(said.get("crystal")) : -1;
    if (row >= 0) crystals.open(row);
    else byId("crystals").scrollIntoView();
  };
  read();
  crystals.follows = true;
  addEventListener("hashchange", read);
}
