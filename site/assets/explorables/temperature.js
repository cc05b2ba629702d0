// Distillation temperature: what a teacher's logits become, and how strongly they pull at a student.
import { chart, horizontal, label, line, numbers, points, vertical } from "./chart.js";
import { Explorable, h, load, slider } from "./element.js";
import { predict } from "./predict.js";
import { divergence, entropy, gradient, ranking, soften } from "./temperature-formulas.js";

const SIDE = 28, ASKED = 27, SOFT = 8; // the image and the temperature that the reader is asked about
const GRID = Array.from({ length: 29 }, (_, i) => 2 ** (i / 4 - 1));
const STYLE = `
.images { display: grid; grid-template-columns: repeat(10, minmax(0, 38px)); gap: 4px; margin: 0.5em 0; }
.images label { position: relative; line-height: 0; border: 2px solid transparent; border-radius: 0.2rem; cursor: pointer; }
.images input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: inherit; }
.images canvas { width: 100%; height: auto; aspect-ratio: 1; }
.images label:has(:checked) { border-color: var(--md-accent-fg-color); }
.images label:has(:focus-visible) { outline: 2px solid var(--md-accent-fg-color); outline-offset: 1px; }
.one { display: flex; flex-wrap: wrap; gap: 0 1em; align-items: center; }
.one > :last-child { flex: 1 1 13rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 1em 26px; margin-top: 1em; }
.two > * { min-width: 0; }
.one canvas { width: 84px; height: 84px; flex: none; }
.laws { width: 100%; font-size: 0.9em; }
.laws td { position: relative; width: 40%; padding-right: 0.2em; }
.laws td i { position: absolute; inset: 3px auto 3px 0; opacity: 0.35; }
`;

