"use strict";
// The page of a crystal.

const FILES = [["csv", "CSV"], ["json", "JSON"], ["cif", "CIF"], ["poscar", "POSCAR"]];
const PHONON_FILES = [["phonopy", "phonopy.yaml"], ["band", "band.yaml"]];
const key = decodeURIComponent(location.pathname.split("/").at(-1));
const base = `/api/crystals/${encodeURIComponent(key)}`;
let elements;
let structureView;
let modeView;
let drawn = null;

const point = (q) => `(${q.map((x) => minus(String(Number(x.toFixed(4)) + 0))).join(", ")})`;
const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function showHead(found) {
  const { document: doc } = found;
  byId("title").replaceChildren(...formula(doc.formula_pretty ?? "unknown"), " ", element("span", { class: "name" }, doc.id), " ", badge(doc.status));
  document.title = `${doc.formula_pretty ?? doc.id}, ${doc.status} · PhononBench`;
  const pending = `It is not judged yet: ${doc.stage} is done.`;
  byId("verdict").textContent = found.why ?? doc.detail ?? (doc.status === "pending" ? pending : "");
  byId("published").textContent = found.published ? `Published rule: ${found.published}.` : "";
  notice(doc.status === "pending" && "This crystal is still being computed: nothing here is a verdict.");
  const structure = found.structure ? FILES : FILES.slice(0, 2);
  const files = [...structure, ...(found.has_phonons ? PHONON_FILES : [])];
  byId("files").replaceChildren("Download:", ...files.map(([form, label]) => element("a", { href: `${base}/files/${form}`, download: "" }, label)));
}

