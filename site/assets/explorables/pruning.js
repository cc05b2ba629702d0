// Which weights are removed, as functions without a page. The masks are those of lab 01, bit for bit: magnitudes are
// ranked, of equal ones the first goes first, and exactly as many go as asked for.
import { roundHalfEven, size } from "./network.js";

/** 1 = kept, 0 = removed: the share `sparsity` of the smallest scores goes. */
export function smallest(scores, sparsity) {
  const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[a] - scores[b] || a - b);
  const mask = new Uint8Array(scores.length).fill(1);
  for (const index of order.subarray(0, roundHalfEven(sparsity * scores.length))) mask[index] = 0;
  return mask;
}

/** One threshold for all layers. */
function globally(parameters, sparsity) {
  const names = Object.keys(parameters), total = names.reduce((sum, name) => sum + parameters[name].weight.length, 0);
  const scores = new Float32Array(total), masks = {};
  let offset = 0;
  for (const name of names) {
    scores.set(parameters[name].weight.map(Math.abs), offset);
    offset += parameters[name].weight.length;
  }
  const all = smallest(scores, sparsity);
  offset = 0;
  for (const name of names) masks[name] = all.subarray(offset, (offset += parameters[name].weight.length));
  return masks;
}

/** The same share in each layer. */
function byLayer(parameters, sparsity) {
  return each(parameters, ({ weight }) => smallest(weight.map(Math.abs), sparsity));
}

/** The two largest of each four consecutive inputs, at one output and one place of the kernel. */
function twoOfFour(parameters) {
  return each(parameters, ({ weight, shape }) => {
    const [outputs, inputs, ...kernel] = shape, places = size(kernel), mask = new Uint8Array(weight.length).fill(1);
    for (let output = 0; output < outputs; output++) {
      for (let input = 0; input + 4 <= inputs; input += 4) {
        for (let place = 0; place < places; place++) {
          const four = [0, 1, 2, 3].map((i) => (output * inputs + input + i) * places + place);
          four.sort((a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b);
          mask[four[2]] = mask[four[3]] = 0;
        }
      }
    }
    return mask;
  });
}

/** Whole outputs of the smallest norm in each layer but the last. */
function channels(parameters, sparsity) {
  const last = Object.keys(parameters).at(-1);
  return each(parameters, ({ weight, shape }, name) => {
    const inputs = weight.length / shape[0], mask = new Uint8Array(weight.length).fill(1);
    if (name === last) return mask;
    const norms = Float64Array.from({ length: shape[0] }, (_, output) =>
      Math.sqrt(weight.subarray(output * inputs, (output + 1) * inputs).reduce((sum, w) => sum + w * w, 0)));
    smallest(norms, sparsity).forEach((kept, output) => { if (!kept) mask.fill(0, output * inputs, (output + 1) * inputs); });
    return mask;
  });
}

const each = (parameters, mask) => Object.fromEntries(Object.entries(parameters).map(([name, layer]) => [name, mask(layer, name)]));

const PATTERNS = { global: globally, layer: byLayer, "2:4": twoOfFour, channels };

/** The network with weights of zero where they are removed; an output that is removed loses its bias and its readers. */
export function prune(parameters, pattern, sparsity) {
  const masks = PATTERNS[pattern](parameters, sparsity), pruned = {};
  let before = null; // which outputs of the layer before are left
  for (const [name, { weight, bias, shape }] of Object.entries(parameters)) {
    const layer = { shape, weight: weight.map((w, i) => (masks[name][i] ? w : 0)), bias: bias.slice() };
    if (pattern === "channels") {
      if (before) unread(layer, before);
      before = bias.map((_, output) => masks[name][output * (weight.length / shape[0])]);
      layer.bias = bias.map((b, output) => b * before[output]);
    }
    pruned[name] = layer;
  }
  return pruned;
}

/** Set the weights to zero that read from removed outputs of the layer before, each of which may be several inputs. */
function unread({ weight, shape }, before) {
  const inputs = weight.length / shape[0], share = inputs / before.length;
  for (let i = 0; i < weight.length; i++) if (!before[Math.floor((i % inputs) / share)]) weight[i] = 0;
}

/** What is left of a network: weights, MACs for an image, and bytes of weights and biases. */
export function account(description, parameters, pattern) {
  const left = { weights: 0, macs: 0, bytes: 0 };
  for (const { name, weight, positions } of description.layers) {
    if (!weight) continue;
    const layer = parameters[name], kept = count(layer.weight);
    left.weights += kept;
    left.macs += kept * positions;
    left.bytes += pattern === "channels" ? 4 * (kept + count(layer.bias)) : packed(layer.weight.length, kept) + 4 * layer.bias.length;
  }
  return left;
}

export const count = (values) => values.reduce((sum, value) => sum + (value !== 0), 0);

/** Bytes of a layer: dense, or one bit for each weight and the values that are left, whichever is less. */
export const packed = (total, kept) => Math.min(4 * total, Math.ceil(total / 8) + 4 * kept);
