"""A fit with the user's own network goes on in another process, where it stands elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import own_networks
import pytest


def run(framework, folder, stop):
    script = Path(own_networks.__file__)
    command = [sys.executable, script, framework.name, folder, str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def losses(framework, tmp_path_factory):
    whole = run(framework, tmp_path_factory.mktemp("whole"), 0)
    folder = tmp_path_factory.mktemp("resumed")
    interrupted = run(framework, folder, 5)
    return whole, interrupted, run(framework, folder, 0)


def test_nothing_ended_before_its_time(losses):
    whole, interrupted, _ = losses
    assert interrupted == {}
    assert {len(found) for found in whole.values()} == {own_networks.STEPS}


def test_each_fit_resumes_and_ends_as_if_never_interrupted(losses):
    whole, _, resumed = losses
    assert len(whole) == 10
    assert resumed == whole