function showFacts({ document: doc, notes, lowest }) {
  const relaxed = doc.symmetry_relaxed;
  const elastic = doc.evidence.elastic;
  const modulus = (doc.results.elasticity?.bulk_modulus ?? {}).vrh;
  const facts = [
    ["set", element("a", { href: `/?set=${encodeURIComponent(doc.set)}` }, doc.set)],
    ["judged by", `${doc.potential.name}, protocol ${doc.protocol_name} (${doc.protocol_id})`],
    ["lowest frequency", lowest && `${precise(lowest.frequency)} THz at q = ${point(lowest.q)}, ${lowest.exact ? "exact" : "interpolated"}`],
    ["noise", doc.evidence.noise === null ? null : `${Number(doc.evidence.noise.toPrecision(3))} THz`],
    ["softest elastic wave", elastic && `${minus(String(Number(elastic.lowest.toPrecision(4))))} GPa`],
    ["bulk modulus", modulus === undefined || modulus === null ? null : `${Number(modulus.toPrecision(4))} GPa`],
    ["space group", relaxed?.symbol && `${relaxed.symbol} (${relaxed.number}), ${relaxed.crystal_system?.toLowerCase()}`],
    ["atoms in the cell", doc.nsites === null ? null : String(doc.nsites)],
    ["energy", doc.relaxation && `${minus(doc.relaxation.energy_per_atom.toFixed(4))} eV per atom`],
    ["change of volume", doc.relaxation && minus(percent(doc.relaxation.volume_change))],
    ["reason", doc.reason],
    ["repeats", doc.duplicate_of && element("a", { href: crystalAddress(`${doc.duplicate_of}@${doc.protocol_id}`) }, doc.duplicate_of)],
    ["known as", doc.known_as],
    ["the same when relaxed", doc.same_as && element("a", { href: crystalAddress(`${doc.same_as}@${doc.protocol_id}`) }, doc.same_as)],
    ["asked of the generator", Object.entries(doc.condition).map(([name, value]) => `${name} = ${value}`).join(", ") || null],
    ["others say", Object.entries(doc.labels).map(([who, label]) => `${who}: ${label}`).join(", ") || null],
    ["notes", notes.join(" ") || null],
    ["source", doc.origin.source],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function showLooks({ document: doc }) {
  const looks = [...doc.evidence.exact].sort((a, b) => a.frequency - b.frequency);
  if (!looks.length) return;
  const table = element("table", { class: "stack" }, element("thead"), element("tbody"));
  byId("looks").replaceChildren(element("h3", {}, "Exact frequencies"), element("div", { class: "scroll" }, table));
  fillTable(table, [
    { label: "Point", cell: (look) => look.label ?? "" },
    { label: "q", cell: (look) => point(look.q) },
    { label: "Interpolated (THz)", number: true, cell: (look) => (look.interpolated === null ? "" : precise(look.interpolated)) },
    { label: "Exact (THz)", number: true, cell: (look) => precise(look.frequency) },
    { label: "Cell (atoms)", number: true, cell: (look) => String(look.natoms) },
    { label: "Motion", cell: (look) => showModeButton(look.q) },
  ], looks);
}

function showModeButton(q) {
  if (byId("mode").dataset.none) return "";
  const button = element("button", { type: "button", "aria-label": `Show the lowest mode at q = ${point(q)}` }, "show");
  button.addEventListener("click", () => showMode(q, 0, true).catch(complain));
  return button;
}

function listOf(rows) {
  const table = element("table", { class: "stack" }, element("thead"), element("tbody"));
  fillTable(table, [
    { label: "Crystal", cell: (row) => element("a", { href: crystalAddress(row.key) }, row.id ?? `${row.potential}, ${row.protocol}`) },
    { label: "Status", cell: (row) => badge(row.status) },
    { label: "Lowest (THz)", number: true, cell: (row) => (row.lowest === null ? "" : precise(row.lowest)) },
  ], rows);
  return table;
}

function showFamily({ family, others }) {
  const parts = [];
  if (family.parent) {
    const along = family.mode ? `, along its mode of ${precise(family.mode.frequency)} THz at q = ${point(family.mode.q)}, by ${family.mode.amplitude} Å` : "";
    parts.push(element("p", {}, "It was made from ", element("a", { href: crystalAddress(family.parent) }, family.parent.split("@")[0]), along, "."));
  }
  if (family.children.length) parts.push(element("p", {}, `${count(family.n_children)} were made from it:`), element("div", { class: "scroll" }, listOf(family.children)));
  byId("family").hidden = parts.length === 0;
  byId("family-list").replaceChildren(...parts);
  byId("others").hidden = others.length === 0;
  byId("others-list").replaceChildren(...(others.length ? [listOf(others)] : []));
}

function showStructure(found) {
  if (found.structure === null) {
    byId("structure").hidden = true;
    byId("structure-note").textContent = "There is no ordered structure to show.";
    return;
  }
  structureView = new CrystalView(byId("structure"), elements);
  const symbols = structureView.show(found.structure);
  byId("structure-note").replaceChildren(...elementLegend(symbols, elements), found.is_relaxed ? "relaxed" : "as read");
}

async function showBands(found) {
  if (!found.has_phonons) {
    byId("bands-chart").hidden = true;
    byId("bands-note").textContent = found.why ? "Nothing else was computed: there are no bands." : "It has no phonons.";
    return;
  }
  const bands = await ask(`${base}/phonons`);
  bands.imaginary = found.document.status === "unstable";
  drawn = () => bandsChart(byId("bands-chart"), bands, found.threshold, bands.dos);
  await drawn();
  byId("bands-note").textContent = "Imaginary branches are red and negative; dashed: what counts as imaginary. A click on a band shows its motion.";
  byId("bands-chart").on("plotly_click", ({ points: [at] }) => {
    if (at.data.xaxis === "x2") return;
    const near = nearestOnBands(bands, at.x, at.y);
    showMode(bands.q[near.point], near.branch, true).catch(complain);
  });
}

async function showMode(q, branch, scroll = false) {
  const asked = q === null ? "" : `?q=${q.join(",")}&branch=${branch}`;
  const gamma = q !== null && q.every((x) => Math.abs(x - Math.round(x)) < 1e-6);
  // At Γ the three motions of all atoms alike are not counted.
  const mode = await ask(`${base}/mode${gamma ? `?q=${q.join(",")}&branch=${Math.max(0, branch - 3)}` : asked}`);
  byId("mode").hidden = false;
  modeView ??= new CrystalView(byId("mode-view"), elements);
  const symbols = modeView.showMode(mode);
  byId("mode-title").textContent = q === null ? "The lowest mode" : "A mode";
  const where = mode.repeats.join(" × ");
  byId("mode-text").textContent =
    `${precise(mode.frequency)} THz${mode.frequency < 0 ? " (imaginary)" : ""} at q = ${point(mode.q)}, in ${where} primitive cells` +
    `${mode.fits ? "." : ", of which the wave takes more."}`;
  byId("mode-legend").replaceChildren(...elementLegend(symbols, elements));
  byId("mode").dataset.frequency = mode.frequency;
  move(!still());
  if (scroll) byId("mode").scrollIntoView({ block: "center" });
}

const amplitude = () => Number(byId("mode-amplitude").value);

function move(on) {
  byId("mode-play").textContent = on ? "Pause" : "Play";
  byId("mode-play").setAttribute("aria-pressed", String(on));
  if (on) modeView.play(amplitude());
  else modeView.stop();
  modeView.arrows(byId("mode-arrows").checked, amplitude());
}

function listen() {
  byId("mode-play").addEventListener("click", () => move(!modeView.moving));
  byId("mode-arrows").addEventListener("change", () => modeView.arrows(byId("mode-arrows").checked, amplitude()));
  byId("mode-amplitude").addEventListener("input", () => move(modeView.moving));
  document.addEventListener("theme", () => drawn?.());
  listenToPaper(() => drawn?.());
}

async function start() {
  listen();
  const [found, looks] = await Promise.all([ask(base), ask("/static/elements.json")]);
  elements = looks;
  if (!found.has_phonons) byId("mode").dataset.none = "yes";
  showHead(found);
  showFacts(found);
  showLooks(found);
  showFamily(found);
  document.documentElement.dataset.ready = "text";
  showStructure(found);
  await showBands(found);
  if (found.has_phonons) await showMode(null, 0);
  document.documentElement.dataset.ready = "all";
}

addEventListener("DOMContentLoaded", () => start().catch(complain));
