// Will it fit: weights, cache, buffers and the rest of a language model against a device, before anything is loaded.
import { chart, s, table, vertical } from "./chart.js";
import { Explorable, h, load, select, slider } from "./element.js";
import { chosen, gigabytes, parameters, tokensPerSecond, verdict } from "./fit-formulas.js";
import { predict } from "./predict.js";

const FORMS = [["Q4_0", "Q4_0, 4.5 bits"], ["Q4_K_M", "Q4_K_M, about 4.9 bits"], ["Q8_0", "Q8_0, 8.5 bits"], ["F16", "F16, 16 bits"], ["NF4", "NF4 on a GPU (bitsandbytes)"]];
const CACHES = [["f16", "float16"], ["q8", "8 bits"], ["q4", "4 bits"]];
const DEVICES = [ // free memory in GB, bandwidth in GB/s
  { name: "a laptop of 8 GB, 5 free", memory: 5, bandwidth: 50, gpu: false },
  { name: "a laptop of 16 GB, 10 free", memory: 10, bandwidth: 50, gpu: false },
  { name: "a GPU of 6 GiB", memory: 6.44, bandwidth: 400, gpu: true },
  { name: "a GPU of 12 GiB", memory: 12.88, bandwidth: 400, gpu: true },
  { name: "a GPU of 24 GiB", memory: 25.77, bandwidth: 1000, gpu: true },
];
const ASKED = { model: "Llama-3-8B", form: "Q8_0", context: 8192 };
const OWN = "own numbers";
const SIZES = [["layers", "Layers"], ["width", "Width"], ["ff", "Feed-forward width"], ["heads", "Query heads"], ["head_width", "Width of a head"], ["vocabulary", "Vocabulary"], ["context", "Longest context"]];
const PARTS = [["weights", "weights", "blue"], ["kv_cache", "cache", "orange"], ["activations", "buffers", "green"], ["overhead", "all else", "purple"]];
const STEP = 256;
const whole = (count) => count.toLocaleString("en-US");

