"""The options of computing, apart from any backend."""

import subprocess
import sys

import pytest

from gptoss.model.errors import DeviceError
from gptoss.model.ops.options import ComputeOptions


def test_a_value_that_is_no_choice_is_refused():
    for options, message in (
        ({"backend": "abacus"}, "no backend 'abacus': choose one of cpu, gpu, reference"),
        ({"dense": "float3"}, "no form of the dense layers 'float3': choose one of int8, bf16"),
        ({"threads": 0}, "0 threads: at least one is needed"),
    ):
        with pytest.raises(DeviceError, match=message):
            ComputeOptions(**options)


def test_options_are_read_without_torch():
    code = "import sys, gptoss.model.ops.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
