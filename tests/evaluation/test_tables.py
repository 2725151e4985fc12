"""What the tables say, against the statistics they stand on."""

import io

import pytest
from rich.console import Console

from qsft.errors import ConfigError
from qsft.evaluation import (
    LMRL_GYM_SCALES,
    Estimate,
    format_interval,
    markdown_table,
    print_table,
    rich_table,
    seeds_interval,
    summarise,
)
from tests.evaluation.toys import row

SCALE = LMRL_GYM_SCALES["wordle"]


def near(mean, method, seed, **changes):
    return row(method=method, seed=seed, return_mean=mean, return_ci95=(mean - 0.05, mean + 0.05), **changes)


ROWS = [
    *(near(-2.4, "sft", seed) for seed in range(3)),
    *(near(-2.1 + 0.01 * seed, "qsft", seed) for seed in (2, 0, 1)),
    near(-2.06, "lucky", 0),
    near(-1.5, "sampled|odd", 0),
]


def test_summaries_group_seeds_and_mark_the_best():
    found = {s.method: s for s in summarise(ROWS[:-1], SCALE)}
    assert list(found) == ["sft", "qsft", "lucky"]
    qsft = found["qsft"]
    assert (qsft.seeds, qsft.episodes) == ((0, 1, 2), 300)
    assert qsft.seed_means == pytest.approx((-2.1, -2.09, -2.08))
    assert qsft.returns == seeds_interval([r.return_estimate for r in sorted(ROWS[3:6], key=lambda r: r.seed)])
    assert qsft.score == pytest.approx(50 + 50 * (-2.09 + 4.12) / (-1.94 + 4.12))
    assert [found[m].mark for m in found] == ["", "overlaps", "best"]
    assert [s.mark for s in summarise(ROWS)] == ["", "", "", "best"]


def test_seeds_on_the_same_episodes_get_the_wider_interval():
    apart = summarise([near(-2.0, "a", s) for s in range(3)])[0]
    same = summarise([near(-2.0, "a", s, extra={"episode_seed": 7}) for s in range(3)])[0]
    assert same.returns == seeds_interval([near(-2.0, "a", 0).return_estimate] * 3, shared_episodes=True)
    assert same.returns != apart.returns


def test_scripted_policies_are_no_rivals_of_learnt_ones():
    learnt = {"extra": {"decoding": {"temperature": 0}}}
    rows = [near(-1.9, "ceiling", 0), near(-2.5, "sft", 0, **learnt), near(-2.1, "qsft", 0, **learnt)]
    assert [(s.method, s.competes, s.mark) for s in summarise(rows)] == [
        ("ceiling", False, ""),
        ("sft", True, ""),
        ("qsft", True, "best"),
    ]
    assert "| *ceiling* |" in markdown_table(rows)


@pytest.mark.parametrize("kind", ["react", "few-shot"])
def test_prompted_models_are_rivals(kind):
    learnt = {"extra": {"decoding": {"temperature": 0}}}
    rows = [near(-1.9, "ceiling", 0), near(-2.5, "sft", 0, **learnt), near(-2.1, kind, 0, extra={"model": "small"})]
    assert [(s.competes, s.mark) for s in summarise(rows)] == [(False, ""), (True, ""), (True, "best")]
    assert f"| **{kind}** |" in markdown_table(rows)
    assert [s.mark for s in summarise([rows[0], rows[2]])] == ["", "best"], (
        "scripted ones are none, without learnt ones too"
    )


def test_a_stage_one_that_was_trained_twice_is_told():
    def of(weights, seed, run="SFT"):
        return {"seed": seed, "extra": {"stage_one": {"run": run, "weights": weights}}}

    same = [near(-2.0, "sft", **of("a", 0)), near(-2.1, "qsft", **of("a", 0)), near(-2.1, "qsft", **of("b", 1))]
    assert "trainings" not in markdown_table(
        [*same, near(-2.2, "cql", **of("c", 0, "longer SFT")), near(-2.2, "awr", 0)]
    )
    foreign = [near(-2.0, "sft", 0, extra={"stage_one": other}) for other in ("of mine", {"run": "SFT"}, ["SFT", "b"])]
    assert "trainings" not in markdown_table([*same, *foreign]), "another thing of that name is none of ours"
    rows = [*same, near(-2.2, "cql", **of("c", 0))]
    told = "Rows of seed 0 go on from 2 trainings of 'SFT'"
    assert told in markdown_table(rows)
    console = Console(width=200, file=io.StringIO())
    console.print(rich_table(rows))
    assert told in console.file.getvalue()


