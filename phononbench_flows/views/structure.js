// Crystals in 3D, and how their atoms move in a mode: drawn by 3Dmol.js.

const BOND = 1.2; // of the sum of covalent radii
const STICK = 0.09; // Å
const FRAMES = 24;
const FRAME_MS = 45;
const NEAR = 0.02; // of a cell vector: an atom so near to a face lies on it
const LARGEST = 0.45; // Å that the atom which moves most is moved, unless asked otherwise

// The sites and their images that lie within the cell, or less than `beyond` of each cell vector outside of it; in Å.
function images({ vectors, sites }, beyond) {
  const along = (x, axis) => {
    const found = [];
    for (let at = x + Math.ceil(-beyond[axis] - x); at < 1 + beyond[axis]; at++) found.push(at);
    return found;
  };
  const isInside = (f) => f.every((x) => x > -NEAR && x < 1 + NEAR);
  const cartesian = (f) => [0, 1, 2].map((j) => f[0] * vectors[0][j] + f[1] * vectors[1][j] + f[2] * vectors[2][j]);
  return sites.flatMap(({ number, at }) =>
    along(at[0], 0).flatMap((x) => along(at[1], 1).flatMap((y) => along(at[2], 2).map((z) => (
      { number, at: cartesian([x, y, z]), inside: isInside([x, y, z]) })))),
  );
}

// The sites of the cell, those on its faces repeated on the opposite ones.
const shownAtoms = (structure) => images(structure, [NEAR, NEAR, NEAR]).filter((atom) => atom.inside);

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
const between = (a, b) => a.map((x, axis) => (x + b[axis]) / 2);

// Whether two atoms are bonded: closer than covalent radii allow, and two metals only where there is nothing else. In
// MgO, Mg is bonded to O, and neither Mg to Mg nor O to O.
function bondRule(atoms, lookOf) {
  const allMetal = atoms.every((atom) => lookOf(atom).metal);
  return (one, other) => {
    const [a, b] = [lookOf(one), lookOf(other)];
    if (a.metal && b.metal && !allMetal) return false;
    const far = distance(one.at, other.at);
    return far > 0.3 && far < BOND * (a.radius + b.radius);
  };
}

// For each atom the places of those that it is bonded to.
function bondsOf(atoms, lookOf) {
  const bonded = bondRule(atoms, lookOf);
  return atoms.map((one) => atoms.flatMap((other, place) => (bonded(one, other) ? [place] : [])));
}

