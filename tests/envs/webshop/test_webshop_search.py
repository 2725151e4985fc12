"""The search engine against BM25 written out, and its index on disk."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from qsft.envs.webshop.catalogue import GeneratedCatalogue
from qsft.envs.webshop.search import FOUND, Analyser, SearchEngine
from qsft.errors import DataError

CATALOGUE = GeneratedCatalogue(2000)
QUERIES = [
    "yoga mats deep purple 6 mm",
    "gluten free granola bars with flavor honey",
    "kelpstone",
    "mats mats mats cork",
]


@pytest.fixture(scope="module")
def engine() -> SearchEngine:
    return SearchEngine(CATALOGUE)


@pytest.fixture(scope="module")
def terms() -> list[list[str]]:
    read = Analyser()
    return [read(CATALOGUE.document(number)) for number in range(len(CATALOGUE))]


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_bm25_as_written_in_lucene(query: str, engine: SearchEngine, terms: list[list[str]]) -> None:
    k1, b = 0.9, 0.4
    mean = sum(map(len, terms)) / len(terms)
    holding = Counter(term for document in terms for term in set(document))
    scores = []
    for document in terms:
        counts = Counter(document)
        score = 0.0
        for term in Analyser()(query):
            idf = math.log(1 + (len(terms) - holding[term] + 0.5) / (holding[term] + 0.5))
            score += idf * counts[term] / (counts[term] + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    found = engine.find(query)
    assert len(found) == min(FOUND, sum(score > 0 for score in scores))
    best = sorted(scores, reverse=True)[: len(found)]
    # The engine counts in single precision.
    assert [scores[number] for number in found] == pytest.approx(best, rel=1e-5)


def test_ties_go_to_the_lower_number(engine: SearchEngine) -> None:
    class Same(GeneratedCatalogue):
        def document(self, number: int) -> str:
            return "plain grey sock" if number % 2 else "blue hat"

    assert SearchEngine(Same(2000)).find("sock") == tuple(range(1, 2 * FOUND, 2))


@pytest.mark.parametrize("query", ["", " ", "the and of", "qwertyuiop", "[]()*?\\", "😀", "\x00"])
def test_nothing_is_found(query: str, engine: SearchEngine) -> None:
    assert engine.find(query) == ()


def test_the_end_of_a_huge_query_is_not_read(engine: SearchEngine) -> None:
    assert engine.find("mat " * 2500 + "kelpstone") == engine.find("mat " * 2500)
    assert engine.find("mat " * 100 + "kelpstone") != engine.find("mat " * 100)


def test_analyser() -> None:
    assert Analyser()("The Dog's leashes, for 6.99: Washing & WASHED") == ["dog", "leash", "6.99", "wash", "wash"]


def test_an_index_on_disk_finds_the_same(tmp_path: Path, engine: SearchEngine) -> None:
    made = SearchEngine(CATALOGUE, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name == CATALOGUE.key
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    read = SearchEngine(CATALOGUE, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    for query in QUERIES:
        assert made.find(query) == read.find(query) == engine.find(query)
    SearchEngine(GeneratedCatalogue(2000, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "another catalogue has another index"


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_damaged_index_is_named(tmp_path: Path, content: bytes) -> None:
    SearchEngine(CATALOGUE, tmp_path)
    (folder,) = tmp_path.iterdir()
    for file in folder.glob("*.npy"):
        kept = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(DataError, match="the search index is damaged"):
            SearchEngine(CATALOGUE, tmp_path)
        file.write_bytes(kept)


def test_killed_while_it_is_made_nothing_half_written_is_read(tmp_path: Path) -> None:
    program = """
import os, signal, sys
import bm25s
from qsft.envs.webshop.catalogue import GeneratedCatalogue
from qsft.errors import DataError
from qsft.envs.webshop.search import SearchEngine
whole = bm25s.BM25.save
def half(self, path, **options):
    whole(self, path, **options)
    os.remove(os.path.join(path, "params.index.json"))
    os.kill(os.getpid(), signal.SIGKILL)
bm25s.BM25.save = half
SearchEngine(GeneratedCatalogue(2000), sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", program, os.fspath(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert SearchEngine(CATALOGUE, tmp_path).find(QUERIES[0])