class Temperature extends Explorable {
  async build(root) {
    const [data, pixels] = await Promise.all([load("temperature.json"), load("temperature.bin")]);
    Object.assign(this, { data, pixels: new Uint8Array(pixels), image: ASKED });
    this.temperature = slider("Temperature T", { min: -1, max: 6, step: 0.5, value: 0, format: (v) => `T = ${short(2 ** v)}`, oninput: () => this.draw() });
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "Temperature of the softmax"), this.temperature);
    this.choice = h("fieldset", {}, h("legend", {}, "Test image of Fashion-MNIST: the first row puzzles the teacher, the last is usual"), h("div", { class: "images" }, ...data.labels.map((_, i) => this.option(i))));
    this.shown = h("div", { class: "one" });
    this.laws = h("div");
    this.charts = h("div", { class: "two" });
    const results = h("div", {}, this.live, this.shown, this.laws, this.charts);
    const sure = Math.max(...soften(data.teacher[ASKED], 1)), name = data.classes[data.labels[ASKED]];
    this.lock = predict(this, {
      name: "temperature",
      question: `Of this ${name} the teacher is sure: at temperature 1 it gives the ${name} ${percent(sure)}. What will it give at temperature ${SOFT}?`,
      range: { min: 10, max: 100, step: 1, value: 50, format: (v) => `${v} %` },
      locked: [this.controls, this.choice, results], open: () => this.draw(), close: () => this.start(),
    });
    root.append(h("style", {}, STYLE), h("h3", {}, "The teacher, softened"), h("div", { class: "one" }, this.canvas(ASKED), this.lock.element), this.controls, this.choice, results);
  }

  option(i) {
    const name = `${this.data.classes[this.data.labels[i]]}, image ${this.data.places[i]}`;
    const input = h("input", { type: "radio", name: "image", value: i, "aria-label": name, checked: i === ASKED, oninput: () => { this.image = i; this.draw(); } });
    return h("label", {}, input, this.canvas(i));
  }

  canvas(i) {
    const canvas = h("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": `${this.data.classes[this.data.labels[i]]}` });
    const context = canvas.getContext("2d"), picture = context.createImageData(SIDE, SIDE);
    this.pixels.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE).forEach((value, place) => picture.data.set([value, value, value, 255], 4 * place));
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  /** Back to the image that the question is about. */
  start() {
    this.image = ASKED;
    this.choice.querySelectorAll("input")[ASKED].checked = true;
  }

  draw() {
    if (this.lock.guess === null) return;
    const { teacher, student, classes, labels } = this.data, i = this.image, t = 2 ** Number(this.temperature.input.value);
    const p = soften(teacher[i], t), q = soften(student[i], t), order = ranking(p);
    const pull = gradient(teacher[i], student[i], t), apart = divergence(p, q), doubt = entropy(p);
    const name = classes[labels[i]], first = order.slice(0, 3).map((k) => `${classes[k]} ${percent(p[k])}`).join(", ");
    this.shown.replaceChildren(this.canvas(i), h("p", {}, h("strong", {}, name), `. Entropy ${doubt.toFixed(2)} of at most ${Math.log(10).toFixed(2)} nats. KL(teacher‖student) ${apart.toPrecision(3)} nats, times T² ${(apart * t * t).toPrecision(3)}.`));
    this.laws.replaceChildren(laws(classes, order, p, q));
    this.charts.replaceChildren(this.largest(i, t), this.pulls(t));
    this.reflect({ image: i, temperature: t, entropy: doubt, largest: p[order[0]], first: order[0], divergence: apart, gradient: pull, scaled: pull * t * t });
    const soft = Math.max(...soften(teacher[ASKED], SOFT));
    this.lock.compare(`At temperature ${SOFT} it gives ${percent(soft)}.`);
    this.say(`At temperature ${short(t)} the teacher says ${first}. Entropy ${doubt.toFixed(2)} nats. Gradient ${pull.toPrecision(3)}, with T² ${(pull * t * t).toPrecision(3)}.`);
  }

  largest(i, t) {
    const { teacher, classes, labels } = this.data, curve = GRID.map((x) => [x, 100 * Math.max(...soften(teacher[i], x))]);
    const guess = i === ASKED ? [points([[SOFT, this.lock.guess]], { fill: "vermilion", radius: 5 }), label(SOFT, this.lock.guess + 4, " your guess", { fill: "vermilion" })] : [];
    const text = `The largest probability of the ${classes[labels[i]]} falls from ${curve[4][1].toFixed(0)} % at temperature 1 to ${curve.at(-1)[1].toFixed(0)} % at 64.`;
    const x = { min: 0.5, max: 64, log: true, label: "temperature T", ticks: [0.5, 1, 2, 4, 8, 16, 32, 64] };
    return h("div", {}, chart({ width: this.half, x, y: { min: 0, max: 120, label: "largest probability, %", ticks: [0, 20, 40, 60, 80, 100] }, text }, horizontal(10, "", { stroke: "gray" }), label(0.55, 12, "all equal"), line(curve), vertical(t, "", { stroke: "gray", dashed: false }), ...guess));
  }

  pulls(t) {
    const { teacher, student } = this.data, mean = (x) => teacher.reduce((total, row, i) => total + gradient(row, student[i], x), 0) / teacher.length;
    const curve = GRID.map((x) => [x, mean(x)]), scaled = curve.map(([x, y]) => [x, y * x * x]);
    const text = `Mean gradient over the thirty images: at this temperature ${mean(t).toPrecision(2)} without the factor T², ${(mean(t) * t * t).toPrecision(2)} with it.`;
    const x = { min: 0.5, max: 64, log: true, label: "temperature T", ticks: [0.5, 1, 2, 4, 8, 16, 32, 64] };
    const y = { min: 1e-4, max: 5, log: true, label: "mean norm of the gradient", ticks: [1e-4, 1e-3, 1e-2, 0.1, 1] };
    const layers = [line(scaled, { stroke: "green" }), line(curve), label(20, 0.9, "with T²", { fill: "green" }), label(20, 6e-3, "without", { fill: "blue" })];
    const rows = curve.filter((_, k) => k % 4 === 0).map(([a, b]) => [short(a), b.toPrecision(3), (b * a * a).toPrecision(3)]);
    return h("div", {}, chart({ width: this.half, x, y, text }, ...layers, vertical(t, "", { stroke: "gray", dashed: false })), numbers("Numbers of this chart", ["T", "without", "with T²"], rows));
  }

  /** Width of a chart in one of two columns, or of the only one on a phone. */
  get half() {
    return this.width >= 626 ? Math.floor((this.width - 26) / 2) : this.width;
  }
}

const short = (value) => (value < 10 ? Number(value.toPrecision(2)) : Math.round(value)).toString();
const percent = (p) => `${p > 0.9995 ? "100" : (100 * p).toPrecision(p < 0.01 ? 1 : p < 0.1 ? 2 : 3)} %`;

/** The two distributions, the teacher's most likely class first; a shade behind each number is as long as it is large. */
function laws(classes, order, p, q) {
  const cell = (value, name) => h("td", {}, h("i", { style: `width: ${(100 * value).toFixed(1)}%; background: var(--plot-${name})` }), `${(100 * value).toFixed(1)} %`);
  const rows = order.map((k) => h("tr", {}, h("th", { scope: "row" }, classes[k]), cell(p[k], "blue"), cell(q[k], "orange")));
  const head = h("tr", {}, h("th", { scope: "col" }, "class"), h("th", { scope: "col" }, "teacher"), h("th", { scope: "col" }, "student S5"));
  return h("table", { class: "laws" }, h("thead", {}, head), h("tbody", {}, ...rows));
}

customElements.define("fourbit-temperature", Temperature);
