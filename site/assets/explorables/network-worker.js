// Evaluates the network beside the page, so that controls stay responsive. The first message brings the network's
// description and the images, each later one a set of parameters.
import { judge, run } from "./network.js";

let description, images;

onmessage = ({ data }) => {
  if (data.description) {
    ({ description, images } = data);
    return;
  }
  const start = performance.now();
  const logits = run(description, data.parameters, images, data.skipping);
  const milliseconds = (performance.now() - start) / description.labels.length;
  postMessage({ id: data.id, milliseconds, ...judge(logits, description.labels) });
};
