// What a language model takes in memory, and whether a device has it: the arithmetic of fourbit/llm/sizes.py, plan.py
// and fit.py, with the same words. `k` holds their constants, from data/fit.json. Bytes are whole numbers below 2^53.

const product = (values) => values.reduce((a, b) => a * b, 1);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const GIGA = 1e9;

/** [[name, shape], ...] of a checkpoint's tensors; a tied head has none of its own. */
export function shapes(c) {
  const queries = c.heads * c.head_width, keys = c.kv_heads * c.head_width, found = [["embed_tokens", [c.vocabulary, c.width]]];
  const linears = [
    ["q_proj", queries, c.width], ["k_proj", keys, c.width], ["v_proj", keys, c.width], ["o_proj", c.width, queries],
    ["gate_proj", c.ff, c.width], ["up_proj", c.ff, c.width], ["down_proj", c.width, c.ff],
  ];
  for (let i = 0; i < c.layers; i++) {
    for (const [name, rows, columns] of linears) {
      found.push([`layers.${i}.${name}`, [rows, columns]]);
      if (c.qkv_bias && /^[qkv]_/.test(name)) found.push([`layers.${i}.${name}.bias`, [rows]]);
    }
    found.push([`layers.${i}.input_norm`, [c.width]], [`layers.${i}.post_norm`, [c.width]]);
  }
  found.push(["norm", [c.width]]);
  if (!c.tied) found.push(["lm_head", [c.vocabulary, c.width]]);
  return found;
}

export const parameters = (c) => sum(shapes(c).map(([, shape]) => product(shape)));

function tensorBytes(k, shape, kind) {
  const [block, size] = k.blocks[kind], row = shape.at(-1);
  if (row % block) throw new Error(`rows of ${row} weights are no multiple of ${kind}'s block of ${block}; choose F16`);
  return (product(shape) / block) * size;
}

/** A matrix in bitsandbytes' NF4 with double quantization: 4 bits, a scale of 8 for 64 weights, one of 32 for 256 scales. */
function nf4Bytes(k, weights) {
  const scales = Math.ceil(weights / 64);
  return Math.ceil(weights / 2) + scales + 4 * Math.ceil(scales / 256) + k.nf4_tables;
}

/** Bytes that one token adds to the cache: a key and a value for each layer and key-value head. */
export function cacheRowBytes(k, c, kv) {
  const [block, size] = k.cache[kv];
  if (c.head_width % block) throw new Error(`heads of ${c.head_width} channels are no multiple of ${kv}'s block of ${block}; use f16`);
  return 2 * c.layers * c.kv_heads * (c.head_width / block) * size;
}

/** Whether Q4_K_M spends more bits on a layer: the outer eighths, and every third between. */
function moreBits(layer, layers) {
  const eighth = Math.floor(layers / 8), end = Math.floor((7 * layers) / 8);
  return layer < eighth || layer >= end || (layer - eighth) % 3 === 2;
}

/** The kind of a tensor in a file of a format, as llama.cpp stores it. */
function kindOf(c, form, name, shape) {
  if (shape.length === 1) return "F32";
  const head = c.tied ? "embed_tokens" : "lm_head";
  if (form.startsWith("Q4") && name === head) return c.width % 256 ? "Q8_0" : "Q6_K";
  const [, layer, part] = /^layers\.(\d+)\.(.*)$/.exec(name) ?? [];
  if (form === "Q4_K_M" && (part === "v_proj" || part === "down_proj") && moreBits(Number(layer), c.layers)) return "Q6_K";
  return form.replace(/_M$/, "");
}

const formSizes = (k, c, form) => shapes(c).map(([name, shape]) => [name, tensorBytes(k, shape, kindOf(c, form, name, shape))]);

/** Python's round(): a half goes to the even neighbor. */
function roundEven(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest === 0.5 ? floor + (floor % 2) : Math.round(value);
}

/** A file of so many bytes, spread over the tensors in proportion. */
function spreadSizes(c, bytes) {
  const share = bytes / parameters(c);
  const found = shapes(c).map(([name, shape]) => [name, roundEven(share * product(shape))]);
  const lost = bytes - sum(found.map(([, size]) => size));
  return found.map(([name, size]) => [name, name === "norm" ? size + lost : size]);
}

