"""Memory of keys and values against the context, for three models of seven billion weights."""

import matplotlib.pyplot as plt
from _inference import MODELS, READ, cache_bytes
from matplotlib.figure import Figure


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7, 3.9))
    contexts = [2**i for i in range(9, 16)]
    for i, name in enumerate(MODELS):
        axes.plot(contexts, [cache_bytes(name) * t / 1e9 for t in contexts], "o-", color=f"C{i}", ms=3.5)
        heads = MODELS[name][1]
        axes.annotate(f"{name},\n{heads} heads of keys", (contexts[-1], cache_bytes(name) * contexts[-1] / 1e9),
                      xytext=(7, 0), textcoords="offset points", color=f"C{i}", fontsize=9, va="center")  # fmt: skip
    weights = READ["Llama-2-7B"] * 4.5 / 8 / 1e9
    axes.plot([450, contexts[-1]], [weights] * 2, color="C6", ls="--", lw=1)
    axes.text(560, weights * 1.12, "its weights in 4.5 bits", color="C6", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(450, 110_000)
    axes.set_yscale("log")
    axes.set_xticks(contexts, [f"{t:,}" for t in contexts])
    axes.set_yticks([0.03, 0.1, 0.3, 1, 3, 10], ["0.03", "0.1", "0.3", "1", "3", "10"])
    axes.minorticks_off()
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("keys and values in 16 bits, GB")
    return figure
