// Small charts in SVG, drawn anew on each change: chart(options, ...layers). Ink is currentColor, colors are names of
// course.css ("blue", "vermilion", "green", "purple", "orange", "sky", "gray"). Each chart has a sentence for screen
// readers; give the numbers themselves with table().
import { h } from "./element.js";

const SPACE = { left: 46, right: 12, top: 12, bottom: 40 };
const color = (name) => `var(--plot-${name})`;

export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const round = (value) => Math.round(value * 100) / 100; // hundredths of a pixel

/** Position in pixels of a value on an axis {min, max, log}. */
function scale({ min, max, log = false }, from, to) {
  const place = log ? Math.log : (value) => value;
  return (value) => round(from + ((place(value) - place(min)) / (place(max) - place(min))) * (to - from));
}

/** About `count` round numbers between min and max. */
export function ticks({ min, max, log = false }, count = 5) {
  if (log) {
    const first = Math.ceil(Math.log10(min) - 1e-9), last = Math.floor(Math.log10(max) + 1e-9);
    const step = Math.max(1, Math.ceil((last - first) / count));
    return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (first + i * step));
  }
  const rough = (max - min) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const start = Math.ceil(min / step - 1e-9);
  return Array.from({ length: Math.floor(max / step + 1e-9) - start + 1 }, (_, i) => Number(((start + i) * step).toPrecision(12)));
}

/**
 * @param options {width, height, x, y, text}: axes are {min, max, log, label, ticks, format}; text is what the chart shows
 * @param layers results of line, points, bars, vertical, horizontal, label
 */
export function chart({ width, height = 220, x, y, text }, ...layers) {
  const frame = { left: SPACE.left, right: width - SPACE.right, top: SPACE.top, bottom: height - SPACE.bottom };
  const at = { ...frame, x: scale(x, frame.left, frame.right), y: scale(y, frame.bottom, frame.top) };
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text });
  svg.append(...axes(x, y, at, height), ...layers.flatMap((layer) => layer(at)));
  return svg;
}

function axes(x, y, at, height) {
  const marks = [];
  for (const value of x.ticks ?? ticks(x, (at.right - at.left) / 70)) {
    marks.push(s("text", { x: at.x(value), y: at.bottom + 16, "text-anchor": "middle", class: "quiet" }, (x.format ?? String)(value)));
  }
  for (const value of y.ticks ?? ticks(y, (at.bottom - at.top) / 40)) {
    marks.push(s("line", { x1: at.left, x2: at.right, y1: at.y(value), y2: at.y(value), stroke: "var(--course-line)" }));
    marks.push(s("text", { x: at.left - 6, y: at.y(value) + 4, "text-anchor": "end", class: "quiet" }, (y.format ?? String)(value)));
  }
  marks.push(s("path", { d: `M${at.left} ${at.top}V${at.bottom}H${at.right}`, fill: "none", stroke: "currentColor" }));
  marks.push(s("text", { x: (at.left + at.right) / 2, y: height - 6, "text-anchor": "middle" }, x.label ?? ""));
  if (y.label) marks.push(s("text", { x: at.left + 6, y: at.top + 2 }, y.label));
  return marks;
}

/** A line through [[x, y], ...]. */
export const line = (values, { stroke = "blue", dashed = false } = {}) => (at) => {
  if (!values.length) return [];
  const d = values.map(([x, y], i) => `${i ? "L" : "M"}${at.x(x)} ${at.y(y)}`).join("");
  return [s("path", { d, fill: "none", stroke: color(stroke), "stroke-width": 2, "stroke-linejoin": "round", "stroke-dasharray": dashed ? "5 4" : "none" })];
};

/** A dot at each of [[x, y], ...]. */
export const points = (values, { fill = "blue", radius = 3.5 } = {}) => (at) =>
  values.map(([x, y]) => s("circle", { cx: at.x(x), cy: at.y(y), r: radius, fill: color(fill) }));

/** Bars [[from, to, height, fill], ...] that stand on the axis. */
export const bars = (values, { fill = "blue" } = {}) => (at) =>
  values.map(([from, to, top, own]) => {
    const left = at.x(from), up = at.y(top);
    return s("rect", { x: left, y: up, width: round(Math.max(0, at.x(to) - left - 0.5)), height: round(Math.max(0, at.bottom - up)), fill: color(own ?? fill) });
  });

/** A vertical rule at x, such as a threshold or a guess. */
export const vertical = (x, text = "", { stroke = "vermilion", dashed = true } = {}) => (at) => {
  const end = at.x(x) > (at.left + at.right) / 2;
  return [
    s("line", { x1: at.x(x), x2: at.x(x), y1: at.top, y2: at.bottom, stroke: color(stroke), "stroke-width": 1.5, "stroke-dasharray": dashed ? "5 4" : "none" }),
    s("text", { x: at.x(x) + (end ? -5 : 5), y: at.top + 16, "text-anchor": end ? "end" : "start", style: `fill: ${color(stroke)}` }, text),
  ];
};

/** A horizontal rule at y, such as a roof or a guess. */
export const horizontal = (y, text = "", { stroke = "vermilion", dashed = true } = {}) => (at) => [
  s("line", { x1: at.left, x2: at.right, y1: at.y(y), y2: at.y(y), stroke: color(stroke), "stroke-width": 1.5, "stroke-dasharray": dashed ? "5 4" : "none" }),
  s("text", { x: at.right, y: at.y(y) - 5, "text-anchor": "end", style: `fill: ${color(stroke)}` }, text),
];

/** Text at a point. */
export const label = (x, y, text, { fill = "gray", anchor = "start" } = {}) => (at) =>
  [s("text", { x: at.x(x), y: at.y(y), "text-anchor": anchor, style: `fill: ${color(fill)}` }, text)];

/** Put new children into a holder; what the reader had opened in the old ones is open in the new ones. */
export function show(holder, ...children) {
  const open = [...holder.querySelectorAll("details")].map((part) => part.open);
  holder.replaceChildren(...children);
  holder.querySelectorAll("details").forEach((part, i) => { part.open = open[i] ?? false; });
}

// What scrolls sideways must be reachable by keyboard.
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0; else target.removeAttribute("tabindex");
  }
});

/** The numbers behind a chart: heads is a row of strings, rows are rows of strings whose first cell names the row. */
export function table(heads, rows) {
  const head = h("tr", {}, ...heads.map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))));
  const body = rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), ...rest.map((text) => h("td", {}, text))));
  const box = h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
  boxes.observe(box);
  return box;
}

/** A table that opens on demand, for the numbers of a chart. */
export function numbers(summary, heads, rows) {
  return h("details", {}, h("summary", {}, summary), table(heads, rows));
}