class Fit extends Explorable {
  async build(root) {
    this.data = await load("fit.json");
    const draw = () => this.draw();
    const known = this.data.models.map(({ name }) => [name, name]);
    this.model = select("Model", [...known, [OWN, OWN]], { value: ASKED.model, oninput: () => this.take() });
    this.form = select("Weights", FORMS, { value: ASKED.form, oninput: draw });
    this.kv = select("Cache", CACHES, { value: "f16", oninput: draw });
    this.heads = select("Heads of keys and values", [], { oninput: draw });
    this.context = slider("Context", { min: 512, max: 8192, step: STEP, value: ASKED.context, format: (v) => `${whole(v)} tokens`, oninput: draw });
    this.device = select("Device", [...DEVICES.map(({ name }, i) => [String(i), name]), ["own", OWN]], { value: "1", oninput: () => this.place() });
    this.memory = number("Free memory, GB", () => this.owned());
    this.bandwidth = number("Reads, GB/s", () => this.owned());
    this.gpu = h("input", { type: "checkbox", oninput: () => this.owned() });
    this.own = Object.fromEntries(SIZES.map(([key, text]) => [key, number(text, () => this.offer())]));
    this.tied = h("input", { type: "checkbox", oninput: draw });
    this.shape = h("fieldset", { class: "controls", hidden: true }, h("legend", {}, "Shape of the model"), ...Object.values(this.own), h("label", {}, this.tied, " the head is the embedding matrix"));
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "Model and cache"), this.model, this.form, this.kv, this.context, this.heads);
    this.devices = h("fieldset", { class: "controls" }, h("legend", {}, "Device"), this.device, this.memory, this.bandwidth, h("label", {}, this.gpu, " layers may wait in the computer's memory (GPU)"));
    this.picture = h("div");
    this.told = h("div");
    const results = h("div", {}, this.picture, this.live, this.told);
    this.lock = predict(this, {
      name: "fit",
      question: `${ASKED.model} in ${ASKED.form}, with ${whole(ASKED.context)} tokens of context in float16: how many GB does a program that runs it hold in all?`,
      range: { min: 1, max: 20, step: 0.25, value: 4, format: (v) => `${v} GB` },
      locked: [this.controls, this.shape, this.devices, results], open: draw,
    });
    this.place();
    this.take();
    root.append(h("h3", {}, "Will it fit?"), this.lock.element, this.controls, this.shape, this.devices, results);
  }

  /** Fill in the shape of the model that was chosen; own numbers begin with the last one. */
  take() {
    this.shape.hidden = this.model.input.value !== OWN;
    const model = this.data.models.find(({ name }) => name === this.model.input.value);
    if (model) {
      this.base = model.config;
      for (const [key] of SIZES) this.own[key].input.value = this.base[key];
      this.tied.checked = this.base.tied;
    }
    this.offer();
  }

  /** Offer the contexts and the numbers of key-value heads that the shape allows. */
  offer() {
    const heads = Number(this.own.heads.input.value), input = this.heads.input;
    const kept = this.model.input.value === OWN && input.value ? Number(input.value) : this.base.kv_heads;
    const counts = Array.from({ length: Math.min(Math.max(0, heads), 512) }, (_, i) => i + 1).filter((count) => heads % count === 0);
    input.replaceChildren(...counts.map((count) => h("option", { value: count, selected: count === kept }, count === heads ? `${count}, one for each query head` : `${count}, each shared by ${heads / count}`)));
    this.context.input.max = Math.max(512, Math.floor(Number(this.own.context.input.value) / STEP) * STEP);
    this.context.input.dispatchEvent(new Event("input")); // the browser has moved it below the new end
  }

  /** Fill in the numbers of the device that was chosen. */
  place() {
    const device = DEVICES[Number(this.device.input.value)];
    if (device) {
      this.memory.input.value = device.memory;
      this.bandwidth.input.value = device.bandwidth;
      this.gpu.checked = device.gpu;
    }
    this.draw();
  }

  owned() {
    this.device.input.value = "own";
    this.draw();
  }

  get config() {
    const sizes = Object.fromEntries(SIZES.map(([key]) => [key, Number(this.own[key].input.value)]));
    const config = { ...this.base, ...sizes, kv_heads: Number(this.heads.input.value), tied: this.tied.checked };
    for (const [key, text] of SIZES) {
      const most = key === "layers" ? 1000 : key === "head_width" ? 4096 : 2 ** 30;
      if (!(Number.isInteger(config[key]) && config[key] > 0 && config[key] <= most)) throw new Error(`${text}: a whole number from 1 to ${whole(most)}`);
    }
    return config;
  }

  get judged() {
    const form = this.form.input.value, name = this.model.input.value === OWN ? "This model" : this.model.input.value;
    const plan = chosen(this.data, { config: this.config, form, context: Number(this.context.input.value), kv: this.kv.input.value, baseline: this.data.baseline, name });
    const gpu = this.gpu.checked, place = this.device.input.value === "own" ? "the device" : gpu ? "the GPU" : "the laptop";
    const device = { name: place, memory: Math.round(1e9 * Number(this.memory.input.value)), bandwidth: 1e9 * Number(this.bandwidth.input.value), gpu };
    if (!(device.memory > 0 && device.bandwidth > 0)) throw new Error("Memory and bandwidth are numbers above 0");
    return verdict(this.data, plan, device);
  }

  draw() {
    if (!this.lock || this.lock.guess === null) return;
    this.kv.input.disabled = this.form.input.value === "NF4"; // its cache is in bfloat16
    this.lock.compare(`It holds ${gigabytes(this.asked.total)}, and the weights are ${gigabytes(this.asked.weights)} of that.`);
    let found;
    try {
      found = this.judged;
    } catch (error) {
      this.picture.replaceChildren();
      this.told.replaceChildren(h("p", { role: "alert" }, `${error.message}.`));
      return;
    }
    const { plan, device, fits, options } = found, rate = tokensPerSecond(plan, device);
    this.picture.replaceChildren(this.bar(plan, device));
    this.told.replaceChildren(...sentences(found), parts(plan), h("p", {}, speed(plan, device, rate, fits)));
    const { weights, kv_cache: kvCache, activations, overhead, total } = plan;
    this.reflect({ weights, kvCache, activations, overhead, total, fits, tokens: rate, options: JSON.stringify(options.map(({ text }) => text)) });
    this.say(fits ? `It fits: ${gigabytes(total)} of ${gigabytes(device.memory)}, at most ${rate.toFixed(1)} tokens a second.` : `It does not fit: ${gigabytes(total)} in ${gigabytes(device.memory)}.`);
  }

  /** The plan that the question is about. */
  get asked() {
    const { config } = this.data.models.find(({ name }) => name === ASKED.model);
    return chosen(this.data, { config, form: ASKED.form, context: ASKED.context, kv: "f16", baseline: this.data.baseline });
  }

  bar(plan, device) {
    const most = 1.08 * Math.max(plan.total, device.memory, 1e9 * this.lock.guess) / 1e9;
    const text = `${PARTS.map(([key, name]) => `${name} ${gigabytes(plan[key])}`).join(", ")}: ${gigabytes(plan.total)} in all; ${device.name} has ${gigabytes(device.memory)}.`;
    return chart({ width: this.width, height: 140, x: { min: 0, max: most, label: "GB" }, y: { min: 0, max: 1, ticks: [] }, text },
      stacked(plan), vertical(device.memory / 1e9, `${device.name}, ${gigabytes(device.memory)}`, { stroke: "gray", dashed: false }), guessed(this.lock.guess));
  }
}

