"""Lines as JSON: what they are about, in the job and in Python's own logging."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

import pytest

from raylib import logs
from raylib.evaluate import progress
from raylib.evaluate.progress import JsonReporter, reporter


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setattr(logs, "_job", "encode-7")


def test_a_line_says_its_job_and_what_its_thread_is_about(job):
    with logs.about(model="m", stage="encode"), logs.about(shard=3, stage=None):
        told = json.loads(logs.json_line("info", 'says "ü"\nand more', seconds=0.5, done=4))
        other = []
        thread = threading.Thread(target=lambda: other.append(logs.subject("model")))
        thread.start()
        thread.join()
    assert told == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "info",
        "job": "encode-7",
        "model": "m",
        "stage": "encode",
        "shard": 3,
        "done": 4,
        "message": 'says "ü"\nand more',
    }
    assert other == [""] and logs.subject("model") == ""


def test_records_of_logging_keep_what_they_are_about_and_their_trace(job):
    record = logging.LogRecord("raylib.x", logging.WARNING, "", 1, "%d of %d", (1, 2), None)
    record.shard = 5
    told = json.loads(logs.JsonLines().format(record))
    assert (told["level"], told["logger"], told["message"], told["shard"]) == ("warning", "raylib.x", "1 of 2", 5)
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(logs.JsonLines().format(record))["trace"]


def test_progress_has_its_numbers(job, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    told = reporter(False, "json")
    with told.stage("encode m", 4) as advance:
        for _ in range(2):
            clock[0] += 3
            advance(1, 1)
    told.warn("broken")
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["done"], line["total"], line["bad"]) for line in lines] == [(0, 4, 0), (2, 4, 2), (2, 4, 2)]
    assert lines[1]["per_second"] == pytest.approx(1 / 3) and lines[1]["message"].startswith("encode m  2/4 contents")
    assert json.loads(err)["level"] == "warning"


def test_quiet_lines_are_only_warnings(capsys):
    told = JsonReporter(quiet=True)
    told.say("finished")
    with told.stage("encode m", 3) as advance:
        advance(3)
    told.warn("broken")
    out, err = capsys.readouterr()
    assert out == "" and json.loads(err)["message"] == "broken"


def test_every_line_of_a_command_is_json(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    command = [sys.executable, "-m", "raylib.cli", "encode", "--model", "raylib/hashed-ngrams", "--local"]
    command += ["--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out"), "--log-format", "json"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (run.stdout + run.stderr).splitlines()]
    assert {line["job"] for line in lines} == {"encode"}
    encoding = [line for line in lines if line.get("stage") == "encode"]
    assert encoding and {line["model"] for line in encoding} == {"raylib/hashed-ngrams"}
    assert encoding[-1]["done"] == encoding[-1]["total"] == 2
    assert any("CPU" in line["message"] and "encode" in line["message"] for line in lines), "what it held is said"