/** Bytes of the buffers in which that many tokens are computed, and of the logits after the last. */
function activationBytes(c, tokens, number = 4) {
  const heads = (2 * c.heads + 2 * c.kv_heads) * c.head_width;
  return tokens * number * (3 * c.width + heads + 2 * c.ff) + 4 * c.vocabulary;
}

function planned(k, { name, config, form, sizes, context, kv }) {
  if (!(context > 1 && context <= config.context)) throw new Error(`${name} has a context of 2 to ${config.context} tokens, not ${context}`);
  const layers = new Array(config.layers).fill(0);
  for (const [tensor, size] of sizes) {
    const layer = /^layers\.(\d+)\./.exec(tensor);
    if (layer) layers[Number(layer[1])] += size;
  }
  const weights = sum(sizes.map(([, size]) => size));
  const embeddings = config.tied ? 0 : sizes.find(([tensor]) => tensor === "embed_tokens")[1];
  const found = { name, config, form, context, kv, weights, layer: Math.max(...layers), per_token: weights - embeddings };
  return finished({ ...found, kv_cache: context * cacheRowBytes(k, config, kv), activations: 0, overhead: 0 });
}

const finished = (plan) => ({ ...plan, total: plan.weights + plan.kv_cache + plan.activations + plan.overhead });

const withCache = (k, plan, context, kv = plan.kv) => finished({ ...plan, context, kv, kv_cache: context * cacheRowBytes(k, plan.config, kv) });

/** Plan for the CPU engine; `weights` is a GGUF format or the bytes of a file, `baseline` the process without a model. */
export function plan(k, { config, weights, context, kv = "f16", baseline, name = "the model" }) {
  const whole = typeof weights === "number";
  const sizes = whole ? spreadSizes(config, weights) : formSizes(k, config, weights);
  const form = whole ? `${fixed((8 * weights) / parameters(config), 2)} bits` : weights;
  const overhead = baseline + k.first_use + k.per_token_of_vocabulary * config.vocabulary;
  const activations = activationBytes(config, Math.min(context, k.chunk));
  return finished({ ...planned(k, { name, config, form, sizes, context, kv }), activations, overhead });
}

/** Plan for bitsandbytes' NF4 on a GPU: matrices of the layers in 4 bits, all else and the cache in bfloat16. */
export function nf4Plan(k, { config, context, overhead = k.cuda_context, name = "the model" }) {
  const inside = (tensor, shape) => tensor.startsWith("layers.") && shape.length === 2;
  const all = shapes(config);
  const sizes = all.map(([tensor, shape]) => [tensor, inside(tensor, shape) ? nf4Bytes(k, product(shape)) : 2 * product(shape)]);
  const dense = 2 * Math.max(...all.filter(([tensor, shape]) => inside(tensor, shape)).map(([, shape]) => product(shape)));
  const activations = activationBytes(config, Math.min(context, k.gpu_chunk), 2) + dense;
  return finished({ ...planned(k, { name, config, form: "NF4", sizes, context, kv: "bf16" }), activations, overhead });
}

/** The plan of what a reader chose. */
export function chosen(k, asked) {
  return asked.form === "NF4" ? nf4Plan(k, asked) : plan(k, { ...asked, weights: asked.form });
}

/** What decoding cannot exceed: each token reads all weights, and with a full context the cache too. */
export const tokensPerSecond = (plan, device) => device.bandwidth / (plan.per_token + plan.kv_cache);

/** How many layers can stay on a GPU of that much memory, the others coming and going; below 0 if not even the rest fits. */
export function gpuLayers(plan, bytes) {
  const layers = plan.config.layers;
  if (plan.total <= bytes) return layers;
  const rest = plan.total - layers * plan.layer;
  return Math.min(Math.floor((bytes - rest) / plan.layer) - 1, layers - 1);
}

/** {plan, device, fits, options, reason}; options are what would fit instead, best first. */
export function verdict(k, plan, device) {
  const fits = plan.total <= device.memory, options = fits ? [] : alternatives(k, plan, device);
  return { plan, device, fits, options, reason: reason(plan, device, fits, options) };
}

