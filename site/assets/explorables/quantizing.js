// Weights on few values, as functions without a page. They are those of labs 02 and 04, bit for bit: every step is
// rounded to float32 as PyTorch rounds it.

import { roundHalfEven } from "./network.js";

const { fround } = Math;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Values that share a scale: [start, end) of each group; groups do not cross rows, the last of a row may be smaller. */
export function groups(total, rows, sharing) {
  if (sharing === "tensor") return [[0, total]];
  const inputs = total / rows, length = sharing === "channel" ? inputs : Number(sharing), spans = [];
  for (let row = 0; row < rows; row++) {
    for (let from = 0; from < inputs; from += length) spans.push([row * inputs + from, row * inputs + Math.min(from + length, inputs)]);
  }
  return spans;
}

/** Codes from -(2^(bits-1) - 1) to 2^(bits-1) - 1, zero at zero, the scale set by the largest magnitude. */
function symmetric(values, bits) {
  const top = 2 ** (bits - 1) - 1, largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const scale = fround(largest / top) || 1;
  return values.map((value) => scale * clamp(roundHalfEven(fround(value / scale)), -top, top));
}

/** All 2^bits codes from the smallest to the largest value, with a zero point. */
function affine(values, bits) {
  const top = 2 ** (bits - 1) - 1, bottom = -top - 1;
  const low = values.reduce((least, value) => Math.min(least, value), 0), high = values.reduce((most, value) => Math.max(most, value), 0);
  const scale = fround(fround(high - low) / (top - bottom)) || 1;
  const zero = roundHalfEven(fround(bottom - fround(low / scale)));
  return values.map((value) => scale * (clamp(roundHalfEven(fround(value / scale)) + zero, bottom, top) - zero));
}

/** The nearest of given levels between -1 and 1 times the largest magnitude, of two equally near the lower. */
function normalFloat(values, levels) {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0), unit = largest || 1;
  const middles = levels.slice(1).map((level, i) => fround(fround(level + levels[i]) / 2));
  return values.map((value) => {
    const x = fround(value / unit), index = middles.findIndex((middle) => x <= middle);
    return largest * levels[index < 0 ? levels.length - 1 : index];
  });
}

/**
 * The weight that codes and scales stand for, float32.
 * @param layer {weight, shape}
 * @param setting {form: "symmetric" | "affine" | "normal", bits, sharing: "tensor" | "channel" | number}
 * @param levels bits -> levels of NormalFloat
 */
export function onGrid({ weight, shape }, { form, bits, sharing }, levels) {
  const out = new Float32Array(weight.length);
  for (const [from, to] of groups(weight.length, shape[0], sharing)) {
    const values = weight.subarray(from, to);
    if (form === "normal") out.set(normalFloat(values, levels[bits]), from);
    else out.set(form === "symmetric" ? symmetric(values, bits) : affine(values, bits), from);
  }
  return out;
}

/** The network with all weights on grids; biases stay float32. */
export function quantize(parameters, setting, levels) {
  return Object.fromEntries(Object.entries(parameters).map(([name, layer]) => [name, { ...layer, weight: onGrid(layer, setting, levels) }]));
}

/** Bytes of a quantized network: packed codes; a float32 scale for each group, and one byte for a zero point; biases. */
export function bytes(parameters, { form, bits, sharing }) {
  const total = { codes: 0, scales: 0, biases: 0 };
  for (const { weight, bias, shape } of Object.values(parameters)) {
    total.codes += Math.ceil((weight.length * bits) / 8);
    total.scales += groups(weight.length, shape[0], sharing).length * (form === "affine" ? 5 : 4);
    total.biases += 4 * bias.length;
  }
  return { ...total, all: total.codes + total.scales + total.biases };
}

/** How far a rounded weight is off: largest error, signal to noise in decibels, share of weights that became zero. */
export function errors(weight, rounded) {
  let signal = 0, noise = 0, largest = 0, zeros = 0;
  weight.forEach((value, i) => {
    const error = rounded[i] - value;
    signal += value * value;
    noise += error * error;
    largest = Math.max(largest, Math.abs(error));
    zeros += rounded[i] === 0;
  });
  return { largest, decibels: 10 * Math.log10(signal / noise), zeros: zeros / weight.length };
}
