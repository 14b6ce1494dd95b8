"""An embedded Ray listens on the machine's address; who has not its token is not let in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

ASK = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).internal_kv_keys(b'', namespace=None)"


@pytest.mark.parametrize("kind", ["none", "wrong", "right"])
def test_only_the_token_of_the_session_opens_it(ray_cluster: None, kind: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["RAY_AUTH_MODE"] = "disabled" if kind == "none" else "token"
    if kind != "none":
        environment["RAY_AUTH_TOKEN"] = "0" * 64 if kind == "wrong" else os.environ["RAY_AUTH_TOKEN"]
    asked = subprocess.run(
        [sys.executable, "-c", ASK, ray.get_runtime_context().gcs_address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if kind == "right":
        assert asked.returncode == 0, asked.stderr
    else:
        assert asked.returncode == 1
        assert "AuthenticationError" in asked.stderr
