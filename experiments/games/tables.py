"""The tables of this folder's page, in Markdown: all games side by side, then each with its intervals.

python experiments/games/tables.py [--results experiments/games/results.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qsft.evaluation import GAME_SCALES, ResultRow, ResultsFile, markdown_table, summarise

HERE = Path(__file__).parent
GAMES = ("wordle", "chess", "endgames", "twenty-questions", "guess-my-city", "maze", "text-nav")


def side_by_side(rows: Sequence[ResultRow]) -> str:
    """Mean returns of the trained methods, a column a game; bold: the best, or its interval overlaps with the best's.

    Runs of one game alone are in that game's table.
    """
    games = [game for game in GAMES if any(row.env == game for row in rows)]
    cells: dict[str, dict[str, str]] = {}
    for game in games:
        for one in summarise([row for row in rows if row.env == game]):
            if one.competes:
                value = f"{one.returns.mean:.2f}"
                cells.setdefault(str(one.config), {})[game] = f"**{value}**" if one.ties_best else value
    lines = ["| mean return | " + " | ".join(games) + " |", "|---|" + "---:|" * len(games)]
    for config, of_game in ((config, found) for config, found in cells.items() if len(found) > 1):
        lines.append(f"| {config} | " + " | ".join(of_game.get(game, "") for game in games) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    rows = ResultsFile(parser.parse_args().results).rows()
    print(side_by_side(rows))
    for game in GAMES:
        if of_game := [row for row in rows if row.env == game]:
            print(f"\n### {game}\n\n{markdown_table(of_game, GAME_SCALES[game])}")


if __name__ == "__main__":
    main()
