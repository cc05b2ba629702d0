"""Bring everything that the notes take from code up to date: values.json and the SVG files.

python lecture_notes/figures/redraw.py            only what changed
python lecture_notes/figures/redraw.py cliff      this figure, whether it changed or not
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
TOOLS = {"redraw", "values"}


def main(names: list[str]) -> None:
    sys.path[:0] = [str(ROOT / "site"), str(FOLDER), str(ROOT)]
    import figures  # site/figures.py
    import values

    text = json.dumps(values.values(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (FOLDER.parent / "values.json").write_text(text, encoding="utf-8")
    for script in sorted(FOLDER.glob("*.py")):
        if script.stem in TOOLS or script.name.startswith(("_", "measure_")):
            continue
        mark, target = figures.fingerprint(script), script.with_suffix(".svg")
        made = figures.MARK.match(target.read_text(encoding="utf-8")) if target.is_file() else None
        if script.stem in names or (not names and (made is None or made[1] != mark)):
            target.write_text(figures.marked(figures.draw(script), mark), encoding="utf-8")
            print(target.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
