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
  return Plotly.react(place, traces, layoutOf(layout), config);
}

const faded = (hex, opacity) => `${hex}${Math.round(255 * opacity).toString(16).padStart(2, "0")}`;
