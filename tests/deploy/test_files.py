"""The files for clusters, against the checks of those who read them; and that these checks see mistakes."""

from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
RAY = re.search(r"^ray==(\S+)", LOCK, re.MULTILINE)


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


# cluster.yaml, by Ray's own check.


def check_cluster(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.fixture
def cluster() -> dict[str, Any]:
    return load("cluster.yaml")


def test_ray_takes_the_cluster(cluster):
    check_cluster(cluster)


def _unknown_key(config):
    config["idle_timeout"] = 10


def _word_for_a_number(config):
    config["available_node_types"]["l40s"]["max_workers"] = "eight"


def _no_node_config(config):
    del config["available_node_types"]["l40s"]["node_config"]


def _other_head(config):
    config["head_node_type"] = "heads"


def _too_many_from_the_start(config):
    config["available_node_types"]["cpu-spot"]["min_workers"] = config["max_workers"] + 1


@pytest.mark.parametrize(
    "spoil", [_unknown_key, _word_for_a_number, _no_node_config, _other_head, _too_many_from_the_start]
)
def test_ray_refuses_a_broken_cluster(cluster, spoil):
    spoil(cluster)
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        check_cluster(cluster)


def test_workers_start_from_zero_and_the_head_computes_nothing(cluster):
    kinds = cluster["available_node_types"]
    head = kinds.pop(cluster["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert all(kind["min_workers"] == 0 for kind in kinds.values())
    assert {"g6e.4xlarge", "p4d.24xlarge", "p5.48xlarge"} <= {k["node_config"]["InstanceType"] for k in kinds.values()}
    for kind in kinds.values():
        spot = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        assert kind["labels"]["raylib.io/market"] == ("spot" if spot else "on-demand")
        assert kind["labels"]["raylib.io/node-type"] == kind["node_config"]["InstanceType"]


def test_nodes_show_a_token_and_run_the_pinned_ray(cluster):
    assert RAY is not None
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert any(place.endswith("/.ray/auth_token") for place in cluster["file_mounts"])
    assert f":{RAY[1]}-" in cluster["docker"]["image"]
    assert f"FROM rayproject/ray:{RAY[1]}-" in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


# The RayJob, by the schema that KubeRay publishes.


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    packed = (Path(__file__).parent / "data" / "rayjob-v1.json.gz").read_bytes()
    return _closed(json.loads(gzip.decompress(packed)))


def _closed(schema: Any) -> Any:
    """Kubernetes drops fields that a schema does not know; here they are mistakes."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(part) for name, part in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return found


@pytest.fixture
def job() -> dict[str, Any]:
    return load("deploy/kuberay-rayjob.yaml")


def check_job(job: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.validate({name: value for name, value in job.items() if name != "metadata"}, _without_metadata(schema))


def _without_metadata(schema: dict[str, Any]) -> dict[str, Any]:
    """Its own schema says no more than that it is an object."""
    return {**schema, "properties": {k: v for k, v in schema["properties"].items() if k != "metadata"}}


def test_kuberay_takes_the_job(job, schema):
    check_job(job, schema)
    cluster = job["spec"]["rayClusterSpec"]
    assert RAY is not None and cluster["rayVersion"] == RAY[1]
    assert cluster["enableInTreeAutoscaling"] and cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert [group["minReplicas"] for group in cluster["workerGroupSpecs"]] == [0, 0]


def _typing_error(spec):
    spec["rayClusterSpec"]["enableInTreeAutoscalling"] = True


def _number_for_a_word(spec):
    spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _no_head(spec):
    del spec["rayClusterSpec"]["headGroupSpec"]


def _unknown_mode(spec):
    spec["rayClusterSpec"]["authOptions"]["mode"] = "password"


def _group_without_a_name(spec):
    del spec["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]


def _misplaced_resource(spec):
    container = spec["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]
    container["gpu"] = 1


@pytest.mark.parametrize(
    "spoil",
    [_typing_error, _number_for_a_word, _no_head, _unknown_mode, _group_without_a_name, _misplaced_resource],
)
def test_kuberay_refuses_a_broken_job(job, schema, spoil):
    spoil(job["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check_job(job, schema)


def test_the_image_copies_what_is_there():
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[2:-1]]
    assert copied and all((ROOT / name).exists() for name in copied), copied
