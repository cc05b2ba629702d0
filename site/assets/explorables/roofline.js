// The roofline of the reader's own machine, with the operations of this course on it.
import { chart, horizontal, line, s, table } from "./chart.js";
import { Explorable, h, load, slider } from "./element.js";
import { predict } from "./predict.js";
import { attainable, limit, machines, tokens, work } from "./roofline-formulas.js";

const ASKED = { flops: 100e9, bandwidth: 20e9 };
const NOTE = "1 to 4: a linear layer, 4096 to 11008, with weights of 32 to 4 bits. 5: the same layer in 32 bits, for 512 tokens of a prompt. 6: 3×3, 64 to 64 channels, 28×28. 7: the same with each channel by itself. All other values take 4 bytes. Times are the least possible.";
const STYLE = `
table { font-size: 0.85em; }
th, td { padding-right: 0.6em; white-space: nowrap; }
@media (max-width: 30rem) { table { font-size: 0.75em; } th, td { padding-right: 0.3em; } :is(th, td):last-child { padding-right: 0; } }
`;
const COLORS = ["blue", "blue", "blue", "blue", "purple", "green", "orange"];

class Roofline extends Explorable {
  async build(root) {
    this.data = await load("roofline.json");
    this.batch = slider("Batch", { min: 0, max: 9, value: 0, format: (v) => `${2 ** v}`, oninput: () => this.draw() });
    this.flops = number("Arithmetic, GFLOP/s", ASKED.flops / 1e9, () => this.draw());
    this.bandwidth = number("Memory, GB/s", ASKED.bandwidth / 1e9, () => this.draw());
    this.paste = h("textarea", { rows: 2, placeholder: "96.4 GFLOP/s, 11.2 GB/s (1 thread)", oninput: () => this.read() });
    this.found = h("span", { class: "small", "aria-live": "polite" });
    const pasted = h("label", {}, "Or paste what lab 00 or ", h("code", {}, "fourbit doctor"), " printed", this.paste);
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "Machine and batch"), this.flops, this.bandwidth, this.batch, h("div", {}, pasted, this.found));
    this.picture = h("div");
    this.tables = h("div");
    const results = h("div", {}, this.picture, this.live, this.tables);
    this.lock = predict(this, {
      name: "roofline",
      question: "A machine computes 100 GFLOP/s and reads 20 GB/s. It multiplies a matrix of float32 weights by one vector. How many GFLOP/s can it reach at most?",
      range: { min: 1, max: 100, step: 1, value: 50, format: (v) => `${v} GFLOP/s` },
      locked: [this.controls, results], open: () => this.draw(),
    });
    root.append(h("style", {}, STYLE), h("h3", {}, "Your machine's roofline"), this.lock.element, this.controls, results);
  }

  /** Take the numbers of a pasted report; of several (one thread, all threads) the last. */
  read() {
    const all = machines(this.paste.value), machine = all.at(-1);
    this.found.textContent = machine ? `Taken: ${machine.threads === 1 ? "1 thread" : `${machine.threads} threads`}.` : this.paste.value ? "No line such as 96.4 GFLOP/s, 11.2 GB/s (1 thread) in it." : "";
    if (!machine) return;
    this.flops.input.value = machine.flops / 1e9;
    this.bandwidth.input.value = machine.bandwidth / 1e9;
    this.draw();
  }

  draw() {
    if (this.lock.guess === null) return;
    const machine = { flops: 1e9 * Number(this.flops.input.value), bandwidth: 1e9 * Number(this.bandwidth.input.value) };
    const first = attainable(ASKED, work(this.data.operations[0], 1).intensity);
    this.lock.compare(`It is ${(first / 1e9).toFixed(1)}: each weight of 4 bytes serves one multiplication and one addition.`);
    if (!(machine.flops > 0 && machine.bandwidth > 0)) return;
    const batch = 2 ** Number(this.batch.input.value);
    const found = this.data.operations.map((one) => {
      const counted = work(one, batch), roof = attainable(machine, counted.intensity);
      return { ...one, ...counted, roof, seconds: counted.flops / roof, limit: limit(machine, counted.intensity) };
    });
    const ridge = machine.flops / machine.bandwidth;
    this.picture.replaceChildren(this.roof(machine, found, ridge));
    this.tables.replaceChildren(operations(found), this.decode(machine, batch));
    for (const box of this.tables.querySelectorAll(".scroll")) { // in a large font on a phone
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
    this.reflect({ batch, ridge, points: JSON.stringify(found.map(({ name, intensity, roof, limit }) => ({ name, intensity, roof, limit }))) });
    const waiting = found.filter((one) => one.limit === "memory").map((one) => (one.rows === 1 ? `GEMV in ${one.short}` : one.short));
    this.say(`Ridge at ${short(ridge)} FLOP per byte. At batch ${batch} ${waiting.length ? `these wait for memory: ${waiting.join(", ")}` : "nothing waits for memory"}.`);
  }

  roof(machine, found, ridge) {
    const x = { min: 0.1, max: 2000, log: true, label: "arithmetic intensity, FLOP/byte", ticks: [0.1, 1, 10, 100, 1000] };
    const peak = machine.flops / 1e9, top = 3 * peak, bottom = Math.max(peak / 1e4, Math.min(peak / 100, 0.05 * (machine.bandwidth / 1e9)));
    const y = { min: bottom, max: top, log: true, label: "attainable, GFLOP/s", format: (v) => Number(v.toPrecision(1)).toString() };
    const bound = (intensity) => Math.max(bottom, attainable(machine, intensity) / 1e9);
    const edge = [x.min, ...(ridge > x.min && ridge < x.max ? [ridge] : []), x.max].map((i) => [i, bound(i)]);
    const text = `The roof rises with ${short(machine.bandwidth / 1e9)} GB/s to the ridge at ${short(ridge)} FLOP per byte and is flat at ${short(machine.flops / 1e9)} GFLOP/s. The table below has the seven operations.`;
    const guess = this.lock.guess >= bottom && this.lock.guess <= top ? [horizontal(this.lock.guess, "your guess")] : [];
    const dots = found.map((one, i) => numbered(i + 1, Math.min(x.max, one.intensity), Math.max(bottom, one.roof / 1e9), COLORS[i], one.rows === 1));
    return chart({ width: this.width, height: 300, x, y, text }, line(edge, { stroke: "gray" }), ...guess, ...dots);
  }

  decode(machine, batch) {
    const rates = this.data.decode.map(({ form, bytes }) => [form, bytes, tokens(machine, 1, bytes, this.data.weights), tokens(machine, batch, bytes, this.data.weights)]);
    this.reflect({ tokens: JSON.stringify(rates.map(([form, , one, many]) => ({ form, one, many }))) });
    const together = batch > 1 ? [`${batch} readers`] : [];
    const rows = rates.map(([form, bytes, one, many]) => [form, (bytes / 1e9).toFixed(2), short(one), ...together.map(() => short(many))]);
    return h("div", {}, h("p", { class: "small" }, "Llama-2-7B decodes at most so many tokens a second (all readers together, cache empty):"), table(["stored as", "GB a token", "one reader", ...together], rows));
  }
}

