"use strict";
// What the page carries is gzip in base64; it is unpacked when it is first needed.

const byId = (id) => document.getElementById(id);

async function inflate(id) {
  if (!("DecompressionStream" in window)) throw new Error("This browser is too old to unpack the page.");
  const text = atob(byId(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const kept = new Map();
function inflateOnce(id) {
  if (!kept.has(id)) kept.set(id, inflate(id));
  return kept.get(id);
}

// Where each of a row of pieces begins.
function beginnings(sizes) {
  let at = 0;
  return sizes.map((size) => (at += size) - size);
}

function readStructure(buffer, at, size) {
  const view = new DataView(buffer, at, size);
  const n = (size - 72) / 13;
  const vectors = [0, 1, 2].map((i) => [0, 1, 2].map((j) => view.getFloat64(8 * (3 * i + j), true)));
  const sites = Array.from({ length: n }, (_, i) => ({
    number: view.getUint8(72 + 12 * n + i),
    at: [0, 1, 2].map((j) => view.getUint32(72 + 4 * (3 * i + j), true) / 4294967296),
  }));
  return { vectors, sites };
}

// The density of states as numbers; null where the page has none.
function readDensities(dos) {
  if (!dos) return null;
  const step = (dos.high - dos.low) / (dos.values.length - 1);
  return { frequencies: dos.values.map((_, i) => dos.low + i * step), densities: dos.values.map((value) => value * dos.scale) };
}

// The bytes hold, branch by branch, the step from each frequency to the next one.
function readBands(buffer, at, header) {
  const n = header.lengths.reduce((sum, length) => sum + length, 0);
  const distances = new Float32Array(buffer.slice(at, at + 4 * n));
  const low = new Uint8Array(buffer, at + 4 * n, n * header.branches);
  const high = new Uint8Array(buffer, at + 4 * n + low.length, low.length);
  const branches = [];
  for (let b = 0; b < header.branches; b++) {
    const branch = new Float64Array(n);
    let value = 0;
    for (let i = 0; i < n; i++) {
      value = ((value + (low[b * n + i] | (high[b * n + i] << 8))) << 16) >> 16;
      branch[i] = value * header.scale;
    }
    branches.push(branch);
  }
  return { distances, branches, lengths: header.lengths, ticks: header.ticks, imaginary: header.imaginary };
}
