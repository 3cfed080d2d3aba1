"""deploy/kubernetes: the pods that KubernetesExecutor builds for tasks of dssm_training, and what
the values of the Helm chart refer to.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
import yaml

from tests.conftest import REPO
from tests.dags.test_dssm_training import parse

pytest.importorskip("airflow.providers.cncf.kubernetes", reason="needs the extra `kubernetes`")

FOLDER = REPO / "deploy" / "kubernetes"
README = (FOLDER / "README.md").read_text()
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
SETTINGS = dict(
    line.split("=", 1)
    for line in (FOLDER / "settings.env").read_text().splitlines()
    if line and not line.startswith("#")
)
IMAGE = "{repository}:{tag}".format(**VALUES["images"]["airflow"])
TRAINING = "/opt/dssm/pods/training.yaml"  # in the scheduler, where the ConfigMap is mounted
COMMON = {
    "claims": {"runs": "dssm-runs", "logs": "dssm-logs", "data": "dssm-data"},
    "mounts": {"runs": "/runs", "logs": "/opt/airflow/logs", "data": "/data"},
    "env_from": {"dssm-settings": None, "dssm-mlflow": True},  # and whether it may be missing
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """The executor_config of each task of dssm_training with $DSSM_TRAIN_POD_TEMPLATE."""
    parsed = parse(tmp_path_factory, DSSM_TRAIN_POD_TEMPLATE=SETTINGS["DSSM_TRAIN_POD_TEMPLATE"])
    assert "kubernetes" not in parsed["modules"], "parsing a Dag must not import the client"
    return {name: task["executor_config"] for name, task in parsed["tasks"].items()}


def workload(task):
    """What the scheduler hands to the executor for a task."""
    from airflow.executors.workloads import ExecuteTask

    instance = {
        "id": UUID(int=1),
        "dag_version_id": UUID(int=2),
        "task_id": task,
        "dag_id": "dssm_training",
        "run_id": "manual__2017-10-07",
        "try_number": 1,
        "map_index": -1,
        "queue": "default",
        "pool_slots": 1,
        "priority_weight": 1,
    }
    return ExecuteTask.model_validate(
        {
            "ti": instance,
            "token": "a-token",
            "dag_rel_path": "dssm_training.py",
            "bundle_info": {"name": "dags-folder"},
            "log_path": "a.log",
        }
    )


def pod(task, config):
    """The pod that KubernetesExecutor builds from the template of the task, or of the values."""
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
        get_base_pod_from_template,
    )
    from airflow.providers.cncf.kubernetes.pod_generator import (
        PodGenerator,
        workload_to_command_args,
    )

    def here(template: str | None) -> str | None:
        return template and str(FOLDER / "pods" / Path(template).name)

    base = VALUES["config"]["kubernetes_executor"]["pod_template_file"]
    return PodGenerator.construct_pod(
        dag_id="dssm_training",
        task_id=task,
        pod_id=f"dssm-training-{task.replace('_', '-')}",
        try_number=1,
        kube_image=IMAGE,
        date=None,
        args=workload_to_command_args(workload(task)),
        pod_override_object=PodGenerator.from_obj(config),
        base_worker_pod=get_base_pod_from_template(
            here(config.get("pod_template_file")), SimpleNamespace(pod_template_file=here(base))
        ),
        namespace="retrieval",
        scheduler_job_id="1",
        run_id="manual__2017-10-07",
    )


def check_common(built):
    """Check what all pods have, and return the container."""
    assert built.metadata.namespace == "retrieval"
    spec = built.spec
    assert (spec.restart_policy, spec.service_account_name) == ("Never", "dssm-task")
    assert spec.automount_service_account_token is False
    assert (spec.security_context.run_as_non_root, spec.security_context.run_as_user) == (
        True,
        50000,
    )
    [container] = spec.containers
    assert (container.name, container.image, container.command) == ("base", IMAGE, None)
    assert container.args[:4] == [
        "python",
        "-m",
        "airflow.sdk.execution_time.execute_workload",
        "--json-string",
    ]
    references = [each.config_map_ref or each.secret_ref for each in container.env_from]
    assert {each.name: each.optional for each in references} == COMMON["env_from"]
    claims = {v.name: v.persistent_volume_claim for v in spec.volumes if v.persistent_volume_claim}
    assert {name: claim.claim_name for name, claim in claims.items()} == COMMON["claims"]
    read_only = [m.name for m in container.volume_mounts if m.read_only]
    assert read_only == [name for name, claim in claims.items() if claim.read_only] == ["data"]
    return container


def test_a_training_gets_a_gpu_memory_and_no_address_of_publishing(configs):
    assert configs["train_towers"] == {"pod_template_file": TRAINING}
    built = pod("train_towers", configs["train_towers"])
    container = check_common(built)
    assert container.resources.requests == {"cpu": "4", "memory": "32Gi"}
    assert container.resources.limits == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    assert built.spec.node_selector == {"nvidia.com/gpu.present": "true"}
    [toleration] = built.spec.tolerations
    assert (toleration.key, toleration.operator, toleration.effect) == (
        "nvidia.com/gpu",
        "Exists",
        "NoSchedule",
    )
    [shm] = [volume.empty_dir for volume in built.spec.volumes if volume.empty_dir]
    assert (shm.medium, shm.size_limit) == ("Memory", "4Gi")
    mounts = {mount.name: mount.mount_path for mount in container.volume_mounts}
    assert mounts == COMMON["mounts"] | {"shm": "/dev/shm"}
    assert {each.name: each.value for each in container.env} == {
        "AIRFLOW_IS_K8S_EXECUTOR_POD": "True"
    }


def test_another_task_gets_neither_gpu_nor_node_and_the_address_from_a_secret(configs):
    assert [name for name, config in configs.items() if config] == ["train_towers"]
    built = pod("split_by_time", configs["split_by_time"])
    container = check_common(built)
    assert container.resources.requests == {"cpu": "2", "memory": "8Gi"}
    assert container.resources.limits == {"memory": "8Gi"}
    assert (built.spec.node_selector, built.spec.tolerations) == (None, None)
    assert {m.name: m.mount_path for m in container.volume_mounts} == COMMON["mounts"]
    publish = {each.name: each for each in container.env}["DSSM_PUBLISH"]
    secret = publish.value_from.secret_key_ref
    assert (publish.value, secret.name, secret.key) == (None, "dssm-publish", "address")


@pytest.mark.parametrize("name", ["task", "training"])
def test_kubernetes_knows_every_key_of_a_template(name):
    """The client leaves out keys that it does not know, so that a misspelt key would be lost."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import ApiClient

    path = FOLDER / "pods" / f"{name}.yaml"
    read = ApiClient().sanitize_for_serialization(PodGenerator.deserialize_model_file(str(path)))
    assert read == yaml.safe_load(path.read_text())


