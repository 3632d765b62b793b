"use strict";
// Draws the figures in the page's colours and redraws them when the scheme changes, an arm is hidden or the page is printed.

const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const dark = matchMedia("(prefers-color-scheme: dark)");
const hidden = new Set();

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axis(given) {
  const line = { gridcolor: color("grid"), linecolor: color("axis"), tickcolor: color("axis"), showline: true, ticks: "outside" };
  return { ...given, ...line, ticklen: 4, tickfont: { size: 12 }, title: { ...given.title, standoff: 8, font: { size: 13 } } };
}

function layout(given) {
  return {
    ...given,
    autosize: true,
    paper_bgcolor: color("ground"),
    plot_bgcolor: color("ground"),
    font: { family: getComputedStyle(document.body).fontFamily, color: color("ink") },
    hoverlabel: { bgcolor: color("raised"), bordercolor: color("axis"), font: { size: 12, color: color("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("axis"), activecolor: color("ink") },
    xaxis: {
      ...axis(given.xaxis),
      spikecolor: color("axis"),
      spikethickness: 1,
      spikedash: "dot",
      unifiedhovertitle: { text: given.meta.hover },
    },
    yaxis: axis(given.yaxis),
  };
}

// What is hidden: an arm everywhere, or a line of one figure.
const key = (arm, number) => (number === undefined ? `${arm}` : `${number}:${arm}`);
const isHidden = (arm, number) => hidden.has(key(arm)) || hidden.has(key(arm, number));

function trace(given, number) {
  const own = color(`arm-${given.meta.color}`);
  return {
    ...given,
    visible: !isHidden(given.meta.arm, number),
    line: { ...given.line, color: own },
    ...(given.fill && { fillcolor: `${own}26` }), // a band: faint, so that several may overlap
    marker: { ...given.marker, color: own },
    textfont: { size: 12, color: own },
  };
}

function draw() {
  for (const plot of plots) {
    const figure = figures[plot.dataset.figure];
    Plotly.react(plot, figure.data.map((each) => trace(each, plot.dataset.figure)), layout(figure.layout), {
      displaylogo: false,
      responsive: true,
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    });
  }
}

for (const button of document.querySelectorAll(".legend button, .key button")) {
  button.addEventListener("click", () => {
    const name = key(button.dataset.arm, button.closest("figure")?.querySelector(".plot").dataset.figure);
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    draw();
  });
}

function print(on) {
  document.documentElement.classList.toggle("printing", on);
  draw();
}

dark.addEventListener("change", draw);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
draw();