function reason(p, d, fits, options) {
  const parts = `weights ${gigabytes(p.weights)}, cache of ${p.context} tokens ${gigabytes(p.kv_cache)}, buffers ${gigabytes(p.activations)}, all else ${gigabytes(p.overhead)}`;
  const needs = `${p.name} needs ${gigabytes(p.total)} (${parts}); ${d.name} has ${gigabytes(d.memory)} free`;
  if (fits) return `${needs}: it fits, ${gigabytes(d.memory - p.total)} are left`;
  const ways = options.map((option) => option.text).join("; or ") || "nothing that Fourbit knows would fit";
  return `${needs}: ${gigabytes(p.total - d.memory)} are missing. What fits: ${ways}`;
}

function alternatives(k, plan, device) {
  const gguf = plan.form !== "NF4";
  return [
    shorter(k, plan, device), gguf && smallerCache(k, plan, device), device.gpu && offloaded(plan, device),
    gguf && smallerForm(k, plan, device), smallerModel(k, plan, device),
  ].filter(Boolean);
}

function shorter(k, plan, device) {
  const row = Math.floor(plan.kv_cache / plan.context);
  const most = Math.floor(Math.floor((device.memory - plan.total + plan.kv_cache) / row) / k.step) * k.step;
  return most >= k.least && most < plan.context && { text: `a context of ${most} tokens`, plan: withCache(k, plan, most) };
}

function smallerCache(k, plan, device) {
  if (plan.config.head_width % 32) return null;
  for (const [kv, bits] of [["q8", 8], ["q4", 4]]) {
    const smaller = withCache(k, plan, plan.context, kv);
    if (plan.kv_cache > smaller.kv_cache && smaller.total <= device.memory) return { text: `the cache in ${bits} bits (kv ${kv})`, plan: smaller };
  }
  return null;
}

function offloaded(plan, device) {
  const kept = gpuLayers(plan, device.memory), layers = plan.config.layers;
  if (kept < 0) return null;
  const text = `${kept} of ${layers} layers on the GPU, the others from the computer's memory`;
  return { text, plan: finished({ ...plan, weights: plan.weights - (layers - kept - 1) * plan.layer }) };
}

const again = (k, like, weights, { config, context, kv, name } = like) =>
  finished({ ...plan(k, { config, weights, context, kv, baseline: 0, name }), overhead: like.overhead });

function smallerForm(k, like, device) {
  const odd = shapes(like.config).some(([, shape]) => shape.at(-1) % 256);
  for (const form of odd ? k.forms.filter((name) => name !== "Q4_K_M") : k.forms) {
    const smaller = again(k, like, form);
    if (smaller.weights < like.weights && smaller.total <= device.memory) return { text: `a file in ${form}, ${gigabytes(smaller.weights)} of weights`, plan: smaller };
  }
  return null;
}

function smallerModel(k, like, device) {
  for (const model of [...k.registry].sort((a, b) => b.bytes - a.bytes)) {
    if (model.bytes >= like.weights || model.folder) continue;
    const kv = like.kv === "bf16" ? "f16" : like.kv;
    const asked = { config: model.config, context: Math.min(like.context, model.config.context), kv, name: model.name };
    const found = again(k, like, model.bytes, asked);
    if (found.total <= device.memory) return { text: `${model.name}, ${gigabytes(model.bytes)} (\`fourbit models fetch ${model.name}\`)`, plan: found };
  }
  return null;
}

/** "4.08 GB" or "125 MB", as Python prints it. */
export const gigabytes = (count) => (Math.abs(count) >= GIGA ? `${fixed(count / GIGA, 2)} GB` : `${fixed(count / 1e6, 0)} MB`);

/** Python's f"{value:.{digits}f}": unlike toFixed, an exact half goes to the even digit. */
export function fixed(value, digits) {
  const exact = value.toFixed(100).replace(/0+$/, ""), half = exact.indexOf(".") + digits + 1;
  if (exact.length !== half + 1 || exact[half] !== "5") return value.toFixed(digits);
  const cut = exact.slice(0, half).replace(/\.$/, "");
  return Number(cut.at(-1)) % 2 ? value.toFixed(digits) : cut;
}
