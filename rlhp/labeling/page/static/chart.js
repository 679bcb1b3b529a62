/**
 * Small line charts in SVG. One call draws one chart anew; colors, text and sizes come from watch.css.
 *
 *     draw(figure, { title: "Return", lines: [{ name: "predicted", points: [[x, y], ...] }] })
 *
 * Points whose y is not a number are gaps. The newest value stands beside the title, and under the pointer the values
 * at that x are read out.
 */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170;
const MARGIN = { top: 8, right: 10, bottom: 22, left: 46 };
const MOST_POINTS = 400;

export function draw(figure, { title, unit = "", lines, xName = "env steps", width = 400 }) {
  const shown = lines.map((line) => ({ ...line, points: thinned(line.points.filter(([, y]) => Number.isFinite(y))) }));
  const points = shown.flatMap((line) => line.points);
  figure.classList.add("chart");
  figure.hidden = points.length === 0;
  if (!points.length) return figure.replaceChildren();
  const x = scale(extent(points, 0), [MARGIN.left, width - MARGIN.right]);
  const y = scale(padded(extent(points, 1)), [HEIGHT - MARGIN.bottom, MARGIN.top]);
  const picture = node("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": spoken(title, shown) });
  const curves = shown.map((line, at) => curve(line, at, x, y));
  picture.append(...grid(x, y), ...axis(x), ...curves, node("g", { class: "cross" }));
  figure.replaceChildren(caption(title, unit, shown), picture);
  readOut(figure, picture, { shown, x, y, xName, width });
}

/** A line that stands at `share` (0 to 1) of the chart's width; drawn once, then moved. */
export function moveCursor(figure, share) {
  const picture = figure.querySelector("svg");
  if (!picture) return;
  const cursor = picture.querySelector(".cursor") ?? picture.appendChild(node("line", { class: "cursor" }));
  const at = MARGIN.left + share * (picture.viewBox.baseVal.width - MARGIN.left - MARGIN.right);
  write(cursor, { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
}

/** Numbers as people read them: 1.2M, 35k, 0.831. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(3).replace(/(\.\d*?)0+$/, "$1");
}

function trim(value) {
  return value.toFixed(Math.abs(value) < 10 ? 1 : 0).replace(/\.0$/, "");
}

function scale([low, high], [from, to]) {
  const map = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  return Object.assign(map, { low, high, from, to });
}

function extent(points, at) {
  return points.reduce(([low, high], p) => [Math.min(low, p[at]), Math.max(high, p[at])], [Infinity, -Infinity]);
}

function padded([low, high]) {
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

/** About `count` round numbers between low and high. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => rough <= factor * power);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

function grid(x, y) {
  return ticks(y.low, y.high, 4).flatMap((value) => [
    node("line", { class: "grid", x1: x.from, x2: x.to, y1: y(value), y2: y(value) }),
    label(short(Number(value.toPrecision(6))), { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }),
  ]);
}

function axis(x) {
  if (x.low === x.high) return [];
  return ticks(x.low, x.high, 4).map((value) =>
    label(short(value), { x: x(value), y: HEIGHT - 4, "text-anchor": x(value) > x.to - 14 ? "end" : "middle" }),
  );
}

function curve({ points }, at, x, y) {
  if (points.length === 1) return dot(points[0], at, x, y);
  const path = points.map(([px, py], n) => `${n ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
  return node("path", { class: `line${at}`, d: path });
}

/** Every second point, third, ...: as many as can be told apart. The newest is always among them. */
function thinned(points) {
  const every = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, at) => (points.length - 1 - at) % every === 0);
}

function caption(title, unit, shown) {
  const heading = document.createElement("figcaption");
  const name = Object.assign(document.createElement("strong"), { textContent: title });
  const newest = document.createElement("span");
  shown.forEach((line, at) => {
    if (!line.points.length) return;
    const text = shown.length > 1 ? `${line.name} ${short(line.points.at(-1)[1])}` : short(line.points.at(-1)[1]);
    const value = Object.assign(document.createElement("b"), { textContent: text, className: `key${at}` });
    newest.append(value);
  });
  if (unit) newest.append(Object.assign(document.createElement("small"), { textContent: unit }));
  heading.append(name, newest);
  return heading;
}

function spoken(title, shown) {
  const drawn = shown.filter((line) => line.points.length);
  const newest = drawn.map((line) => `${line.name} ${short(line.points.at(-1)[1])}`);
  return `${title}: newest ${newest.join(", ")}`;
}

function readOut(figure, picture, { shown, x, y, xName, width }) {
  const cross = picture.querySelector(".cross");
  const told = Object.assign(document.createElement("p"), { className: "told", hidden: true });
  figure.append(told);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * width - x.from) / (x.to - x.from);
    const at = x.low + share * (x.high - x.low);
    const near = shown.map((line) => nearest(line.points, at));
    const found = near.find(Boolean);
    const dots = near.flatMap((p, n) => (p ? [dot(p, n, x, y)] : []));
    const rule = { class: "rule", x1: x(found[0]), x2: x(found[0]), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
    cross.replaceChildren(node("line", rule), ...dots);
    const values = near.flatMap((p, n) => (p ? [`${shown[n].name} ${short(p[1])}`] : []));
    told.textContent = `${short(found[0])} ${xName}: ${values.join(", ")}`;
    told.hidden = false;
  });
  picture.addEventListener("pointerleave", () => {
    cross.replaceChildren();
    told.hidden = true;
  });
}

function dot(point, at, x, y) {
  return node("circle", { class: `line${at}`, cx: x(point[0]), cy: y(point[1]), r: 3.5 });
}

function nearest(points, at) {
  return points.reduce((best, p) => (!best || Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best), undefined);
}

function label(text, attributes) {
  return Object.assign(node("text", attributes), { textContent: text });
}

function node(tag, attributes) {
  return write(document.createElementNS(SVG, tag), attributes);
}

function write(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
