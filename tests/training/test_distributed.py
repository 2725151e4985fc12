"""Two processes train as one does on the union of their batches."""

import shutil
import socket

import pytest
import torch

from qsft.models import SupportRule, compute_support
from tests.models import tiny
from tests.training import worker


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    data = tiny.dataset(tmp_path, tiny.trajectories(12, seed=4))
    shutil.copy(data.cache_files[0]["filename"], tmp_path / "tokens.arrow")
    path = tmp_path / "support.arrow"
    compute_support(
        tiny.make("llama", seed=9), data, SupportRule(threshold=0.3), path, pad_token_id=0, dummy_id=0, progress=False
    )
    worker.run(0, 1, 0, tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(worker.run, (2, port, tmp_path), nprocs=2)
    alone, *both = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for kind in ("whole", "adapters"):
        expected = alone[kind]
        for part in both:
            for name in ("weights", "target"):
                assert len(part[kind][name]) == len(expected[name]) > 3
                for found, p in zip(part[kind][name], expected[name], strict=True):
                    torch.testing.assert_close(found, p, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(both[0][kind]["logs"], expected["logs"], rtol=1e-4, atol=1e-5)
        # three steps went somewhere, and the target lags behind
        assert all((p - q).abs().max() > 1e-5 for p, q in zip(expected["weights"], expected["target"], strict=True))
