"""Tables: the names, heads and order of HALP's files, and names that would break them."""

from __future__ import annotations

import json

from raylib.probe.results import GroupScores
from raylib.probe.tables import group_file, render_markdown, write_group_tables, write_tables
from tests.probe.made_results import many, probe


def test_the_summary_is_as_the_old_one(tmp_path):
    results = [*reversed(many()), probe("text_mean/layer_3", None)]
    write_tables(str(tmp_path), results, results[0])
    lines = (tmp_path / "test_auroc_summary.csv").read_text().splitlines()
    assert lines[0] == "Probe Name,Test AUROC,Train AUROC"
    assert lines[1:4] == [
        "Vision Only,0.6800,0.9700",
        "Vision Token - Layer 0,0.6200,0.9700",
        "Vision Token - Layer 12,0.7000,0.9700",
    ]
    assert lines[7:12] == [
        f"Query Token - Layer {k},{v},0.9700"
        for k, v in ((0, "0.7200"), (12, "0.8100"), (24, "0.9000"), (36, "0.9300"), (47, "0.9200"))
    ]
    assert lines[12] == "Text Mean - Layer 3,,0.9700"
    assert lines[13] == "Vision Only (logistic),0.6400,0.9700"
    assert len(lines) == 1 + 23


def test_groups_from_the_best_down_with_intervals(tmp_path):
    write_group_tables(str(tmp_path), probe("vision_only"))
    assert (tmp_path / "category_auroc.csv").read_text() == (
        "category,num_samples,num_hallucination,num_no_hallucination,auroc,note,auroc_low,auroc_high\n"
        '"count, or number",4,1,3,1.0,,,\n'
        "colour,4,2,2,0.75,,0.5,1.0\n"
    )
    assert (tmp_path / "source_auroc.csv").read_text() == (
        "source_dataset,num_samples,num_hallucination,num_no_hallucination,auroc,note,auroc_low,auroc_high\n"
        "AMBER,5,2,3,0.8333333333333334,,0.6,0.95\n"
        "MathVista,3,0,3,,all 3 rows have the label 0,,\n"
    )


def test_files_have_the_old_names(tmp_path):
    names = [
        "category",
        "source",
        "basic_hallucination_type",
        "hallucination_type",
        "domain_type",
        "domain",
        "answer_type",
    ]
    assert [group_file(name) for name in names] == [
        *("category_auroc.csv", "source_auroc.csv", "basic_hallucination_type_auroc.csv"),
        *(
            "basic_hallucination_type_auroc.csv",
            "domain_type_auroc.csv",
            "domain_type_auroc.csv",
            "answer_type_auroc.csv",
        ),
    ]
    write_group_tables(str(tmp_path), probe("vision_only", by={"../../up": [GroupScores("a", 2, 1, 1.0, None)]}))
    assert [p.name for p in tmp_path.iterdir()] == ["-up_auroc.csv"]
    assert (tmp_path / "-up_auroc.csv").read_text().startswith("type,num_samples,")


def test_the_analysis_has_the_old_names(tmp_path):
    results = many()
    best = next(r for r in results if r.name == "query_token_layer36")
    write_tables(str(tmp_path), results, best)
    found = json.loads((tmp_path / "analysis_summary.json").read_text())
    old = {"model_name", "embedding_type", "layer_name", "probe_dir", "overall_auroc", "test_samples"}
    old |= {"num_categories_analyzed", "num_sources_analyzed", "checkpoint_path"}
    assert old < set(found)
    assert found["embedding_type"] == "query_token_representation" and found["layer_name"] == "layer_36"
    assert (found["overall_auroc"], found["test_samples"], found["num_categories_analyzed"]) == (0.93, 8, 2)
    assert found["checkpoint_path"] == "query_token_layer36/probe_model.pt" and found["chosen_by"] == "validation"
    assert len(found["probes"]) == 22 and found["probes"]["vision_only"]["test_auroc"] == 0.68


def test_the_report_tells_the_best_and_escapes_names():
    groups = [GroupScores("a | b\n# <b>head</b>", 4, 2, 0.5, None)]
    best = probe("query_token/layer_24", by={"category": groups}, model_name="m*x*")
    text = render_markdown([best, probe("vision_only", None)], best)
    assert "**Test AUROC:** 0.9000 [0.8600, 0.9300]" in text
    assert "| a \\| b # &lt;b&gt;head&lt;/b&gt; | 0.5000 | 4 | 2 | 2 |" in text
    assert "**Model:** m\\*x\\*" in text and "chosen by its validation AUROC" in text
    assert "| vision only | – | – | 0.9700 |" in text


def test_many_categories_are_the_best_and_the_worst():
    groups = [GroupScores(f"c{i:02}", 4, 2, i / 50, None) for i in range(50)]
    best = probe("vision_only", by={"category": groups, "source": [GroupScores("one", 2, 0, None, None, "one class")]})
    text = render_markdown([best], best)
    assert text.index("## The best 20 by category") < text.index("| c49 |") < text.index("| c30 |")
    assert text.index("## The worst 20 by category") < text.index("| c19 |") and "| c20 |" not in text
    assert "Without an AUROC: one (one class)" in text
