// A crystal in 3D: spheres, the bonds that covalent radii suggest, and the cell.

const SPHERE = sphere(12, 20);

function sphere(rings, spokes) {
  const points = [[0, 0, 1], [0, 0, -1]];
  const faces = [];
  const at = (ring, spoke) => 2 + (ring - 1) * spokes + (spoke % spokes);
  for (let ring = 1; ring < rings; ring++) {
    for (let spoke = 0; spoke < spokes; spoke++) {
      const [polar, azimuth] = [(Math.PI * ring) / rings, (2 * Math.PI * spoke) / spokes];
      points.push([Math.sin(polar) * Math.cos(azimuth), Math.sin(polar) * Math.sin(azimuth), Math.cos(polar)]);
      if (ring > 1) faces.push([at(ring - 1, spoke), at(ring, spoke), at(ring, spoke + 1)], [at(ring - 1, spoke), at(ring, spoke + 1), at(ring - 1, spoke + 1)]);
    }
  }
  for (let spoke = 0; spoke < spokes; spoke++) faces.push([0, at(1, spoke), at(1, spoke + 1)], [1, at(rings - 1, spoke + 1), at(rings - 1, spoke)]);
  return { points, faces };
}

// The sites of the cell, those on its faces repeated on the opposite ones; in Å.
function shownAtoms({ vectors, sites }) {
  const near = 0.02;
  const choices = (x) => [x > 1 - near ? x - 1 : x, ...(x < near || x > 1 - near ? [x > 1 - near ? x : x + 1] : [])];
  const cartesian = (f) => [0, 1, 2].map((j) => f[0] * vectors[0][j] + f[1] * vectors[1][j] + f[2] * vectors[2][j]);
  return sites.flatMap(({ number, at }) =>
    choices(at[0]).flatMap((x) => choices(at[1]).flatMap((y) => choices(at[2]).map((z) => ({ number, at: cartesian([x, y, z]) })))),
  );
}

function spheres(atoms, look, symbol) {
  const trace = { type: "mesh3d", x: [], y: [], z: [], i: [], j: [], k: [], color: look.colour, name: symbol, hovertemplate: `${symbol}<extra></extra>` };
  trace.lighting = { ambient: 0.6, diffuse: 0.7, specular: 0.25, roughness: 0.6 };
  // Otherwise Plotly takes faces this small for degenerate, and leaves them without a shade.
  trace.facenormalsepsilon = 0;
  trace.vertexnormalsepsilon = 0;
  trace.lightposition = { x: 1000, y: -1000, z: 2000 };
  for (const { at } of atoms) {
    const first = trace.x.length;
    for (const point of SPHERE.points) ["x", "y", "z"].forEach((axis, i) => trace[axis].push(at[i] + 0.42 * look.radius * point[i]));
    for (const face of SPHERE.faces) ["i", "j", "k"].forEach((corner, i) => trace[corner].push(first + face[2 - i]));
  }
  return trace;
}

function segments(pairs, ink, width) {
  const trace = { type: "scatter3d", mode: "lines", x: [], y: [], z: [], line: { color: ink, width }, hoverinfo: "skip" };
  for (const pair of pairs) for (const point of [...pair, [null, null, null]]) ["x", "y", "z"].forEach((axis, i) => trace[axis].push(point[i]));
  return trace;
}

function bonds(atoms, lookOf) {
  const found = [];
  atoms.forEach((a, i) => {
    for (const b of atoms.slice(i + 1)) {
      const distance = Math.hypot(a.at[0] - b.at[0], a.at[1] - b.at[1], a.at[2] - b.at[2]);
      if (distance < 1.1 * (lookOf(a).radius + lookOf(b).radius)) found.push([a.at, b.at]);
    }
  });
  return found;
}

function cellEdges([a, b, c]) {
  const corner = (i, j, k) => [0, 1, 2].map((x) => i * a[x] + j * b[x] + k * c[x]);
  const ends = [0, 1].flatMap((i) => [0, 1].flatMap((j) => [[[0, i, j], [1, i, j]], [[i, 0, j], [i, 1, j]], [[i, j, 0], [i, j, 1]]]));
  return ends.map(([from, to]) => [corner(...from), corner(...to)]);
}

function structureChart(place, structure, elements) {
  const symbols = new Map(Object.entries(elements).map(([symbol, look]) => [look.number, symbol]));
  const lookOf = (atom) => elements[symbols.get(atom.number)];
  const atoms = shownAtoms(structure);
  const kinds = [...new Set(atoms.map((atom) => atom.number))];
  const traces = kinds.map((kind) => spheres(atoms.filter((atom) => atom.number === kind), elements[symbols.get(kind)], symbols.get(kind)));
  traces.push(segments(bonds(atoms, lookOf), colour("soft"), 5), segments(cellEdges(structure.vectors), colour("ink"), 2));
  const hidden = { visible: false };
  const scene = { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data", camera: { eye: { x: 1.9, y: 0.85, z: 0.6 } } };
  draw(place, traces, { scene, showlegend: false, margin: { t: 0, r: 0, b: 0, l: 0 } }, ["toImage", "resetCameraDefault3d"]);
  return kinds.map((kind) => symbols.get(kind));
}
