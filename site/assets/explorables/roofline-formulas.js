// FLOP and bytes of the operations on the roofline, the bound that a machine sets them, and the numbers in what
// `fourbit doctor` and lab 00 print. A machine is {flops, bandwidth}: FLOP and bytes per second.

/** {flops, bytes, intensity} of an operation of data/roofline.json for a batch; each value is moved once. */
export function work(operation, batch) {
  const [flops, bytes] = operation.kind === "linear" ? linear(operation, batch * operation.rows) : convolution(operation, batch);
  return { flops, bytes, intensity: flops / bytes };
}

/** Inputs and outputs take 4 bytes, a weight `bits`. */
function linear({ inputs, outputs, bits }, rows) {
  return [2 * rows * inputs * outputs, (inputs * outputs * bits) / 8 + 4 * rows * (inputs + outputs)];
}

/** As many channels out as in, padded to the same size, all in 4 bytes. */
function convolution({ channels, size, kernel, groups }, batch) {
  const weights = (channels * channels * kernel * kernel) / groups, places = batch * size * size;
  return [2 * places * weights, 4 * (weights + 2 * places * channels)];
}

/** FLOP/s that a machine allows at an intensity of FLOP per byte. */
export const attainable = (machine, intensity) => Math.min(machine.flops, intensity * machine.bandwidth);

/** Exactly on the ridge, arithmetic limits. */
export const limit = (machine, intensity) => (intensity < machine.flops / machine.bandwidth ? "memory" : "compute");

/** Tokens per second of a batch at most: the weights are read once for all, and each token multiplies by all of them. */
export const tokens = (machine, batch, bytes, weights) => batch / Math.max(bytes / machine.bandwidth, (2 * batch * weights) / machine.flops);

/** [{flops, bandwidth, threads}, ...] in a text such as "96.4 GFLOP/s, 11.2 GB/s (1 thread)", in order. */
export function machines(text) {
  const found = text.matchAll(/([\d.]+)\s*GFLOP\/s,\s*([\d.]+)\s*GB\/s\s*\((\d+)\s*threads?\)/g);
  return [...found].map(([, flops, bandwidth, threads]) => ({ flops: flops * 1e9, bandwidth: bandwidth * 1e9, threads: Number(threads) }));
}
