"""PyTorch on one thread: its pool costs a tiny product more than the product, above all on a busy machine."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
