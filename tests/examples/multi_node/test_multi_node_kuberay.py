"""The manifests, against Kubernetes' own schemas, and against each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from verl_llds.compose import compose_run

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "examples" / "multi_node" / "kuberay"
SERVICE, DEPLOYMENT = yaml.safe_load_all((MANIFESTS / "retriever.yaml").read_text(encoding="utf-8"))
JOB = yaml.safe_load((MANIFESTS / "rayjob.yaml").read_text(encoding="utf-8"))
HEAD = JOB["spec"]["rayClusterSpec"]["headGroupSpec"]
(WORKERS,) = JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]

# Fields of KubeRay's ray.io/v1 types (ray-operator/apis/ray/v1/{rayjob,raycluster}_types.go) that may be used here.
JOB_FIELDS = {
    "entrypoint", "runtimeEnvYAML", "jobId", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submissionMode", "submitterPodTemplate",
    "clusterSelector", "suspend", "metadata", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources",
}  # fmt: skip
CLUSTER_FIELDS = {"headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions"}
HEAD_FIELDS = {"rayStartParams", "template", "serviceType", "headService", "enableIngress"}
WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "suspend",
    "scaleStrategy", "idleTimeoutSeconds",
}  # fmt: skip


def validate(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("manifest", [SERVICE, DEPLOYMENT], ids=lambda manifest: manifest["kind"])
def test_the_retriever_is_valid(manifest: dict[str, Any]) -> None:
    validate(manifest)


def test_the_schemas_would_notice() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        validate({**SERVICE, "spec": {**SERVICE["spec"], "portz": []}})


@pytest.mark.parametrize("group", [HEAD, WORKERS], ids=["head", "workers"])
def test_a_pod_of_ray_is_valid(group: dict[str, Any]) -> None:
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]})


def test_the_job_has_kuberay_s_fields_only() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert set(JOB["spec"]) <= JOB_FIELDS
    assert set(JOB["spec"]["rayClusterSpec"]) <= CLUSTER_FIELDS
    assert set(HEAD) <= HEAD_FIELDS
    assert set(WORKERS) <= WORKER_FIELDS
    for group in (HEAD, WORKERS):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert WORKERS["minReplicas"] == WORKERS["replicas"] == WORKERS["maxReplicas"]


def test_the_job_fits_its_hardware() -> None:
    (recipe,) = re.findall(r"recipes/(\w+)\.sh", JOB["spec"]["entrypoint"])
    assert (ROOT / "recipes" / f"{recipe}.sh").is_file()
    overrides = re.findall(r"\b(?:hardware|search\.url)=\S+", JOB["spec"]["entrypoint"].replace('"', ""))
    config = compose_run([f"experiment={recipe}", *overrides])
    assert config.trainer.nnodes == 1 + WORKERS["replicas"]
    assert f"--nodes {config.trainer.nnodes} " in JOB["spec"]["entrypoint"]
    for group in (HEAD, WORKERS):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == str(config.trainer.n_gpus_per_node)
    name, port = SERVICE["metadata"]["name"], SERVICE["spec"]["ports"][0]["port"]
    assert config.search.url == f"http://{name}:{port}/retrieve"
    assert f"--retriever {config.search.url}" in JOB["spec"]["entrypoint"]


def test_the_retriever_is_found_and_asks_for_the_token_that_ray_has() -> None:
    pod = DEPLOYMENT["spec"]["template"]
    assert SERVICE["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[SERVICE["spec"]["ports"][0]["targetPort"]] == int(
        container["args"][container["args"].index("--port") + 1]
    )
    for group in (HEAD, WORKERS):
        assert group["template"]["spec"]["containers"][0]["env"] == container["env"]


@pytest.mark.parametrize("template", [DEPLOYMENT["spec"]["template"], HEAD["template"], WORKERS["template"]])
def test_every_mount_has_its_volume(template: dict[str, Any]) -> None:
    (container,) = template["spec"]["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
