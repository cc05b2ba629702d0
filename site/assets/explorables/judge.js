// What the explorables on pruning and quantization share: the network and the images, a worker that tests it, and the
// way from a state of the controls to its accuracy.
import { Explorable, load } from "./element.js";
import { unpack } from "./network.js";
import { predict } from "./predict.js";

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** What exports.py wrote: the description, and the parameters by layer name. */
export async function network() {
  const [description, weights, images] = await Promise.all([load("s6.json"), load("s6.bin"), load("images.bin")]);
  return { description, parameters: unpack(description, weights), images: new Uint8Array(images) };
}

/** Tests sets of parameters one after another; of those that wait, only the last is tested. */
class Judge {
  #busy = false;
  #next = null;

  constructor({ description, images }) {
    this.worker = new Worker(new URL("network-worker.js", import.meta.url), { type: "module" });
    this.worker.postMessage({ description, images });
    this.worker.onmessage = ({ data }) => {
      this.#busy = false;
      this.#heard(data);
      if (this.#next) this.#send(this.#next);
    };
  }

  #heard = () => {};

  /** Resolves with {correct, logits, milliseconds for an image}, or with null if a later call took its place. */
  test(parameters, { skipping = true } = {}) {
    return new Promise((resolve) => {
      this.#next?.resolve(null);
      const request = { message: { parameters, skipping }, resolve };
      if (this.#busy) this.#next = request; else this.#send(request);
    });
  }

  #send({ message, resolve }) {
    this.#busy = true;
    this.#next = null;
    this.#heard = resolve;
    this.worker.postMessage(message);
  }

  close() {
    this.worker.terminate();
  }
}

/**
 * An explorable that changes the network's parameters. It defines start(), draws(), report(state) and
 * test(state), which resolves with what is measured, or with null once that is no longer wanted.
 */
export class Judged extends Explorable {
  async prepare() {
    this.network = await network();
    this.images = this.network.description.labels.length;
    this.tried = new Map();
  }

  /** Ask for the accuracy that the reader expects; `question` goes on from what the network can do. */
  ask(name, question) {
    this.lock = predict(this, {
      name,
      question: `This network names nine in ten of ${this.images} test images correctly; by chance it would be one in ten. ${question} How many of the images does it still name correctly?`,
      range: { min: 0, max: 100, value: 50, format: (value) => `${value} %` },
      locked: [this.controls, this.results],
      open: () => this.start(),
      close: () => { this.now = null; this.tried.clear(); },
    });
  }

  /** {correct, logits, milliseconds, accuracy} of the network with these parameters, or null. */
  async judged(parameters, options) {
    this.judge ??= new Judge(this.network);
    const found = await this.judge.test(parameters, options);
    if (!found || this.lock.guess === null) return null; // forgotten, or asked again, in the meantime
    return { ...found, accuracy: found.correct / this.images };
  }

  /** Show a state of the controls, then test it and show what came out, unless the controls have moved on. */
  async settle(state) {
    this.now = state;
    this.reflect({ state: "busy" });
    this.draw();
    const found = await this.test(state);
    if (!found || state !== this.now) return;
    Object.assign(state, found);
    this.draw();
    this.report(state);
  }

  draw() {
    if (this.lock.guess !== null && this.now) this.draws();
  }

  /** Compare the reader's guess with the answer. */
  answer(accuracy) {
    const off = this.lock.guess - 100 * accuracy;
    this.lock.compare(`Measured: ${percent(accuracy)}; your guess is ${Math.abs(off).toFixed(1)} points too ${off < 0 ? "low" : "high"}.`);
  }

  leave() {
    this.judge?.close();
  }
}
