"use strict";
// Hands in a file, and tells what becomes of it.

const POLL_MS = { waiting: 800, running: 800, handed_out: 3000 }; // by the states that end
let chosen = null;
let largest = Infinity; // bytes

function choose(file) {
  chosen = file && file.size <= largest ? file : null;
  byId("send").disabled = chosen === null;
  byId("said").textContent = file ? `${file.name}, ${count(file.size)} bytes${chosen ? "" : ": more than is taken"}` : "";
}

async function send() {
  byId("send").disabled = true;
  byId("said").textContent = "Uploading …";
  try {
    const job = await ask(`/api/uploads?name=${encodeURIComponent(chosen.name)}`, { method: "POST", body: chosen });
    location.assign(`/uploads/${job.id}`);
  } catch (error) {
    byId("said").textContent = error.message;
    byId("send").disabled = false;
  }
}

const STATES = {
  waiting: (job) => (job.ahead ? `It waits; ${count(job.ahead)} are before it.` : "It waits for its turn."),
  running: () => "It is being judged.",
  handed_out: (job) => (job.crystals.some((crystal) => crystal.computing) ? "The cluster is judging it." : "It waits for a worker of the cluster."),
  done: (job) => (job.crystals.length === job.most_crystals ? `Done. Of a file, at most ${count(job.most_crystals)} crystals are taken.` : "Done."),
  failed: (job) => job.detail,
};

function crystalLine(crystal) {
  const name = crystal.formula_pretty ? formula(crystal.formula_pretty) : [crystal.id];
  const same = crystal.duplicate_of && element("a", { href: crystalAddress(`${crystal.duplicate_of}@${crystal.key.split("@").at(-1)}`) }, crystal.duplicate_of);
  const said = crystal.why ?? crystal.detail ?? (crystal.status !== "pending" ? "" : crystal.computing ? `computing, ${crystal.stage} done` : "waiting");
  return element("div", { class: "route" },
    element("h3", {}, element("a", { href: crystalAddress(crystal.key) }, ...name), " ", badge(crystal.status)),
    element("p", {}, said, same ? "It repeats " : null, same || null));
}

async function follow(id) {
  const job = await ask(`/api/uploads/${encodeURIComponent(id)}`);
  byId("job").hidden = false;
  byId("job-title").textContent = job.name;
  byId("job-text").textContent = STATES[job.state](job);
  byId("job-crystals").replaceChildren(...job.crystals.map(crystalLine));
  document.documentElement.dataset.ready = job.state;
  if (job.state in POLL_MS) setTimeout(() => follow(id).catch(complain), POLL_MS[job.state]);
}

async function showLatest() {
  const jobs = await ask("/api/uploads");
  byId("latest").hidden = jobs.length === 0;
  fillTable(byId("latest-table"), [
    { label: "File", cell: (job) => element("a", { href: `/uploads/${job.id}` }, job.name) },
    { label: "State", cell: (job) => job.state.replace("_", " ") },
    { label: "Handed in", cell: (job) => job.submitted.slice(0, 16).replace("T", " ") },
  ], jobs);
}

async function start() {
  const { uploads } = await ask("/api/status");
  if (uploads === null) {
    byId("limits").textContent = "This server takes no uploads: it was started without --potential.";
    byId("drop").hidden = true;
    document.documentElement.dataset.ready = "closed";
    return;
  }
  largest = uploads.bytes;
  byId("limits").textContent =
    `Judged by ${uploads.potential} under the protocol ${uploads.protocol}. At most ${uploads.bytes / 1e6} MB, ` +
    `${count(uploads.crystals)} crystals in a file, ${count(uploads.atoms)} atoms in a cell` + (uploads.cluster ? "; a cluster computes." : `, and ${uploads.minutes} minutes.`);
  byId("file").addEventListener("change", () => choose(byId("file").files[0]));
  byId("send").addEventListener("click", send);
  const drop = byId("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); choose(event.dataTransfer.files[0]); });
  const id = location.pathname.match(/^\/uploads\/([^/]+)$/)?.[1];
  document.documentElement.dataset.ready = "open";
  if (id) await follow(id);
  await showLatest();
}

addEventListener("DOMContentLoaded", () => start().catch(complain));