/** The parts side by side. */
const stacked = (plan) => (at) => {
  let left = 0;
  return PARTS.map(([key, , name]) => {
    const from = at.x(left / 1e9), to = at.x((left += plan[key]) / 1e9);
    return s("rect", { x: from, y: at.top + 28, width: Math.max(0, to - from), height: 40, fill: `var(--plot-${name})` });
  });
};

/** The reader's guess, below the parts. */
const guessed = (guess) => (at) => [
  s("path", { d: `M${at.x(guess)} ${at.top + 70}l-6 10h12z`, fill: "var(--plot-vermilion)" }),
  s("text", { x: at.x(guess) + 10, y: at.top + 81, style: "fill: var(--plot-vermilion)" }, "your guess"),
];

function parts(plan) {
  const swatch = (name) => h("span", { style: `display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.5em; background: var(--plot-${name})` });
  const rows = PARTS.map(([key, name, color]) => [h("span", {}, swatch(color), name), whole(plan[key])]);
  return table(["part", "bytes"], [...rows, ["in all", whole(plan.total)]]);
}

/** The verdict as Python words it, with what would fit as a list. */
function sentences({ reason, options }) {
  const [needs, ways] = reason.split(". What fits: ");
  if (ways === undefined) return [h("p", {}, `${needs}.`)];
  const list = options.map(({ text }) => h("li", {}, ...text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part))));
  return [h("p", {}, `${needs}. What would fit:`), h("ul", {}, ...(list.length ? list : [h("li", {}, ways)]))];
}

function speed(plan, device, rate, fits) {
  const bits = (8 * plan.weights) / parameters(plan.config), empty = device.bandwidth / plan.per_token;
  return `${(parameters(plan.config) / 1e9).toFixed(2)} billion parameters at ${bits.toFixed(2)} bits. ${fits ? "Reading alone allows" : "Did it fit, reading alone would allow"} ${rate.toFixed(1)} tokens a second with a full context and ${empty.toFixed(1)} with an empty one.`;
}

function number(label, oninput) {
  const input = h("input", { type: "number", min: 0, step: "any", oninput });
  return Object.assign(h("label", {}, label, input), { input });
}

customElements.define("fourbit-fit", Fit);
