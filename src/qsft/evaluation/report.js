"use strict";
// Learning curves: values under the pointer, or under a cursor moved with the arrow keys.
for (const plot of document.querySelectorAll("[data-lines]")) {
  const lines = JSON.parse(plot.dataset.lines); // each line: [step, value as text, x in %, y in %]
  const figure = plot.closest("figure");
  const cursor = plot.querySelector(".cursor");
  const where = figure.querySelector(".where");
  const outputs = [...figure.querySelectorAll(".legend output")];
  const last = outputs.map((output) => output.textContent);
  const stops = [...new Set(lines.flat().map((point) => point[2]))].sort((a, b) => a - b);
  let at = null;

  const nearest = (items, x, position) =>
    items.reduce((best, item) => (Math.abs(position(item) - x) < Math.abs(position(best) - x) ? item : best));
  const show = (x) => {
    at = x;
    const hits = lines.map((line) => nearest(line, x, (point) => point[2]));
    const hit = nearest(hits, x, (point) => point[2]);
    cursor.setAttribute("x1", hit[2] + "%");
    cursor.setAttribute("x2", hit[2] + "%");
    cursor.style.visibility = "visible";
    where.textContent = "step " + hit[0].toLocaleString("en");
    hits.forEach((point, i) => { outputs[i].textContent = point[1]; });
  };
  const hide = () => {
    at = null;
    cursor.style.visibility = "hidden";
    where.textContent = "last value";
    outputs.forEach((output, i) => { output.textContent = last[i]; });
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show((100 * (event.clientX - box.left)) / box.width);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const here = at === null ? stops.length - 1 - step : stops.indexOf(nearest(stops, at, (x) => x));
    show(stops[Math.max(0, Math.min(stops.length - 1, here + step))]);
  });
}

// Games: keep the list of alternatives inside the window; Escape closes it.
for (const cell of document.querySelectorAll(".cell")) {
  const pop = cell.querySelector(".pop");
  if (!pop) continue;
  const place = () => {
    pop.style.setProperty("--shift", "0px");
    const box = pop.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const shift = box.left < 8 ? 8 - box.left : Math.min(0, width - 8 - box.right);
    pop.style.setProperty("--shift", shift + "px");
  };
  cell.addEventListener("pointerenter", place);
  cell.addEventListener("focusin", place);
  cell.addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.blur();
  });
}
