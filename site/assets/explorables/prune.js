// <fourbit-prune>: remove weights of a trained network in four patterns and see what is left of it.
import { bars, chart, horizontal, label, line, numbers, points, show, table, vertical } from "./chart.js";
import { h, select, slider } from "./element.js";
import { Judged, percent } from "./judge.js";
import { account, count, prune } from "./pruning.js";

const PATTERNS = [
  ["global", "weights, one threshold for all layers", "blue"],
  ["layer", "weights, the same share in each layer", "green"],
  ["2:4", "two of each four inputs", "orange"],
  ["channels", "whole channels", "purple"],
];
const ASKED = 0.9;
const SWEEP = [0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95];
const BINS = 48;

const colorOf = (pattern) => PATTERNS.find(([key]) => key === pattern)[2];

class Prune extends Judged {
  async build(root) {
    await this.prepare(); // this.tried: "pattern sparsity" -> {pattern, removed, accuracy}
    this.pattern = select("Pattern", PATTERNS.map(([key, text]) => [key, text]), { value: "global", oninput: () => this.change() });
    this.sparsity = slider("Sparsity", { min: 0, max: 0.99, step: 0.01, value: ASKED, format: (s) => `${Math.round(100 * s)} %`, oninput: () => this.change() });
    const layers = Object.keys(this.network.parameters).map((name) => [name, name]);
    this.layer = select("Histogram of", [["all", "all layers"], ...layers], { value: "all", oninput: () => this.draw() });
    this.sweep = h("button", { type: "button", onclick: () => this.tryAll() }, "Try ten sparsities");
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "What goes"), this.pattern, this.sparsity, this.layer, h("div", {}, this.sweep));
    this.curve = h("div");
    this.histogram = h("div");
    this.counts = h("div");
    this.results = h("div", {}, h("div", { class: "panels" }, this.curve, this.histogram), this.counts, this.live, this.remarks());
    this.ask("prune", `Set the smallest ${100 * ASKED} % of all its weights to zero, by one threshold, and train nothing afterwards.`);
    root.append(h("h3", {}, "Prune a network"), this.lock.element, this.controls, this.results);
  }

  /** The dense network first, by the loop that skips nothing; its time is what the others are compared with. */
  async start() {
    await this.judged(this.network.parameters, { skipping: false }); // the first run also compiles the loops
    this.dense = await this.judged(this.network.parameters, { skipping: false });
    if (!this.dense) return;
    Object.assign(this.pattern.input, { value: "global" });
    this.sparsity.input.value = ASKED;
    this.change();
  }

  /** Prune as the controls say. */
  change() {
    const pattern = this.pattern.input.value, fixed = pattern === "2:4";
    const sparsity = fixed ? 0.5 : Number(this.sparsity.input.value);
    this.sparsity.input.disabled = fixed;
    this.settle({ pattern, sparsity, parameters: prune(this.network.parameters, pattern, sparsity) });
  }

  async test({ pattern, sparsity, parameters }) {
    const found = await this.judged(parameters);
    if (!found) return null;
    const left = account(this.network.description, parameters, pattern), removed = 1 - left.weights / this.total;
    this.tried.set(`${pattern} ${sparsity}`, { pattern, removed, accuracy: found.accuracy });
    if (pattern === "global" && sparsity === ASKED) this.answer(found.accuracy);
    return { ...found, ...left, removed };
  }

  get total() {
    return Object.values(this.network.parameters).reduce((sum, { weight }) => sum + weight.length, 0);
  }

  async tryAll() {
    const pattern = this.pattern.input.value;
    this.sweep.disabled = true;
    for (const sparsity of pattern === "2:4" ? [0.5] : SWEEP) {
      if (this.lock.guess === null) break;
      await this.test({ pattern, sparsity, parameters: prune(this.network.parameters, pattern, sparsity) });
      this.draw();
    }
    this.sweep.disabled = false;
    this.say(`Tried: ${PATTERNS.find(([key]) => key === pattern)[1]}. Open the numbers of the curve to read them.`);
  }

  report({ pattern, sparsity, correct, accuracy, removed, weights, macs, bytes, milliseconds, logits }) {
    this.reflect({ state: "done", pattern, sparsity, correct, accuracy, kept: weights, macs, bytes, milliseconds, logits: JSON.stringify(logits) });
    this.say(`With ${percent(removed)} of the weights removed, ${percent(accuracy)} of ${this.images} images are named correctly.`);
  }

  draws() {
    this.drawCurve();
    this.drawHistogram();
    this.drawCounts();
  }

  drawCurve() {
    const tried = [...this.tried.values()].sort((a, b) => a.removed - b.removed);
    const layers = PATTERNS.flatMap(([key, , color]) => {
      const values = tried.filter(({ pattern }) => pattern === key).map(({ removed, accuracy }) => [100 * removed, 100 * accuracy]);
      return values.length ? [line(values, { stroke: color }), points(values, { fill: color })] : [];
    });
    const guess = [[100 * ASKED, this.lock.guess]];
    layers.push(horizontal(100 * this.dense.accuracy, "dense", { stroke: "gray" }), points(guess, { fill: "vermilion", radius: 5 }));
    layers.push(label(100 * ASKED - 2, this.lock.guess, "your guess", { fill: "vermilion", anchor: "end" }));
    const used = PATTERNS.filter(([key]) => tried.some(({ pattern }) => pattern === key));
    const names = used.map(([, text, color]) => h("span", { class: "choice", style: `color: var(--plot-${color})` }, `● ${text}`));
    show(this.curve,
      chart({
        width: this.curve.clientWidth || this.width, height: 240, text: `Accuracy against the share of removed weights, ${tried.length} settings tried so far.`,
        x: { min: 0, max: 100, label: "weights removed, %" }, y: { min: 0, max: 100, label: "accuracy, %" },
      }, ...layers),
      h("p", { class: "small" }, ...names),
      numbers("Numbers of the curve", ["pattern", "removed", "accuracy"], tried.map((t) => [t.pattern, percent(t.removed), percent(t.accuracy)])),
    );
  }

  drawHistogram() {
    const chosen = this.layer.input.value, names = chosen === "all" ? Object.keys(this.network.parameters) : [chosen];
    const before = names.map((name) => this.network.parameters[name].weight), after = names.map((name) => this.now.parameters[name].weight);
    const { all, gone, edge, threshold } = histogram(before, after);
    const place = (bin) => -edge + (2 * edge * bin) / BINS;
    const single = this.now.pattern === "global" || this.now.pattern === "layer";
    const sharp = single && (this.now.pattern === "global" || names.length === 1) && threshold > 0 && threshold < edge;
    const top = 1.15 * Math.max(...all), side = threshold < edge / 2 ? "start" : "end";
    const rules = sharp ? [vertical(-threshold), vertical(threshold), label(threshold * (side === "start" ? 1.1 : 0.9), 0.93 * top, `threshold ${threshold.toFixed(3)}`, { fill: "vermilion", anchor: side })] : [];
    const left = before.reduce((sum, w, i) => sum + count(after[i]), 0), total = before.reduce((sum, w) => sum + w.length, 0);
    show(this.histogram,
      chart({
        width: this.histogram.clientWidth || this.width, height: 240,
        text: `Histogram of the weights of ${chosen === "all" ? "all layers" : chosen}: ${left} of ${total} are left${sharp ? `, those above ${threshold.toFixed(3)} in magnitude` : ""}.`,
        x: { min: -edge, max: edge, label: "weight (ends hold what lies beyond)" }, y: { min: 0, max: top, label: "weights" },
      },
      bars(all.map((height, bin) => [place(bin), place(bin + 1), height])),
      bars(gone.map((height, bin) => [place(bin), place(bin + 1), height]), { fill: "gray" }), ...rules),
      h("p", { class: "small" }, h("span", { style: "color: var(--plot-blue)" }, "● kept: "), `${left.toLocaleString("en")} `, h("span", { style: "color: var(--plot-gray)" }, "● removed: "), (total - left).toLocaleString("en")),
    );
  }

  drawCounts() {
    const { weights, macs, bytes } = account(this.network.description, this.now.parameters, this.now.pattern);
    const whole = account(this.network.description, this.network.parameters, "global"), { accuracy, milliseconds } = this.now;
    const row = (name, before, after) => [name, before.toLocaleString("en"), after.toLocaleString("en"), percent(after / before)];
    const waiting = "...";
    const layers = Object.entries(this.now.parameters).map(([name, { weight }]) => [name, weight.length.toLocaleString("en"), count(weight).toLocaleString("en"), percent(count(weight) / weight.length)]);
    show(this.counts,
      table(["", "dense", "pruned", "left"], [
        ["accuracy", percent(this.dense.accuracy), accuracy === undefined ? waiting : percent(accuracy), ""],
        row("weights that are not zero", whole.weights, weights), row("MACs for an image", whole.macs, macs), row("bytes", whole.bytes, bytes),
        ["milliseconds for an image, here", this.dense.milliseconds.toFixed(2), milliseconds === undefined ? waiting : milliseconds.toFixed(2),
          milliseconds === undefined ? waiting : percent(milliseconds / this.dense.milliseconds)],
      ]),
      numbers("Layer by layer", ["layer", "weights", "left", "share"], layers),
    );
  }

  remarks() {
    return h("p", { class: "small" },
      `The network is S6 of this course; its batch normalization is folded into the convolutions first, so its thresholds are other ones than those of an unfolded network. Images are the first ${this.images} of Fashion-MNIST's test set. `,
      "Bytes: float32 values and one bit for each weight that says whether it is there (dense layers and what is left of whole channels need no such bits), and biases. ",
      "Milliseconds are measured in this page, in one thread, once: dense by a loop that multiplies by every weight, pruned by one that leaves zeros out. In this loop a weight multiplies hundreds of neighbors before the next is looked up, so a zero that is skipped saves nearly all of its time. The kernels of a library multiply many weights at once and cannot skip one of them: there, single weights save nothing until most are gone.");
  }
}

/** Counts of weights and of removed weights in equal bins, whose ends lie four standard deviations out. */
function histogram(before, after) {
  let squares = 0, total = 0, threshold = 0;
  for (const weight of before) for (const w of weight) { squares += w * w; total++; }
  const edge = 4 * Math.sqrt(squares / total), all = new Array(BINS).fill(0), gone = new Array(BINS).fill(0);
  before.forEach((weight, i) => weight.forEach((w, k) => {
    const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((w + edge) / (2 * edge)) * BINS)));
    all[bin]++;
    if (after[i][k] === 0) { gone[bin]++; threshold = Math.max(threshold, Math.abs(w)); }
  }));
  return { all, gone, edge, threshold };
}

customElements.define("fourbit-prune", Prune);
