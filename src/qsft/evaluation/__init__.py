"""Playing, measuring and showing: batched rollouts, confidence intervals, result files, tables, the HTML report."""

from qsft.data.text_files import write_text
from qsft.evaluation.calibration import Calibration, CalibrationBin, calibration_bias, calibration_bins
from qsft.evaluation.curves import log_points
from qsft.evaluation.games import Alternative, Cell, Game, GameTurn
from qsft.evaluation.grid import GridResult, GridRow, select_and_evaluate
from qsft.evaluation.report import Report, report_html, write_report
from qsft.evaluation.results import ResultRow, ResultsFile, evaluation_row, paired_returns, result_row, row_key
from qsft.evaluation.rollout import episode_seed, failed, rollout
from qsft.evaluation.sections import Reference
from qsft.evaluation.statistics import (
    GAME_SCALES,
    LMRL_GYM_SCALES,
    Estimate,
    Scale,
    difference,
    mean_interval,
    normalised_score,
    paired_difference,
    seeds_interval,
    seeds_success_interval,
    separated,
    success_interval,
)
from qsft.evaluation.tables import MethodSummary, format_interval, markdown_table, print_table, rich_table, summarise

__all__ = [
    "GAME_SCALES",
    "LMRL_GYM_SCALES",
    "Alternative",
    "Calibration",
    "CalibrationBin",
    "Cell",
    "Estimate",
    "Game",
    "GameTurn",
    "GridResult",
    "GridRow",
    "MethodSummary",
    "Reference",
    "Report",
    "ResultRow",
    "ResultsFile",
    "Scale",
    "calibration_bias",
    "calibration_bins",
    "difference",
    "episode_seed",
    "evaluation_row",
    "failed",
    "format_interval",
    "log_points",
    "markdown_table",
    "mean_interval",
    "normalised_score",
    "paired_difference",
    "paired_returns",
    "print_table",
    "report_html",
    "result_row",
    "rich_table",
    "rollout",
    "row_key",
    "seeds_interval",
    "seeds_success_interval",
    "select_and_evaluate",
    "separated",
    "success_interval",
    "summarise",
    "write_report",
    "write_text",
]
