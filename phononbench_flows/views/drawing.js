"use strict";
// Charts are drawn by Plotly in the colours of the page.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function layoutOf(more) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 13 },
    margin: { t: 16, r: 16, b: 50, l: 62 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
    modebar: { bgcolor: "transparent", color: colour("soft"), activecolor: colour("ink") },
    xaxis: { ...axis, ...xaxis },
    yaxis: { ...axis, ...yaxis },
    ...rest,
  };
}

function draw(place, traces, layout, buttons = ["toImage", "zoom2d", "pan2d", "resetScale2d"]) {
  const config = { displaylogo: false, displayModeBar: "hover", responsive: true, modeBarButtons: [buttons] };
  // Plotly measures a place once: one that is drawn anew may have another size.
  const size = { width: place.clientWidth, height: place.clientHeight };
  return Plotly.react(place, traces, layoutOf({ ...size, ...layout }), config);
}

// On paper everything is drawn on white, and as wide as a page is: browsers lay out what is printed when it is too late.
function listenToPaper(redraw) {
  const root = document.documentElement;
  let worn;
  addEventListener("beforeprint", () => {
    worn = root.dataset.theme;
    root.dataset.theme = "light";
    root.dataset.paper = "";
    redraw();
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = worn;
    delete root.dataset.paper;
    redraw();
  });
}

const faded = (hex, opacity) => `${hex}${Math.round(255 * opacity).toString(16).padStart(2, "0")}`;
