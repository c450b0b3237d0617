"""Runs the tests in `compiled.py`, without the checks of shapes, which Dynamo cannot trace."""

import os
import subprocess
import sys
from pathlib import Path


def test_compiled_models():
    file = Path(__file__).with_name("compiled.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "PYRO_RNP_UNCHECKED": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "[100%]" in ran.stdout
