"""What `benchmarks/tasks.py` makes of its measurements."""

import json

import pytest

from benchmarks.tasks import CpuOfTree, summary, table, write_into_readme
from benchmarks.tasks_inputs import OTHERS, cases, load_tasks, write_case


def side(work: float, total: float, cpu: float, score: float) -> dict:
    return {"work": work, "startup": 1.0, "total": total, "cpu": cpu, "scores": {"T/test/default": score}}


def record(*pairs: dict) -> dict:
    machine = {
        "cores used": 2,
        "cores of the machine": 4,
        "processor": "P",
        "load average at the start": [0.1, 0, 0],
        "load average at the end": [0.2, 0, 0],
    }
    versions = {"mteb": "1", "ray": "2", "torch": "3"}
    found = [summary(cases(6, 40)[0], list(pairs))]
    return {"date": "d", "machine": machine, "versions": versions, "minutes": 3.0, "cases": found}


PAIRS = (
    {"plain": side(10.0, 12.0, 9.0, 0.5), "raylib": side(5.0, 20.0, 18.0, 0.5)},
    {"plain": side(12.0, 14.0, 9.0, 0.5), "raylib": side(3.0, 14.0, 9.0, 0.5 + 2e-5)},
)


def test_ratios_are_of_pairs_and_differences_are_the_largest():
    (case,) = record(*PAIRS)["cases"]
    assert case["ratios"] == {"work": 3.0, "total": 0.8, "cpu": 0.75}
    assert case["seconds"]["work"] == {"plain": 11.0, "raylib": 4.0}
    assert case["largest difference of a main score"] == pytest.approx(2e-5)


def test_sides_that_scored_different_things_are_no_result():
    other = {**PAIRS[0], "raylib": {**PAIRS[0]["raylib"], "scores": {}}}
    with pytest.raises(SystemExit, match="different things"):
        record(other)


def test_the_table_goes_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    marks = ("<!-- results of tasks.py: rewritten by every full run -->", "<!-- end of results of tasks.py -->")
    path.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    write_into_readme(record(*PAIRS), path)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 11.0 | 4.0 | 3.00× | 1.0 / 1.0 | 0.80× | 9.0 / 13.5 | 2e-05 |" in text
    assert json.dumps(table(record(*PAIRS)))  # plain text, no objects


def test_cpu_of_a_process_and_its_children():
    import subprocess
    import sys

    burn = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    code = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{burn}\nimport time; time.sleep(.5)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    with CpuOfTree(process.pid) as cpu:
        process.wait()
    assert 0.8 < cpu.seconds < 4


def test_data_is_what_the_tasks_read(tmp_path):
    case = cases(6, 40)[1]
    write_case(case, str(tmp_path), (48, 64))
    tasks = {task.metadata.name: task for task in load_tasks(case, str(tmp_path))}
    assert list(tasks) == case.tasks and len(tasks) == 10
    assert all(tasks[name].data_loaded for name in OTHERS)
    assert tasks["STSBenchmark"].dataset["test"].column_names == ["sentence1", "sentence2", "score"]
