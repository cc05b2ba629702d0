// <fourbit-quantize>: round the weights of a trained network to few values and see where the error goes.
import { chart, horizontal, label, line, numbers, points, show, table } from "./chart.js";
import { h, load, select, slider } from "./element.js";
import { Judged, percent } from "./judge.js";
import { bytes, errors, quantize } from "./quantizing.js";

const FORMS = [
  ["symmetric", "symmetric, zero in the middle"],
  ["affine", "asymmetric, with a zero point"],
  ["normal", "NormalFloat (NF4 at four bits)"],
];
const SHARINGS = [
  ["tensor", "one for each tensor"], ["channel", "one for each output channel"], ["128", "one for 128 inputs"],
  ["64", "one for 64 inputs"], ["32", "one for 32 inputs"], ["16", "one for 16 inputs"],
];
const COLORS = ["blue", "green", "purple", "orange", "sky", "gray"];
const ASKED = { form: "symmetric", bits: 3, sharing: "tensor" };

const keyOf = ({ form, bits, sharing }) => `${form} ${bits} ${sharing}`;
const named = (options, key) => options.find(([value]) => value === key)[1];

class Quantize extends Judged {
  async build(root) {
    [this.levels] = await Promise.all([load("levels.json"), this.prepare()]); // this.tried: key of a setting -> {setting, accuracy, bytes}
    const oninput = () => this.change();
    this.bits = slider("Bits", { min: 2, max: 8, value: ASKED.bits, oninput });
    this.form = select("Values", FORMS, { value: ASKED.form, oninput });
    this.sharing = select("Scales", SHARINGS, { value: ASKED.sharing, oninput });
    this.layer = select("Errors of", Object.keys(this.network.parameters).map((name) => [name, name]), { value: "conv1", oninput: () => this.draw() });
    this.sweep = h("button", { type: "button", onclick: () => this.tryAll() }, "Try all bits");
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "The grid"), this.bits, this.form, this.sharing, this.layer, h("div", {}, this.sweep));
    this.curve = h("div");
    this.map = h("div");
    this.counts = h("div");
    this.results = h("div", {}, h("div", { class: "panels" }, this.curve, this.map), this.counts, this.live, this.remarks());
    this.ask("quantize", "Round every weight to three bits, seven values from \u22123 to 3 times one scale for each tensor, and train nothing afterwards.");
    root.append(h("h3", {}, "Quantize a network"), this.lock.element, this.controls, this.results);
  }

  async start() {
    const found = await this.judged(this.network.parameters);
    if (!found) return;
    this.float = found.accuracy;
    this.bits.input.value = ASKED.bits;
    this.form.input.value = ASKED.form;
    this.sharing.input.value = ASKED.sharing;
    this.change();
  }

  get setting() {
    return { form: this.form.input.value, bits: Number(this.bits.input.value), sharing: this.sharing.input.value };
  }

  /** Quantize as the controls say. */
  change() {
    const { setting } = this;
    this.settle({ setting, parameters: quantize(this.network.parameters, setting, this.levels) });
  }

  async test({ setting, parameters }) {
    const found = await this.judged(parameters);
    if (!found) return null;
    this.tried.set(keyOf(setting), { setting, accuracy: found.accuracy, bytes: bytes(this.network.parameters, setting).all });
    if (keyOf(setting) === keyOf(ASKED)) this.answer(found.accuracy);
    return found;
  }

  async tryAll() {
    const { form, sharing } = this.setting;
    this.sweep.disabled = true;
    for (let bits = 2; bits <= 8 && this.lock.guess !== null; bits++) {
      const setting = { form, bits, sharing };
      await this.test({ setting, parameters: quantize(this.network.parameters, setting, this.levels) });
      this.draw();
    }
    this.sweep.disabled = false;
    this.say(`Tried two to eight bits: ${named(FORMS, form)}, scales ${named(SHARINGS, sharing)}. Open the numbers of the curve to read them.`);
  }

  report({ setting, correct, accuracy, logits }) {
    const { all } = bytes(this.network.parameters, setting);
    this.reflect({ state: "done", ...setting, correct, accuracy, bytes: all, logits: JSON.stringify(logits) });
    this.say(`At ${setting.bits} bits, ${named(FORMS, setting.form)}, scales ${named(SHARINGS, setting.sharing)}: ${percent(accuracy)} of ${this.images} images are named correctly, in ${all.toLocaleString("en")} bytes.`);
  }

  draws() {
    this.drawCurve();
    this.drawMap();
    this.drawCounts();
  }

  drawCurve() {
    const tried = [...this.tried.values()].sort((a, b) => a.setting.bits - b.setting.bits);
    const kinds = [...new Set(tried.map(({ setting }) => `${setting.form} ${setting.sharing}`))].sort();
    const colorOf = (kind) => COLORS[kinds.indexOf(kind) % COLORS.length];
    const layers = kinds.flatMap((kind) => {
      const values = tried.filter(({ setting }) => `${setting.form} ${setting.sharing}` === kind).map(({ setting, accuracy }) => [setting.bits, 100 * accuracy]);
      return [line(values, { stroke: colorOf(kind) }), points(values, { fill: colorOf(kind) })];
    });
    layers.push(horizontal(100 * this.float, "float32", { stroke: "gray" }), points([[ASKED.bits, this.lock.guess]], { fill: "vermilion", radius: 5 }));
    layers.push(label(ASKED.bits + 0.2, this.lock.guess, "your guess", { fill: "vermilion" }));
    const names = kinds.map((kind) => h("span", { class: "choice", style: `color: var(--plot-${colorOf(kind)})` }, `● ${legend(kind)}`));
    show(this.curve,
      chart({
        width: this.curve.clientWidth || this.width, height: 240, text: `Accuracy against bits, ${tried.length} settings tried so far.`,
        x: { min: 1.5, max: 8.5, label: "bits of a weight", ticks: [2, 3, 4, 5, 6, 7, 8] }, y: { min: 0, max: 100, label: "accuracy, %" },
      }, ...layers),
      h("p", { class: "small" }, ...names),
      numbers("Numbers of the curve", ["values, scales", "bits", "accuracy", "bytes"],
        tried.map((t) => [legend(`${t.setting.form} ${t.setting.sharing}`), String(t.setting.bits), percent(t.accuracy), t.bytes.toLocaleString("en")])),
    );
  }

  /** The error of each weight of a layer, a row for each output: too low in one color, too high in the other. */
  drawMap() {
    const name = this.layer.input.value, { weight, shape } = this.network.parameters[name], rounded = this.now.parameters[name].weight;
    const rows = shape[0], columns = weight.length / rows, { largest, decibels, zeros } = errors(weight, rounded);
    const picture = h("canvas", { width: columns, height: rows, role: "img", style: "width: 100%; height: 190px",
      "aria-label": `Errors of the ${rows} outputs by ${columns} inputs of ${name}: at most ${largest.toFixed(3)}.` });
    paint(picture, (i) => (rounded[i] - weight[i]) / (largest || 1), getComputedStyle(this));
    this.reflect({ decibels, zeros });
    show(this.map,
      h("p", { class: "small", style: "margin-top: 0" }, `Error of each weight of ${name}: ${rows} outputs (down), ${columns} inputs (across)`),
      picture,
      h("p", { class: "small" }, h("span", { style: "color: var(--plot-blue)" }, "■ rounded down "), h("span", { style: "color: var(--plot-vermilion)" }, "■ rounded up"), `, full color at ${largest.toFixed(3)}`),
      table([`of ${name}`, "value"], [["largest error", largest.toFixed(4)], ["signal to noise", `${decibels.toFixed(1)} dB`], ["weights rounded to zero", percent(zeros)]]),
    );
  }

  drawCounts() {
    const { codes, scales, biases, all } = bytes(this.network.parameters, this.now.setting), { accuracy } = this.now;
    const weights = Object.values(this.network.parameters).reduce((sum, { weight }) => sum + weight.length, 0), whole = 4 * weights + biases;
    const row = (name, before, after) => [name, before.toLocaleString("en"), after.toLocaleString("en")];
    show(this.counts, table(["", "float32", "quantized"], [
      ["accuracy", percent(this.float), accuracy === undefined ? "..." : percent(accuracy)],
      row("bytes of weights or codes", 4 * weights, codes), row("bytes of scales and zero points", 0, scales), row("bytes of biases", biases, biases), row("bytes together", whole, all),
      ["bits for a weight, scales included", "32.00", ((8 * (codes + scales)) / weights).toFixed(2)], ["times smaller", "1.0", (whole / all).toFixed(1)],
    ]));
  }

  remarks() {
    return h("p", { class: "small" },
      `The network is S6 of this course with its batch normalization folded into the convolutions; images are the first ${this.images} of Fashion-MNIST's test set. `,
      "Only weights are rounded; biases and activations stay as they are. A scale is a float32 number, set by the largest magnitude that shares it (asymmetric: by the smallest and the largest value, with a zero point of one byte). Groups do not cross rows: where a row is shorter than a group, it has a scale of its own.");
  }
}

function legend(kind) {
  const [form, sharing] = kind.split(" ");
  const scales = { tensor: "tensor", channel: "channel" }[sharing] ?? `groups of ${sharing}`;
  return `${{ symmetric: "symmetric", affine: "asymmetric", normal: "NormalFloat" }[form]}, ${scales}`;
}

/** Fill a canvas, one pixel for each value from -1 to 1, in the page's blue and vermilion. */
function paint(canvas, value, style) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const [low, high] = ["--plot-blue", "--plot-vermilion"].map((name) => rgb(style.getPropertyValue(name).trim()));
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const share = value(i);
    image.data.set([...(share < 0 ? low : high), Math.round(255 * Math.min(1, Math.abs(share)))], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

customElements.define("fourbit-quantize", Quantize);
