"use strict";
// The sets, each with the rate of its stable crystals; those that are not finished say so.

const FATES = ["stable", "unstable", "undecided", "failed", "rejected", "duplicate", "known"];

function rate(row) {
  if (row.per_relaxed === null) return row.pending ? "none yet" : "none";
  const [value, low, high] = row.per_relaxed;
  const text = element("span", {}, element("b", {}, percent(value)), ` (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}) `);
  if (row.pending) text.append(element("span", { class: "provisional" }, `provisional: ${count(row.pending)} pending`));
  return text;
}

async function show() {
  const rows = await ask("/api/sets");
  const link = (row) => element("a", { href: `/?set=${encodeURIComponent(row.set)}&protocol=${encodeURIComponent(row.protocol_id)}` }, row.set);
  const total = (row) => Object.entries(row.counts).reduce((sum, [status, number]) => sum + (status === "gone" ? 0 : number), 0);
  fillTable(byId("sets"), [
    { label: "Set", cell: link },
    { label: "Protocol", cell: (row) => row.protocol },
    { label: "Potential", cell: (row) => row.potential },
    { label: "Crystals", number: true, cell: (row) => count(total(row)) },
    { label: "Pending", number: true, cell: (row) => count(row.pending) },
    ...FATES.map((name) => ({ label: name, number: true, cell: (row) => count(row.counts[name] ?? 0) })),
    { label: "Stable per relaxed", cell: rate },
  ], rows);
  const unfinished = rows.filter((row) => row.pending).length;
  notice(unfinished && `${unfinished} of ${rows.length} sets are still being computed: their rates are of the crystals judged so far.`);
  document.documentElement.dataset.ready = "sets";
  if (unfinished) setTimeout(() => show().catch(complain), 10000);
}

addEventListener("DOMContentLoaded", () => show().catch(complain));
