// Crystals in 3D, and how their atoms move in a mode: drawn by 3Dmol.js.

const BOND = 1.2; // of the sum of covalent radii
const FRAMES = 24;
const FRAME_MS = 45;
const LARGEST = 0.45; // Å that the atom which moves most is moved, unless asked otherwise

// The sites of the cell, those on its faces repeated on the opposite ones; in Å.
function shownAtoms({ vectors, sites }) {
  const near = 0.02;
  const choices = (x) => [x > 1 - near ? x - 1 : x, ...(x < near || x > 1 - near ? [x > 1 - near ? x : x + 1] : [])];
  const cartesian = (f) => [0, 1, 2].map((j) => f[0] * vectors[0][j] + f[1] * vectors[1][j] + f[2] * vectors[2][j]);
  return sites.flatMap(({ number, at }) =>
    choices(at[0]).flatMap((x) => choices(at[1]).flatMap((y) => choices(at[2]).map((z) => ({ number, at: cartesian([x, y, z]) })))),
  );
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

// For each atom the places of those that it is bonded to: closer than covalent radii allow, and two metals only where
// there is nothing else. In MgO, Mg is bonded to O, and neither Mg to Mg nor O to O.
function bondsOf(atoms, lookOf) {
  const looks = atoms.map(lookOf);
  const allMetal = looks.every((look) => look.metal);
  const found = atoms.map(() => []);
  for (let i = 0; i < atoms.length; i++) {
    for (let j = i + 1; j < atoms.length; j++) {
      if (looks[i].metal && looks[j].metal && !allMetal) continue;
      const far = distance(atoms[i].at, atoms[j].at);
      if (far > 0.3 && far < BOND * (looks[i].radius + looks[j].radius)) {
        found[i].push(j);
        found[j].push(i);
      }
    }
  }
  return found;
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
    this.resizing = new ResizeObserver(() => { this.viewer.resize(); this.viewer.render(); });
    this.resizing.observe(place);
  }

  symbolOf(atom) { return this.symbols.get(atom.number); }

  lookOf(atom) { return this.elements[this.symbolOf(atom)]; }

  // The elements that are seen, by symbol.
  show(structure) {
    return this.draw(shownAtoms(structure), structure.vectors);
  }

  draw(atoms, vectors) {
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
    this.look();
    return kinds;
  }

  drawCell() {
    for (const [from, to] of this.edges) this.viewer.addLine({ start: spot(from), end: spot(to), color: colour("soft"), linewidth: 2 });
  }

  style(kinds) {
    for (const symbol of kinds) {
      const { colour: color, radius } = this.elements[symbol];
      this.viewer.setStyle({ elem: symbol }, { sphere: { radius: 0.35 * radius + 0.12, color }, stick: { radius: 0.09, color } });
    }
  }

  // From the side and a little above, the third vector upwards, as large as the place allows.
  look() {
    this.viewer.zoomTo();
    this.viewer.rotate(-90, "x");
    this.viewer.rotate(-28, "y");
    this.viewer.rotate(14, "x");
    this.fit();
    this.fit();
    this.viewer.render();
  }

  fit() {
    this.viewer.render();
    const corners = this.edges.flat().concat(this.atoms.map((atom) => [atom.x, atom.y, atom.z]));
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