// Of the bonds that lead out of the cell, to atoms that are not shown: the half that belongs to the atom which is.
function bondsOutwards(structure, shown, lookOf) {
  const bonded = bondRule(shown, lookOf);
  const longest = 2 * BOND * Math.max(...shown.map((atom) => lookOf(atom).radius));
  const cross = ([a, b, c], [d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d];
  const { vectors } = structure;
  const normals = [0, 1, 2].map((axis) => cross(vectors[(axis + 1) % 3], vectors[(axis + 2) % 3]));
  const volume = Math.abs(vectors[0].reduce((sum, x, axis) => sum + x * normals[0][axis], 0));
  const outside = images(structure, normals.map((normal) => NEAR + (longest * Math.hypot(...normal)) / volume)).filter((atom) => !atom.inside);
  return shown.flatMap((atom, from) => outside.filter((other) => bonded(atom, other)).map((other) => ({ from, end: between(atom.at, other.at) })));
}

function cellEdges([a, b, c]) {
  const corner = (i, j, k) => [0, 1, 2].map((x) => i * a[x] + j * b[x] + k * c[x]);
  const ends = [0, 1].flatMap((i) => [0, 1].flatMap((j) => [[[0, i, j], [1, i, j]], [[i, 0, j], [i, 1, j]], [[i, j, 0], [i, j, 1]]]));
  return ends.map(([from, to]) => [corner(...from), corner(...to)]);
}

const spot = ([x, y, z]) => ({ x, y, z });

// Atoms as 3Dmol.js takes them.
function viewerAtoms(atoms, lookOf, symbolOf) {
  const bonds = bondsOf(atoms, lookOf);
  return atoms.map((atom, i) => ({
    elem: symbolOf(atom), ...spot(atom.at), bonds: bonds[i], bondOrder: bonds[i].map(() => 1), serial: i, index: i,
  }));
}

// A viewer in a place of the page. What is taken away is disposed of: browsers give few of them.
class CrystalView {
  constructor(place, elements) {
    this.place = place;
    this.elements = elements;
    this.symbols = new Map(Object.entries(elements).map(([symbol, look]) => [look.number, symbol]));
    this.viewer = $3Dmol.createViewer(place, { backgroundColor: "white", backgroundAlpha: 0, antialias: true, orthographic: true, disableFog: true });
    this.viewer.setBackgroundColor(0xffffff, 0);
    place.querySelector("canvas")?.setAttribute("aria-hidden", "true");
    this.moving = false;
    this.resizing = new ResizeObserver(() => {
      this.viewer.resize();
      if (this.edges) this.fit();
      this.viewer.render();
    });
    this.resizing.observe(place);
  }

  symbolOf(atom) { return this.symbols.get(atom.number); }

  lookOf(atom) { return this.elements[this.symbolOf(atom)]; }

  // The elements that are seen, by symbol.
  show(structure) {
    const atoms = shownAtoms(structure);
    return this.draw(atoms, structure.vectors, bondsOutwards(structure, atoms, (atom) => this.lookOf(atom)));
  }

  draw(atoms, vectors, outwards = []) {
    this.stop();
    this.viewer.removeAllModels();
    this.viewer.removeAllShapes();
    this.atoms = viewerAtoms(atoms, (atom) => this.lookOf(atom), (atom) => this.symbolOf(atom));
    this.model = this.viewer.addModel();
    this.model.addAtoms(this.atoms.map((atom) => ({ ...atom })));
    const kinds = [...new Set(atoms.map((atom) => this.symbolOf(atom)))];
    this.style(kinds);
    this.edges = cellEdges(vectors);
    this.drawCell();
    this.drawOutwards(outwards);
    this.look();
    return kinds;
  }

  drawCell() {
    for (const [from, to] of this.edges) this.viewer.addLine({ start: spot(from), end: spot(to), color: colour("soft"), linewidth: 2 });
  }

  drawOutwards(outwards) {
    this.outwards = outwards;
    const shapes = new Map();
    for (const { from, end } of outwards) {
      const { elem, x, y, z } = this.atoms[from];
      if (!shapes.has(elem)) shapes.set(elem, this.viewer.addShape({ color: this.elements[elem].colour }));
      shapes.get(elem).addCylinder({ start: { x, y, z }, end: spot(end), radius: STICK, toCap: 2 });
    }
  }

  style(kinds) {
    for (const symbol of kinds) {
      const { colour: color, radius } = this.elements[symbol];
      this.viewer.setStyle({ elem: symbol }, { sphere: { radius: 0.35 * radius + 0.12, color }, stick: { radius: STICK, color } });
    }
  }

  // From the side and a little above, the third vector upwards, as large as the place allows; amid the cell.
  look() {
    this.viewer.zoomTo();
    const corners = this.edges.flat();
    const middle = [0, 1, 2].map((axis) => -corners.reduce((sum, at) => sum + at[axis], 0) / corners.length);
    this.viewer.setView([...middle, ...this.viewer.getView().slice(3)]);
    for (const [angle, axis] of [[-90, "vx"], [-28, "vy"], [14, "vx"]]) this.viewer.rotate(angle, axis);
    this.fit();
    this.fit();
    this.viewer.render();
  }

  fit() {
    this.viewer.render();
    const corners = this.edges.flat().concat(this.outwards.map(({ end }) => end), this.atoms.map(({ x, y, z }) => [x, y, z]));
    const seen = this.viewer.modelToScreen(corners.map(spot));
    const span = (axis) => Math.max(...seen.map((at) => at[axis])) - Math.min(...seen.map((at) => at[axis])) || 1;
    this.viewer.zoom(0.84 * Math.min(this.place.clientWidth / span("x"), this.place.clientHeight / span("y")));
  }

  // A mode: `moves` of each site, the largest of length one.
  showMode(mode) {
    const kinds = this.draw(mode.sites, mode.vectors);
    this.moves = mode.sites.map((site) => site.moves);
    this.kinds = kinds;
    this.pose(0);
    return kinds;
  }

  // Arrows along the motion at its turn.
  arrows(shown, amplitude = LARGEST) {
    this.viewer.removeAllShapes();
    this.drawCell();
    if (shown) {
      this.atoms.forEach((atom, i) => {
        const length = Math.hypot(...this.moves[i]);
        if (length < 0.05) return;
        const at = [atom.x, atom.y, atom.z];
        const end = at.map((x, axis) => x + 3 * amplitude * this.moves[i][axis]);
        this.viewer.addArrow({ start: spot(at), end: spot(end), radius: 0.07, radiusRatio: 2.2, mid: 0.72, color: colour("imaginary") });
      });
    }
    this.viewer.render();
  }

  pose(share, amplitude = LARGEST) {
    const moved = this.model.selectedAtoms({});
    moved.forEach((atom, i) => {
      const start = this.atoms[i];
      [atom.x, atom.y, atom.z] = [start.x, start.y, start.z].map((x, axis) => x + share * amplitude * this.moves[i][axis]);
    });
    this.style(this.kinds);
    this.viewer.render();
  }

  play(amplitude = LARGEST) {
    this.stop();
    this.moving = true;
    let step = 0;
    const next = () => {
      if (!this.moving || !this.place.isConnected) return;
      step = (step + 1) % FRAMES;
      if (!document.hidden) this.pose(Math.sin((2 * Math.PI * step) / FRAMES), amplitude);
      this.timer = setTimeout(next, FRAME_MS);
    };
    next();
  }

  stop() {
    this.moving = false;
    clearTimeout(this.timer);
  }

  dispose() {
    this.stop();
    this.resizing.disconnect();
    this.viewer.removeAllModels();
    this.place.querySelector("canvas")?.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
    this.place.replaceChildren();
  }
}

// A legend: a dot and a symbol for each element.
function elementLegend(symbols, elements) {
  return symbols.map((symbol) => {
    const dot = element("i");
    dot.style.background = elements[symbol].colour;
    return element("span", { class: "atom" }, dot, symbol);
  });
}
