"""The manifests against the schemas of Kubernetes, the pod security standard, and a real database."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import yaml

from zbackup.cli.main import exit_codes

from .files import KUBERNETES, ROOT, manifests, pods

MANIFESTS = list(manifests())
PODS = list(pods())
IDS = [f"{name}: {manifest['kind']}" for name, manifest in MANIFESTS]
# The oldest one that has all that is used (podFailurePolicy, timeZone), and the newest one.
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def validate(manifest: dict[str, Any], version: str) -> None:
    """Raise kubernetes_validate.ValidationError where something is unknown, missing or of another type."""
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "manifest"), MANIFESTS, ids=IDS)
def test_a_manifest_is_what_kubernetes_takes(name: str, manifest: dict[str, Any], version: str) -> None:
    validate(manifest, version)

    assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "zbackup"


def test_the_schemas_are_strict() -> None:
    """
    A field that Kubernetes does not know, deep inside, is found.
    """
    job = copy.deepcopy(next(manifest for _, manifest in MANIFESTS if manifest["kind"] == "CronJob"))
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnly"] = True

    with pytest.raises(kubernetes_validate.ValidationError, match="readOnly"):
        validate(job, VERSIONS[0])


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_a_pod_has_the_least_rights(name: str, pod: dict[str, Any]) -> None:
    """
    What the pod security standard `restricted` asks for, no token, a bounded place to write to and nothing else.
    """
    assert pod["serviceAccountName"] == "zbackup"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    assert pod["terminationGracePeriodSeconds"] > 20
    for volume in pod["volumes"]:
        assert volume.keys() - {"name"} <= {"emptyDir", "secret"}
        assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}


def test_jobs_end_and_do_not_pile_up() -> None:
    """
    Nightly jobs never overlap, each has an hour by which it ends, and what cannot get better is not tried again.
    """
    cron_jobs = [manifest["spec"] for _, manifest in MANIFESTS if manifest["kind"] == "CronJob"]
    jobs = [manifest["spec"] for _, manifest in MANIFESTS if manifest["kind"] == "Job"]
    codes = {code for code, _, _ in exit_codes()}

    assert (len(cron_jobs), len(jobs)) == (2, 1)
    assert all(spec["concurrencyPolicy"] == "Forbid" for spec in cron_jobs)
    assert all(re.fullmatch(r"\d+ \d+ \* \* \*", spec["schedule"]) for spec in cron_jobs)
    for spec in (*jobs, *(spec["jobTemplate"]["spec"] for spec in cron_jobs)):
        assert spec["activeDeadlineSeconds"] > 3600
        first = spec["podFailurePolicy"]["rules"][0]
        assert first["action"] == "FailJob"
        assert {2, 3, 30} < set(first["onExitCodes"]["values"]) < codes
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_secrets_come_from_secrets(name: str, pod: dict[str, Any]) -> None:
    """
    What holds a password or a key is taken from a Secret, and no argument or ConfigMap has one.
    """
    secret = re.compile(r"PASSWORD|DSN|SECRET|ACCESS_KEY|SOURCE$|TARGET$|FENCE$|MASTERKEY$")
    settings = next(manifest for _, manifest in MANIFESTS if manifest["kind"] == "ConfigMap")
    (container,) = pod["containers"]

    assert not any(secret.search(key) for key in settings["data"])
    for variable in container["env"]:
        assert ("valueFrom" in variable) == bool(secret.search(variable["name"])), variable["name"]
    assert not any("password=" in word or "://" in word for word in container["args"])


def test_only_names_database_and_bucket_are_reached() -> None:
    """
    All pods are under the policy; it lets nobody in, and out only to DNS, PostgreSQL and HTTPS off the cluster.
    """
    policy = next(manifest["spec"] for file, manifest in MANIFESTS if file == "network-policy.yaml")
    ports = [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]]

    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "zbackup"}}
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress", "Egress"], [])
    assert ports == [[53], [5432], [443]]
    assert all(rule["to"] for rule in policy["egress"])


def test_restores_happen_on_purpose_only() -> None:
    """
    What is applied as a whole holds no restore, no pruning, and no made-up Secret.
    """
    whole = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())

    assert set(whole["resources"]) == {"settings.yaml", "service-account.yaml", "network-policy.yaml", "run.yaml"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl on this machine")
def test_kustomize_builds_the_whole() -> None:
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(built.stdout))

    assert {one["kind"] for one in objects} == {"ConfigMap", "ServiceAccount", "NetworkPolicy", "CronJob"}
    assert {one["metadata"]["namespace"] for one in objects} == {"zitadel"}
    assert "image: registry.example/zbackup:0.1.0" in built.stdout


def surroundings(pod: dict[str, Any], settings: dict[str, str], secrets: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the variables of a container as the kubelet makes them."""
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "zbackup"}}]
    yield from settings.items()
    for variable in container["env"]:
        if "value" in variable:
            yield variable["name"], variable["value"]
            continue
        wanted = variable["valueFrom"]["secretKeyRef"]
        if (key := f"{wanted['name']}/{wanted['key']}") in secrets:
            yield variable["name"], secrets[key]
        else:
            assert wanted.get("optional"), key


def test_the_pods_back_up_and_restore(source: str, new_database: Callable[[], str], bare: Path) -> None:
    """
    With the arguments and variables of the manifests alone: init, the nightly run with the Secret of ZITADEL's
    chart, the restore into another database with its masterkey.
    """
    by_file = dict(PODS)
    target = new_database()
    (bare / "masterkey").write_text("MasterkeyNeedsToHave32Characters")
    settings = next(manifest for _, manifest in MANIFESTS if manifest["kind"] == "ConfigMap")["data"]
    settings = settings | {"ZBACKUP_ARCHIVE": str(bare / "archive")}
    secrets = {"zitadel-postgresql-dsn/dsn": source, "zbackup/ZBACKUP_TARGET": target}

    def run(file: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = dict(surroundings(by_file[file], settings, secrets))
        if "ZBACKUP_MASTERKEY_FILE" in environment:
            environment["ZBACKUP_MASTERKEY_FILE"] = str(bare / "masterkey")
        words = [word if "T" not in word else "latest" for word in by_file[file]["containers"][0]["args"]]
        return subprocess.run(
            [sys.executable, "-m", "zbackup", *(arguments or words)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    for ran in (run("run.yaml", "init"), run("run.yaml"), run("restore.yaml")):
        assert ran.returncode == 0, ran.stderr
    with psycopg.connect(source) as first, psycopg.connect(target) as second:
        count = "SELECT count(*) FROM eventstore.events2 WHERE aggregate_type <> 'system'"  # migrations run again
        assert first.execute(count).fetchone() == second.execute(count).fetchone()