def test_one_method_with_two_configs_is_two_rows_with_their_configs():
    rows = [near(-2.0, "qsft", 0, config={"beta": 4}), near(-2.5, "qsft", 0, config={"beta": 64}), near(-3, "sft", 0)]
    assert [s.label for s in summarise(rows)] == ["qsft (beta 4)", "qsft (beta 64)", "sft"]


def test_a_table_holds_one_environment():
    for rows in ([], [row(), row(env="chess")]):
        with pytest.raises(ConfigError, match="one environment"):
            summarise(rows)


def test_markdown_table():
    text = markdown_table(ROWS, SCALE)
    lines = text.splitlines()
    assert lines[0] == "| method | return [95% CI] | success % [95% CI] | score | seeds | episodes |"
    assert lines[1] == "|---|---:|---:|---:|---:|---:|"
    assert lines[4].startswith("| lucky | -2.06 [-2.11, -2.01] | 90.0 [82.6, 94.5] |")
    assert lines[5].startswith("| **sampled\\|odd** | **-1.50 [-1.55, -1.45]** |")
    assert "one seed" in lines[-1]
    assert "score" not in markdown_table(ROWS)
    assert "| ~ qsft |" in markdown_table(ROWS[:-1])


def printed(rows, width, **options):
    out = io.StringIO()
    Console(file=out, width=width).print(rich_table(rows, **options))
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert "…" not in out.getvalue()
    return out.getvalue()


def test_rich_table_fits_eighty_columns_and_shows_every_number():
    text = printed(ROWS[:-1], 80, scale=SCALE, title="results")
    for part in ("results", "*  lucky", "~  qsft", "-2.06 [-2.11, -2.01]", "90.0 [82.6, 94.5]", "97.2"):
        assert part in text


LEARNT = {"extra": {"decoding": {"temperature": 0}}}
WIDE = [
    near(-17.41, "qsft", 0, config="Q-SFT, Monte-Carlo, three times as many steps", **LEARNT),
    near(-15.05, "qsft", 0, config="Q-SFT", **LEARNT),
    near(-15.50, "return-conditioned", 0, **LEARNT),
    near(-1.5, "greedy-information", 0),
]


@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_nothing_of_a_wide_table_is_cut(width):
    text = printed(WIDE, width, scale=SCALE)
    words = " ".join(text.split())
    for part in ("-17.41", "-15.05", "score", "episodes", "- scripted, not compared"):
        assert part in words
    beside, whole = "-17.41 [-17.46, -17.36]", "[-17.46, -17.36]"
    assert (beside in text, whole in text) == (width >= 100, width >= 80)
    if width >= 80:
        assert "return-conditioned" in text and "- greedy-information" in words


def test_a_file_has_no_width(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(WIDE, SCALE)
    rows = [line for line in capsys.readouterr().out.splitlines() if "[" in line]
    assert len(rows) == 5 and "three times as many steps)" in rows[1]
    monkeypatch.setenv("COLUMNS", "80")
    print_table(WIDE, SCALE)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_markup_in_names_is_shown_as_it_stands():
    out = io.StringIO()
    Console(file=out, width=100).print(rich_table([near(-2, "sft [bold]", 0)]))
    assert "sft [bold]" in out.getvalue()


def test_interval_without_bounds_has_a_question_mark():
    assert format_interval(Estimate(1.0, float("-inf"), float("inf"), 1)) == "1.00 [?]"
    assert format_interval(Estimate(0.5, 0.25, 0.75, 9), 1, 100) == "50.0 [25.0, 75.0]"
