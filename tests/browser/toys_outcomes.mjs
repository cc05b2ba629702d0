// What the formulas of four explorables make of the inputs of their vectors: outcomes(folder, inputs) in a page, or
// `node toys_outcomes.mjs FOLDER < inputs.json`. The tests compare it with what Python wrote beside the inputs.

export async function outcomes(folder, inputs) {
  const [fit, roofline, temperature, speculate] = await Promise.all(
    ["fit", "roofline", "temperature", "speculate"].map((name) => import(`${folder}/${name}-formulas.js`)),
  );
  const { data, vectors } = inputs;
  return {
    fit: vectors.fit?.cases.map((asked) => planned(fit, data.fit, asked)),
    fixed: vectors.fixed?.map(([value, digits]) => fit.fixed(value, digits)),
    roofline: vectors.roofline && {
      operations: vectors.roofline.operations.map(({ name, batch }) => roofline.work(data.roofline.operations.find((one) => one.name === name), batch)),
      bounds: vectors.roofline.bounds.map((one) => roofline.tokens(one, one.batch, data.roofline.decode.find(({ form }) => form === one.form).bytes, data.roofline.weights)),
    },
    machines: vectors.texts?.map(roofline.machines),
    temperature: vectors.temperature?.cases.map((one) => softened(temperature, data.temperature, one.temperature)),
    speculate: vectors.speculate && {
      tokens: vectors.speculate.tokens.map(({ alpha, guesses }) => speculate.expectedTokens(alpha, guesses)),
      gains: vectors.speculate.gains.map(({ alpha, cost, judging }) => speculate.speedups(alpha, cost, data.speculate.judging.map((pass) => (judging === "free" ? 1 : pass)))),
      rounds: vectors.speculate.rounds.map((one) => drawn(speculate, one)),
    },
  };
}

function planned(fit, data, asked) {
  try {
    const plan = fit.chosen(data, asked), { fits, reason, options } = fit.verdict(data, plan, asked.device);
    return {
      plan: facts(plan), fits, reason, options: options.map(({ text, plan: other }) => ({ text, ...facts(other) })),
      parameters: fit.parameters(asked.config), tokens: fit.tokensPerSecond(plan, asked.device), gpu_layers: fit.gpuLayers(plan, asked.device.memory),
    };
  } catch (error) {
    return { error: error.message };
  }
}

const facts = ({ name, config, ...numbers }) => numbers;

function softened({ soften, entropy, divergence, gradient, ranking }, { teacher, student }, t) {
  const laws = teacher.map((row) => soften(row, t));
  return {
    entropy: laws.map(entropy), first: laws.map((p) => ranking(p)[0]), largest: laws.map((p) => Math.max(...p)),
    divergence: laws.map((p, i) => divergence(p, soften(student[i], t))), gradient: teacher.map((row, i) => gradient(row, student[i], t)),
  };
}

function drawn({ generator, round }, { alpha, guesses, seed, rounds }) {
  const next = generator(seed);
  return rounds.map(() => round(next, alpha, guesses) + 1);
}

if (globalThis.process?.argv[1]?.endsWith("toys_outcomes.mjs")) {
  let text = "";
  for await (const piece of process.stdin) text += piece;
  process.stdout.write(JSON.stringify(await outcomes(process.argv[2], JSON.parse(text))));
}
