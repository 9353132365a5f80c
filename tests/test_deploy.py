"""What `deploy/` starts fits what `resources=cluster` asks for, and its parts fit each other."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from study.config.composition import compose
from study.sweep.capacity import fits

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
QUANTITY = {"type": "string", "pattern": r"^\d+(Mi|Gi|Ti)?$"}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    properties = required | optional
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


CONTAINER = exactly(
    {
        "name": NAME,
        "image": {"type": "string", "pattern": r"^[a-z0-9/-]+:[\w.-]+$"},
        "resources": exactly(
            {
                kind: exactly({"cpu": QUANTITY, "memory": QUANTITY}, **{"nvidia.com/gpu": QUANTITY})
                for kind in ("requests", "limits")
            }
        ),
        "volumeMounts": {"type": "array", "items": exactly({"name": NAME, "mountPath": {"type": "string"}})},
    }
)
POD = exactly(
    {
        "metadata": exactly({"labels": {"type": "object", "additionalProperties": NAME}}),
        "spec": exactly(
            {
                "securityContext": exactly({"runAsUser": {"type": "integer"}, "fsGroup": {"type": "integer"}}),
                "containers": {"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
                "volumes": {
                    "type": "array",
                    "items": exactly({"name": NAME, "persistentVolumeClaim": exactly({"claimName": NAME})}),
                },
            }
        ),
    }
)
START = {"type": "object", "additionalProperties": {"type": "string"}}
NUMBER = {"type": "integer", "minimum": 0}
# The part of KubeRay's ray.io/v1 that is used here.
RAYJOB = exactly(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": exactly({"name": {**NAME, "maxLength": 47}}),
        "spec": exactly(
            {
                "entrypoint": {"type": "string"},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
                "backoffLimit": NUMBER,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": NUMBER,
                "rayClusterSpec": exactly(
                    {
                        "rayVersion": {"type": "string"},
                        "authOptions": exactly({"mode": {"enum": ["token", "disabled"]}}),
                        "headGroupSpec": exactly({"rayStartParams": START, "template": POD}),
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": exactly(
                                {
                                    "groupName": NAME,
                                    "replicas": NUMBER,
                                    "minReplicas": NUMBER,
                                    "maxReplicas": NUMBER,
                                    "rayStartParams": START,
                                    "template": POD,
                                }
                            ),
                        },
                    }
                ),
            }
        ),
    }
)


@pytest.fixture(scope="module")
def kuberay() -> dict[str, Any]:
    """The objects of `rayjob.yaml` by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kuberay" / "rayjob.yaml").read_text())}


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def node(pod: dict[str, Any]) -> dict[str, float]:
    """What Ray finds in a pod."""
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    memory = 2**30 * int(limits["memory"].removesuffix("Gi"))
    return {"CPU": int(limits["cpu"]), "GPU": int(limits.get("nvidia.com/gpu", 0)), "memory": 0.7 * memory}


def test_the_job_has_the_shape_that_kuberay_reads(kuberay: dict[str, Any]) -> None:
    jsonschema.validate(kuberay["RayJob"], RAYJOB)
    assert kuberay.keys() == {"RayJob", "PersistentVolumeClaim", "NetworkPolicy"}


def test_the_parts_of_the_job_fit_each_other(kuberay: dict[str, Any]) -> None:
    job, image = kuberay["RayJob"], (DEPLOY / "Dockerfile").read_text()
    found = pods(job)
    assert len({pod["spec"]["containers"][0]["image"] for pod in found}) == 1
    policy = kuberay["NetworkPolicy"]["spec"]
    for pod in found:
        (volume,) = pod["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == kuberay["PersistentVolumeClaim"]["metadata"]["name"]
        (mounted,) = pod["spec"]["containers"][0]["volumeMounts"]
        assert mounted["name"] == volume["name"]
        # The entrypoint has no `cd`: what is shared is the working directory.
        assert re.findall(r"^WORKDIR (.*)$", image, re.MULTILINE)[-1] == mounted["mountPath"]
        assert f"USER {pod['spec']['securityContext']['runAsUser']}\n" in image
        assert pod["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
    assert policy["ingress"][0]["from"] == [{"podSelector": policy["podSelector"]}], "its pods reach each other"
    assert job["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"], "nodes are counted at the start"


def test_the_job_runs_a_command_that_is_accepted(kuberay: dict[str, Any]) -> None:
    entrypoint = kuberay["RayJob"]["spec"]["entrypoint"]
    words = shlex.split(entrypoint)
    assert entrypoint == " ".join(words), "a shell elsewhere reads it first: nothing quoted"
    assert not set(entrypoint) & set("&;|<>$`()\\*?")
    assert words[:2] == ["scanvi-study", "run"]
    config = compose(words[2:])
    assert config.resources.address == "auto"
    assert config.tracking.uri == "http://mlflow:5000"


def test_stages_fit_the_nodes_that_are_asked_for(kuberay: dict[str, Any]) -> None:
    resources = compose(["resources=cluster"]).resources
    head, *workers = map(node, pods(kuberay["RayJob"]))
    assert [fits(resources, [worker]) for worker in workers] == [1]
    outside = kuberay["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert fits(resources, [{**head, "CPU": int(outside["num-cpus"])}]) == 0, "the head only hands out"

    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", (DEPLOY / "slurm" / "study.sbatch").read_text(), re.M))
    whole = {"CPU": int(asked["cpus-per-task"]), "GPU": int(asked["gpus-per-node"]), "memory": 2**40}
    assert fits(resources, [whole]) == whole["GPU"], "a stage for each GPU"
    assert fits(compose(["resources=gpu_node"]).resources, [{"CPU": 16, "GPU": 2}]) == 4


def test_versions_are_those_that_work_together(kuberay: dict[str, Any]) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert kuberay["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]
    image = (DEPLOY / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())
    (base,) = re.findall(r"^FROM (.*)$", image, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+:[\w.-]+", base), "a plain name, of no registry"


@pytest.mark.parametrize("path", [*DEPLOY.glob("**/*.sh"), *DEPLOY.glob("**/*.sbatch"), ROOT / ".ci" / "run"])
def test_scripts_are_clean(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    said = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
