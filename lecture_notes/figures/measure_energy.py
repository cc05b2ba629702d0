"""Count the words that two layers of T4 move in three orders of computation, and write energy_counts.json.

    python lecture_notes/figures/measure_energy.py

Half a minute of one core. These are counts, the same on every machine.
"""

import json
from pathlib import Path

from _energy import CONVS, counted, row_tile

TARGET = Path(__file__).parent / "energy_counts.json"
CAPACITIES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072)  # words


def main() -> None:
    found = {
        name: [{"capacity": size, "tile": row_tile(conv, size), **counted(conv, size)} for size in CAPACITIES]
        for name, conv in CONVS.items()
    }
    TARGET.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
