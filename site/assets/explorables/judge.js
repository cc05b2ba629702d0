// The network and the images that the explorables on pruning and quantization share, and a worker that tests it.
import { load } from "./element.js";
import { unpack } from "./network.js";

/** What exports.py wrote: the description, and the parameters by layer name. */
export async function network() {
  const [description, weights, images] = await Promise.all([load("s6.json"), load("s6.bin"), load("images.bin")]);
  return { description, parameters: unpack(description, weights), images: new Uint8Array(images) };
}

/** Tests sets of parameters one after another; of those that wait, only the last is tested. */
export class Judge {
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