def test_the_scheduler_mounts_the_templates_where_the_settings_look_for_them():
    [mount] = VALUES["scheduler"]["extraVolumeMounts"]
    base = VALUES["config"]["kubernetes_executor"]["pod_template_file"]
    assert [base, SETTINGS["DSSM_TRAIN_POD_TEMPLATE"]] == [
        f"{mount['mountPath']}/task.yaml",
        f"{mount['mountPath']}/training.yaml",
    ]
    [volume] = VALUES["scheduler"]["extraVolumes"]
    name = volume["configMap"]["name"]
    assert f"create configmap {name} --from-file=deploy/kubernetes/pods" in README


def test_all_that_is_referred_to_is_created():
    files = [FOLDER / "values.yaml", *sorted((FOLDER / "pods").glob("*.yaml"))]
    text = "".join(path.read_text() for path in files)
    made = {
        (each["kind"], each["metadata"]["name"])
        for each in yaml.safe_load_all((FOLDER / "claims.yaml").read_text())
    }
    claims = set(re.findall(r"(?:claimName|existingClaim): (\S+)", text))
    accounts = set(re.findall(r"serviceAccountName: (\S+)", text))
    assert made == {("PersistentVolumeClaim", name) for name in claims} | {
        ("ServiceAccount", name) for name in accounts
    }
    secrets = set(re.findall(r"[sS]ecret(?:Name|Ref|KeyRef): *(?:\n +name: )?(\S+)", text))
    assert secrets == {"dssm-airflow", "dssm-login", "dssm-mlflow", "dssm-publish"}
    assert set(re.findall(r"create secret generic (\S+)", README)) == secrets


def test_the_settings_are_those_of_compose_without_passwords():
    services = yaml.safe_load((REPO / "docker-compose.yml").read_text())
    compose = {name for name in services["x-airflow"]["environment"] if name.startswith("DSSM_")}
    image = {"DSSM_RUNS"}  # which the Dockerfile sets
    ours = {name for name in SETTINGS if name.startswith("DSSM_")}
    assert ours == compose | image | {"DSSM_TRAIN_POD_TEMPLATE"}
    assert "DSSM_PUBLISH" not in ours
    assert not [name for name in SETTINGS if re.search("PASSWORD|SECRET|TOKEN|KEY|CONN", name)]
