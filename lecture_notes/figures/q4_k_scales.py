"""The twelve bytes in which Q4_K keeps eight scales and eight minima of six bits."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

GROUPS = "ABCDEFGH"


def owner(byte: int, bit: int) -> tuple[str, int]:
    """The letter of a bit (capital: scale, small: minimum), and which of its six it is."""
    quarter, i = divmod(byte, 4)
    if quarter < 2:
        letters = GROUPS if quarter == 0 else GROUPS.lower()
        return (letters[i], bit) if bit < 6 else (letters[i + 4], bit - 2)
    letter = GROUPS[i + 4]
    return (letter, bit) if bit < 4 else (letter.lower(), bit - 4)


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(7.2, 3.3))
    for byte in range(12):
        for bit in range(8):
            letter, place = owner(byte, bit)
            early, scale = letter.upper() in "ABCD", letter.isupper()
            color = f"C{(0 if scale else 1) if early else (2 if scale else 3)}"
            axes.add_patch(Rectangle((byte, bit), 0.96, 0.94, color=color, alpha=0.85, lw=0))
            axes.text(byte + 0.48, bit + 0.47, f"{letter}{place}", ha="center", va="center", color="white", fontsize=8)
    axes.set_xlim(-0.1, 12.1)
    axes.set_ylim(-0.1, 8.1)
    axes.set_xticks([i + 0.48 for i in range(12)], [str(i) for i in range(12)])
    axes.set_yticks([i + 0.47 for i in range(8)], [str(i) for i in range(8)])
    axes.set_xlabel("byte")
    axes.set_ylabel("bit")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