const short = (value) => (value >= 1000 ? Math.round(value).toLocaleString("en-US") : Number(value.toPrecision(3)).toString());

function number(label, value, oninput) {
  const input = h("input", { type: "number", min: 0.1, step: "any", value, oninput });
  return Object.assign(h("label", {}, label, input), { input });
}

/** A dot with a number above or below it. */
const numbered = (text, x, y, name, above) => (at) => [
  s("circle", { cx: at.x(x), cy: at.y(y), r: 5, fill: `var(--plot-${name})` }),
  s("text", { x: at.x(x) + (above ? -8 : 8), y: at.y(y) + (above ? -8 : 17), "text-anchor": "middle", style: `fill: var(--plot-${name})` }, String(text)),
];

function operations(found) {
  const rows = found.map((one, i) => [`${i + 1} ${one.short.replace("convolution", "conv.")}`, short(one.intensity), short(one.roof / 1e9), time(one.seconds), one.limit]);
  return h("div", {}, table(["operation", "FLOP/B", "GFLOP/s", "time", "limit"], rows), h("p", { class: "small" }, NOTE));
}

const time = (seconds) => (seconds >= 1 ? `${short(seconds)} s` : seconds >= 1e-3 ? `${short(1e3 * seconds)} ms` : `${short(1e6 * seconds)} µs`);

customElements.define("fourbit-roofline", Roofline);
