// Band structures with the density of states beside them.

// Real and imaginary parts of all branches as two broken lines that meet on zero.
function splitAtZero(bands) {
  const parts = { real: { x: [], y: [] }, imaginary: { x: [], y: [] } };
  const add = (part, x, y) => { parts[part].x.push(x); parts[part].y.push(y); };
  for (const branch of bands.branches) {
    let at = 0;
    for (const length of bands.lengths) {
      for (let i = at; i < at + length; i++) {
        const [x, y] = [bands.distances[i], branch[i]];
        if (i > at && y * branch[i - 1] < 0) {
          const zero = bands.distances[i - 1] + ((x - bands.distances[i - 1]) * branch[i - 1]) / (branch[i - 1] - y);
          for (const part of ["real", "imaginary"]) { add(part, zero, 0); add(part, null, null); }
          add(y < 0 ? "imaginary" : "real", zero, 0);
        }
        add(y < 0 ? "imaginary" : "real", x, y);
      }
      for (const part of ["real", "imaginary"]) add(part, null, null);
      at += length;
    }
  }
  return parts;
}

function lowestPoint(bands) {
  let [x, y] = [0, Infinity];
  for (const branch of bands.branches) branch.forEach((value, i) => { if (value < y) [x, y] = [bands.distances[i], value]; });
  return [x, y];
}

// The q-point and branch of the band that is drawn nearest to a place of the chart.
function nearestOnBands(bands, x, y) {
  let [best, found] = [Infinity, null];
  const width = bands.distances.at(-1) - bands.distances[0] || 1;
  const height = Math.max(...bands.branches.map((branch) => Math.max(...branch))) || 1;
  bands.branches.forEach((branch, b) => {
    branch.forEach((value, i) => {
      const far = Math.hypot((bands.distances[i] - x) / width, (value - y) / height);
      if (far < best) [best, found] = [far, { point: i, branch: b }];
    });
  });
  return found;
}

function dosTrace(dos) {
  return {
    x: dos.densities, y: dos.frequencies, xaxis: "x2", mode: "lines", fill: "tozerox", name: "density of states",
    line: { color: colour("stable"), width: 1.3 }, fillcolor: faded(colour("stable"), 0.18), hovertemplate: "%{x:.2f} per THz at %{y:.2f} THz<extra></extra>",
  };
}

// Bands, and beside them the density of states where it is known.
function bandsChart(place, bands, threshold, dos = null) {
  const parts = splitAtZero(bands);
  const [x, y] = lowestPoint(bands);
  const top = Math.max(0, ...bands.branches.map((branch) => branch.reduce((a, b) => Math.max(a, b), 0)));
  const margin = 0.05 * (top - Math.min(y, 0) || 1);
  const range = [Math.min(y, 0) - margin, top + margin];
  const line = (name, ink) => ({ ...parts[name], mode: "lines", name, line: { color: ink, width: 1.5 }, hovertemplate: "%{y:.3f} THz<extra></extra>" });
  const marker = { x: [x], y: [y], mode: "markers", marker: { symbol: "circle-open", size: 11, color: colour("imaginary"), line: { width: 2 } }, hovertemplate: "lowest: %{y:.3f} THz<extra></extra>" };
  const level = (value, ink, dash) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: ink, width: 1, dash } });
  const below = { type: "rect", xref: "paper", x0: 0, x1: 1, y0: range[0], y1: 0, fillcolor: colour("imaginary"), opacity: 0.07, line: { width: 0 }, layer: "below" };
  const ticks = bands.ticks.map(([position]) => ({ type: "line", yref: "paper", x0: position, x1: position, y0: 0, y1: 1, line: { color: colour("line"), width: 1 }, layer: "below" }));
  const beside = dos && { xaxis2: { domain: [0.8, 1], showgrid: false, zeroline: false, showticklabels: false, rangemode: "tozero", title: { text: "DOS (1/THz)", font: { size: 12 } }, linecolor: colour("line") } };
  return draw(place, [line("real", colour("stable")), line("imaginary", colour("imaginary")), ...(bands.imaginary ? [marker] : []), ...(dos ? [dosTrace(dos)] : [])], {
    showlegend: false, hovermode: "closest", shapes: [below, ...ticks, level(0, colour("soft"), "solid"), level(threshold, colour("imaginary"), "dash")],
    xaxis: { domain: [0, dos ? 0.77 : 1], showgrid: false, zeroline: false, tickvals: bands.ticks.map(([position]) => position), ticktext: bands.ticks.map(([, label]) => forPlotly(label)), range: [bands.ticks[0][0], bands.ticks.at(-1)[0]], title: { text: "wave vector", font: { size: 12 } } },
    yaxis: { title: { text: "frequency (THz), imaginary as negative", font: { size: 12 } }, range, zeroline: false, showgrid: false },
    ...(beside || {}),
  });
}
