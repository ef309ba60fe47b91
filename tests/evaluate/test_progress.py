"""Progress: lines by hand, and reporters that say no more than they should."""

import pytest

from raylib.evaluate import progress
from raylib.evaluate.progress import BarReporter, PlainReporter, QuietReporter, progress_line, quality_line, reporter


@pytest.mark.parametrize(
    ("done", "total", "rate", "line"),
    [
        (120, 360, 24.0, "encode m  120/360 contents (33 %)  24.0/s  0:10 left"),
        (0, 360, None, "encode m  0/360 contents (0 %)"),
        (360, 360, 36.0, "encode m  360/360 contents (100 %)  36.0/s"),
        (1, 7201, 1.0, "encode m  1/7201 contents (0 %)  1.0/s  2:00:00 left"),
        (1, 100, 4 / 3, "encode m  1/100 contents (1 %)  1.3/s  1:14 left"),
        (5, 10, None, "encode m  5/10 contents (50 %)"),
        (0, 0, None, "encode m  0/0 contents (100 %)"),
    ],
)
def test_a_line_tells_done_total_rate_and_time_left(done, total, rate, line):
    assert progress_line("encode m", done, total, rate) == line


def test_what_could_not_be_used_is_counted_in_the_line(capsys):
    assert progress_line("extract m", 8, 10, 2.0, 3) == "extract m  8/10 contents (80 %), 3 bad  2.0/s  0:01 left"
    with PlainReporter().stage("extract m", 4) as advance:
        advance(3, 1)
        advance(1, 1)
    assert capsys.readouterr().out.splitlines()[-1] == "extract m  4/4 contents (100 %), 2 bad"


def test_plain_lines_come_at_the_start_now_and_then_and_at_the_end(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with PlainReporter().stage("encode m", 31) as advance:
        clock[0] += 60.0  # a minute of starting is no part of the rate, nor of the time left
        advance(1)
        for _ in range(30):  # the last one comes when a line is due, which is then the end's
            clock[0] += 1.0
            advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "encode m  0/31 contents (0 %)",
        "encode m  1/31 contents (3 %)",
        *[f"encode m  {n}/31 contents ({100 * n / 31:.0f} %)  1.0/s  0:{31 - n:02d} left" for n in (6, 11, 16, 21, 26)],
        "encode m  31/31 contents (100 %)  1.0/s",
    ]


def test_quiet_says_only_what_is_wrong(capsys):
    quiet = QuietReporter()
    quiet.say("finished")
    quiet.warn("broken")
    with quiet.stage("encode m", 3) as advance:
        advance(3)
    out, err = capsys.readouterr()
    assert out == "" and err == "broken\n"


def test_bars_of_two_stages_end_together(capsys):
    bars = BarReporter()
    with bars.stage("one", 3) as first:
        first(1)
        with pytest.raises(RuntimeError), bars.stage("two", 2) as second:
            second(2)
            assert [task.completed for task in bars._progress.tasks] == [1, 2]
            raise RuntimeError("the stage failed")
        assert len(bars._progress.tasks) == 1 and bars._progress.live.is_started
    assert bars._progress.tasks == [] and not bars._progress.live.is_started


def test_names_are_never_read_as_markup(capsys):
    BarReporter().say("✓ org/model[bold]x[/bold]  0.5")
    assert "org/model[bold]x[/bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("quiet", "terminal", "kind"),
    [
        (True, True, QuietReporter),
        (True, False, QuietReporter),
        (False, True, BarReporter),
        (False, False, PlainReporter),
    ],
)
def test_the_reporter_fits_where_the_output_goes(monkeypatch, quiet, terminal, kind):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: terminal, raising=False)
    assert type(reporter(quiet)) is kind


def test_what_a_search_says_of_itself_is_the_worst_of_its_subsets():
    sizes = {"bytes_per_document": 32.0, "bytes_per_document_float32": 512.0}
    assert quality_line({}) == quality_line({"test/en": {"index": "Flat"}}) == ""
    assert (
        quality_line({"test/en": {"recall_at_10": 0.98765, **sizes}, "test/fr": {"recall_at_10": 1.0, **sizes}})
        == "; recall_at_10 0.9877, 32 of 512 bytes a document"
    )
