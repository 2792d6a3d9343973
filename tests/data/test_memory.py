"""Memory that reading and writing rows takes, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "csv")

# Copies a number of rows, then another one, …; prints the peak after each, in kilobytes.
_COPY = """
import random, resource, sys
from llm_blender.data import RowWriter, read_records, tables

def rows(count, words):
    draw = random.Random(0)
    vocabulary = [f"w{n:04x}" for n in range(2000)]
    for n in range(count):
        texts = [" ".join(draw.choices(vocabulary, k=60)) * (words // 60) for _ in range(5)]
        candidates = [{"text": text, "model": "m", "scores": {"x": 1}} for text in texts]
        yield {"id": f"r{n}", "instruction": "Why?", "candidates": candidates}

def copy(records, target):
    with RowWriter(target) as writer:
        for record in records:
            writer.write(record)

words, batch, *counts = map(int, sys.argv[1].split(","))
tables._BATCH = batch << 10
chain = sys.argv[2:]
for count in counts:
    copy(rows(count, words), chain[0])
    for source, target in zip(chain, chain[1:]):
        copy((record for _, record in read_records(source)), target)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peaks(folder, sizes: str, *names: str) -> list[float]:
    """Return the peaks in MiB after each number of rows in ``WORDS,BATCH,ROWS,…``, copied from file to file."""
    command = [sys.executable, "-c", _COPY, sizes, *names]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [int(line) / 1024 for line in run.stdout.split()]


def test_memory_does_not_grow_with_the_rows(tmp_path):
    few, many = peaks(tmp_path, "1200,256,50,350", "a.parquet", "b.csv", "c.parquet")
    assert many < few + 6  # the rows of each file have grown by 11 MB


@pytest.mark.slow
@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_a_hundred_thousand_rows_take_the_memory_of_ten_thousand(tmp_path, source, target):
    few, many = peaks(tmp_path, "60,4096,10000,100000", f"a.{source}", f"b.{target}")
    assert many < 1.1 * few
    assert many < 250
