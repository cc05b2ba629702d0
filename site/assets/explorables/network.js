// A small convolutional network in plain JavaScript, one batch at a time. Values are laid out [channel][row][column]
// [image], so that each weight multiplies a long run of neighbors. A weight of zero can be left out of a layer's list:
// nothing else has to be changed for a sparse layer to be computed faster.

export const BATCH = 50;

/** Weights and biases of a network that exports.py wrote: layer name -> {weight, bias}, float32. */
export function unpack(description, buffer) {
  const parameters = {};
  for (const { name, weight, bias } of description.layers) {
    if (!weight) continue;
    parameters[name] = {
      weight: new Float32Array(buffer, weight.offset, size(weight.shape)),
      bias: new Float32Array(buffer, bias.offset, size(bias.shape)),
      shape: weight.shape,
    };
  }
  return parameters;
}

export const size = (shape) => shape.reduce((product, length) => product * length, 1);

/** The nearest whole number, halves to the even one, as in Python. */
export function roundHalfEven(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x) + 0; // codes have no negative zero
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Images of a batch, uint8 [image][row][column], as numbers from 0 to 1 in the layout above with a border of zeros. */
function pixels(images, side) {
  const count = images.length / side ** 2, out = blank(1, side, count);
  for (let image = 0; image < count; image++) {
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        out.data[((y + 1) * (side + 2) + x + 1) * count + image] = Math.fround(images[(image * side + y) * side + x] / 255);
      }
    }
  }
  return out;
}

/** Zeros for `channels` squares of `side`, with a border of one. */
function blank(channels, side, count) {
  return { channels, side, count, data: new Float64Array(channels * (side + 2) ** 2 * count) };
}

/** The weights of each output that take part: places and values; all, or only those that are not zero. */
export function listed(weight, outputs, skipping) {
  const inputs = weight.length / outputs, lists = [];
  for (let output = 0; output < outputs; output++) {
    const places = [], values = [];
    for (let i = 0; i < inputs; i++) {
      const value = weight[output * inputs + i];
      if (skipping && value === 0) continue;
      places.push(i);
      values.push(value);
    }
    lists.push({ places: Int32Array.from(places), values: Float64Array.from(values) });
  }
  return lists;
}

/** out[to + i] += sum over k of values[k] * from[starts[k] + i], four weights in one pass. */
function accumulate(out, to, from, starts, values, run) {
  let k = 0;
  for (; k + 3 < values.length; k += 4) {
    const a = values[k], b = values[k + 1], c = values[k + 2], d = values[k + 3];
    const p = starts[k], q = starts[k + 1], r = starts[k + 2], s = starts[k + 3];
    for (let i = 0; i < run; i++) out[to + i] += a * from[p + i] + b * from[q + i] + c * from[r + i] + d * from[s + i];
  }
  for (; k < values.length; k++) {
    const a = values[k], p = starts[k];
    for (let i = 0; i < run; i++) out[to + i] += a * from[p + i];
  }
}

/** A 3x3 convolution with a border of zeros. */
function convolve(x, lists, bias, stride) {
  const { count } = x, side = Math.ceil(x.side / stride), y = blank(lists.length, side, count);
  const rowIn = (x.side + 2) * count, rowOut = (side + 2) * count;
  const run = stride === 1 ? side * count : count, runs = stride === 1 ? 1 : side;
  lists.forEach(({ places, values }, output) => {
    const corner = places.map((place) => (Math.floor(place / 9) * (x.side + 2) + Math.floor((place % 9) / 3)) * rowIn + (place % 3) * count);
    const starts = new Int32Array(corner.length);
    for (let row = 0; row < side; row++) {
      for (let part = 0; part < runs; part++) {
        const to = (output * (side + 2) + row + 1) * rowOut + (part + 1) * count, shift = row * stride * rowIn + part * stride * count;
        for (let k = 0; k < starts.length; k++) starts[k] = corner[k] + shift;
        y.data.fill(bias[output], to, to + run);
        accumulate(y.data, to, x.data, starts, values, run);
      }
    }
  });
  return y;
}

/** A fully connected layer; x is [feature][image], without borders. */
function connect(x, lists, bias) {
  const { count } = x, data = new Float64Array(lists.length * count);
  lists.forEach(({ places, values }, output) => {
    data.fill(bias[output], output * count, (output + 1) * count);
    accumulate(data, output * count, x.data, places.map((place) => place * count), values, count);
  });
  return { count, data };
}

function rectify(x) {
  for (let i = 0; i < x.data.length; i++) if (x.data[i] < 0) x.data[i] = 0;
  return x;
}

/** Largest of each 2x2 square; a last odd row and column are left out. */
function pool(x) {
  const { channels, count } = x, side = Math.floor(x.side / 2), y = blank(channels, side, count), width = x.side + 2;
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < side; row++) {
      for (let column = 0; column < side; column++) {
        const from = ((channel * width + 2 * row + 1) * width + 2 * column + 1) * count;
        const to = ((channel * (side + 2) + row + 1) * (side + 2) + column + 1) * count;
        for (let i = 0; i < count; i++) {
          const top = Math.max(x.data[from + i], x.data[from + count + i]);
          y.data[to + i] = Math.max(top, x.data[from + width * count + i], x.data[from + (width + 1) * count + i]);
        }
      }
    }
  }
  return y;
}

/** Squares without their borders, as features in the order channel, row, column. */
function flatten(x) {
  const { channels, side, count } = x, data = new Float64Array(channels * side * side * count);
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < side; row++) {
      const from = ((channel * (side + 2) + row + 1) * (side + 2) + 1) * count;
      data.set(x.data.subarray(from, from + side * count), (channel * side + row) * side * count);
    }
  }
  return { count, data };
}

/**
 * Logits of images, [class][image] for each batch.
 * @param description what exports.py wrote of the network
 * @param parameters layer name -> {weight, bias, shape}
 * @param images uint8, whole batches
 * @param skipping leave weights of zero out
 */
export function run(description, parameters, images, skipping) {
  const lists = {};
  for (const [name, { weight, shape }] of Object.entries(parameters)) lists[name] = listed(weight, shape[0], skipping);
  const step = BATCH * description.side ** 2, logits = [];
  for (let start = 0; start < images.length; start += step) {
    let x = pixels(images.subarray(start, start + step), description.side);
    for (const { name, kind, stride } of description.layers) {
      if (kind === "conv") x = convolve(x, lists[name], parameters[name].bias, stride);
      else if (kind === "linear") x = connect(x, lists[name], parameters[name].bias);
      else if (kind === "relu") x = rectify(x);
      else if (kind === "pool") x = pool(x);
      else x = flatten(x);
    }
    logits.push(x);
  }
  return logits;
}

/** How many predictions are right, and the logits of the first image. */
export function judge(logits, labels) {
  let correct = 0, image = 0;
  for (const { data, count } of logits) {
    const classes = data.length / count;
    for (let i = 0; i < count; i++, image++) {
      let best = 0;
      for (let c = 1; c < classes; c++) if (data[c * count + i] > data[best * count + i]) best = c;
      if (best === labels[image]) correct++;
    }
  }
  const { data, count } = logits[0];
  return { correct, logits: Array.from({ length: data.length / count }, (_, c) => data[c * count]) };
}
