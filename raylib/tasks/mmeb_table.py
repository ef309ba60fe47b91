"""MMEB's names: its subsets and their groups, what their queries and targets hold, and the targets' prefixes.

Plain data, without MTEB: the leaderboard groups scores by it. MMEB (arXiv 2410.05160) has 36 image subsets in four
meta-tasks; MMEB-V2 (arXiv 2507.04590) adds 24 of visual documents and 18 of videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylib.errors import UserError

HUB_PATH = "TIGER-Lab/MMEB-eval"
PREFIX = "MMEB_"
"""Before a subset's name in the name of its task; some subsets are called like tasks that MTEB has."""

METADATA: dict[str, Any] = {
    "modalities": ["text", "image"],
    "eval_langs": ["eng-Latn"],
    "task_subtypes": ["Image Text Retrieval"],
    "license": "apache-2.0",
    "annotations_creators": "derived",
    "dialect": [],
    "sample_creation": "found",
    "bibtex_citation": "",
}
"""What MTEB wants to know of every task that is read in MMEB's own layout."""

META_TASKS: dict[str, tuple[str, ...]] = {
    "classification": (
        *("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397"),
        *("Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211"),
    ),
    "VQA": (
        *("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA"),
        *("Visual7W", "ScienceQA", "VizWiz", "GQA", "TextVQA"),
    ),
    "retrieval": (
        *("VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t"),
        *("NIGHTS", "WebQA", "FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
    ),
    "grounding": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}
"""Meta-task → subsets, in the order of the paper's tables."""

SUBSETS: tuple[str, ...] = tuple(subset for subsets in META_TASKS.values() for subset in subsets)

_FROM_TEXT = ("VisDial", "VisualNews_t2i", "MSCOCO_t2i", "WebQA", "Wiki-SS-NQ", "EDIS")
_TO_TEXT = (*META_TASKS["classification"], *META_TASKS["VQA"], "VisualNews_i2t", "MSCOCO_i2t")
_CAPTIONS = ("MSCOCO_i2t", "VisualNews_i2t")

VISDOC: dict[str, dict[str, str]] = {
    "ViDoRe-V1": {
        "ViDoRe_arxivqa": "VidoreArxivQARetrieval",
        "ViDoRe_docvqa": "VidoreDocVQARetrieval",
        "ViDoRe_infovqa": "VidoreInfoVQARetrieval",
        "ViDoRe_tabfquad": "VidoreTabfquadRetrieval",
        "ViDoRe_tatdqa": "VidoreTatdqaRetrieval",
        "ViDoRe_shiftproject": "VidoreShiftProjectRetrieval",
        "ViDoRe_syntheticDocQA_artificial_intelligence": "VidoreSyntheticDocQAAIRetrieval",
        "ViDoRe_syntheticDocQA_energy": "VidoreSyntheticDocQAEnergyRetrieval",
        "ViDoRe_syntheticDocQA_government_reports": "VidoreSyntheticDocQAGovernmentReportsRetrieval",
        "ViDoRe_syntheticDocQA_healthcare_industry": "VidoreSyntheticDocQAHealthcareIndustryRetrieval",
    },
    "ViDoRe-V2": {
        "ViDoRe_esg_reports_human_labeled_v2": "Vidore2ESGReportsHLRetrieval",
        "ViDoRe_biomedical_lectures_v2_multilingual": "Vidore2BioMedicalLecturesRetrieval",
        "ViDoRe_economics_reports_v2_multilingual": "Vidore2EconomicsReportsRetrieval",
        "ViDoRe_esg_reports_v2_multilingual": "Vidore2ESGReportsRetrieval",
    },
    "VisRAG": {
        "VisRAG_ArxivQA": "VisRAGRetArxivQA",
        "VisRAG_ChartQA": "VisRAGRetChartQA",
        "VisRAG_MP-DocVQA": "VisRAGRetMPDocVQA",
        "VisRAG_SlideVQA": "VisRAGRetSlideVQA",
        "VisRAG_InfoVQA": "VisRAGRetInfoVQA",
        "VisRAG_PlotQA": "VisRAGRetPlotQA",
    },
    "out of domain": {
        "ViDoSeek-page": "VLM2Vec/ViDoSeek-page-fixed",
        "ViDoSeek-doc": "VLM2Vec/ViDoSeek",
        "MMLongBench-page": "VLM2Vec/MMLongBench-page-fixed",
        "MMLongBench-doc": "MMLongBenchDocRetrieval",
    },
}
"""Group → subset of MMEB-V2 → the task that MTEB has of it, or the data set's path on the hub where MTEB has none."""

VISDOC_SUBSETS: tuple[str, ...] = tuple(subset for group in VISDOC.values() for subset in group)
VISDOC_PREFIX = "MMEB2_"

VIDEO_SUBSETS: tuple[str, ...] = (
    *("K700", "SmthSmthV2", "HMDB51", "UCF101", "Breakfast"),
    *("MVBench", "Video-MME", "NExTQA", "EgoSchema", "ActivityNetQA"),
    *("DiDeMo", "MSR-VTT", "MSVD", "VATEX", "YouCook2"),
    *("QVHighlight", "Charades-STA", "MomentSeeker"),
)
"""MMEB-V2's subsets of videos, which cannot be evaluated."""

IMAGE_BENCHMARK, VISDOC_BENCHMARK = "MMEB(eval)", "MMEB-V2(visdoc)"
VIDEO_BENCHMARKS = ("MMEB-V2", "MMEB-V2(video)")
"""Names of benchmarks that hold videos."""


@dataclass(frozen=True)
class MmebOptions:
    """How the image subsets are evaluated. target_prefix: put `target_prefix` before targets. candidate_pool: "row", a
    query's own candidates, or "subset", those of all its rows. image_dir: a folder or .zip of images."""

    target_prefix: bool = False
    candidate_pool: str = "row"
    image_dir: str | None = None

    def __post_init__(self) -> None:
        if self.candidate_pool not in ("row", "subset"):
            raise UserError(f"--candidate-pool is {self.candidate_pool!r}; expected row or subset")

    def changed(self) -> dict[str, Any]:
        """What changes scores, for the folder results are filed under."""
        pool = {"candidate_pool": self.candidate_pool} if self.candidate_pool != "row" else {}
        return {**({"target_prefix": True} if self.target_prefix else {}), **pool}

    def flags(self) -> list[str]:
        """The flags that are set."""
        named = {"--image-dir": self.image_dir is not None}
        return [f"--{name.replace('_', '-')}" for name in self.changed()] + [f for f, given in named.items() if given]


def options_of(settings: Mapping[str, Any]) -> MmebOptions:
    """The options among the settings of a run, as its summary keeps them: what was not set is not there."""
    return MmebOptions(**{name: settings[name] for name in MmebOptions.__dataclass_fields__ if name in settings})


def task_name(subset: str) -> str:
    """The name of the task of an image subset."""
    return PREFIX + subset


def visdoc_task_name(subset: str) -> str:
    """The name of the task of a subset of visual documents: it has prompts and a main score of its own."""
    return VISDOC_PREFIX + subset


def category(subset: str) -> str:
    """What queries and targets hold, as MTEB spells it. Instructions are text, so every image comes with text; what
    the data really holds decides when it is read."""
    return f"{'t' if subset in _FROM_TEXT else 'it'}2{'t' if subset in _TO_TEXT else 'it'}"


def target_prefix(subset: str) -> str:
    """What `--target-prefix` puts before every target's text (B3, arXiv 2505.11293, table 13); "" for most subsets."""
    if subset in META_TASKS["classification"]:
        return "Represent the class label: "
    if subset in META_TASKS["VQA"]:
        return "Represent the answer: "
    return "Represent the image caption: " if subset in _CAPTIONS else ""


@dataclass(frozen=True)
class GroupMean:
    """The mean over the subsets of one group that were scored. value: 0 to 1. scored of total subsets."""

    benchmark: str
    group: str
    value: float
    scored: int
    total: int

    @property
    def complete(self) -> bool:
        return self.scored == self.total


def group_means(scores: Mapping[str, float]) -> list[GroupMean]:
    """Task name → main score, of one model: the mean of every group of which something was scored, and the overall one
    of its benchmark. The overall score is the mean over subsets, as published, not over groups."""
    found = []
    for benchmark, groups in _groups().items():
        everything = [task for tasks in groups.values() for task in tasks]
        for group, tasks in [*groups.items(), ("overall", everything)]:
            values = [scores[task] for task in tasks if task in scores]
            if values:
                found.append(GroupMean(benchmark, group, sum(values) / len(values), len(values), len(tasks)))
    return found


def group_names(benchmark: str) -> list[str]:
    """The groups of a benchmark in their order, "overall" last."""
    return [*_groups()[benchmark], "overall"]


def _groups() -> dict[str, dict[str, Sequence[str]]]:
    """Benchmark → group → tasks."""
    return {
        IMAGE_BENCHMARK: {group: _named(task_name, subsets) for group, subsets in META_TASKS.items()},
        VISDOC_BENCHMARK: {group: _named(visdoc_task_name, subsets) for group, subsets in VISDOC.items()},
    }


def _named(name, subsets: Iterable[str]) -> list[str]:
    return [name(subset) for subset in subsets]
