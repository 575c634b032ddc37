"""Tensors without memory are cut as real ones are."""

import pytest
import torch

from upcurve.engine.portability.fake import fake_tensors

INDICES = {
    "number": 1,
    "negative": -1,
    "slice": slice(1, 3),
    "tail": slice(-2, None),
    "rows and columns": (slice(1), slice(2, None)),
    "number, slice, number": (0, slice(2), 1),
    "ellipsis": (..., slice(2), 0),
    "ellipsis behind a number": (1, ...),
    "new axes": (None, slice(None), None),
    "tensor": torch.tensor([2, 0]),
    "tensor behind a slice": (slice(None), torch.tensor([2, 0])),
    "two tensors": (torch.tensor([2, 0]), torch.tensor([1, 1])),
    "tensor and slice": (torch.tensor([[2, 0]]), slice(3)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_an_index_gives_the_view_that_it_gives_of_a_real_tensor(index):
    real = torch.empty(3, 4, 5)[index]
    with fake_tensors():
        at = index if isinstance(index, tuple) else (index,)
        fake = torch.empty(3, 4, 5, device="cuda")[
            tuple(
                torch.zeros(each.shape, dtype=torch.int64, device="cuda")
                if isinstance(each, torch.Tensor)
                else each
                for each in at
            )
        ]
        assert fake.device.type == "cuda"
        assert (fake.shape, fake.stride()) == (real.shape, real.stride())
        assert fake.storage_offset() == real.storage_offset()


def test_every_number_that_is_read_is_zero_and_writes_are_nothing():
    with fake_tensors():
        x = torch.ones(3, 2, device="cuda")
        x[1:] = torch.zeros(2, 2, device="cuda")
        x[0].copy_(x[1])
        assert x.tolist() == [[0, 0]] * 3
        assert x[0, 0].item() == 0
        assert x.pin_memory().shape == (3, 2)


def test_addresses_tell_what_follows_in_one_memory():
    with fake_tensors():
        x, other = (torch.empty(6, 4, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        assert x[2:].data_ptr() == x.data_ptr() + 2 * 4 * 2
        assert x[:3].data_ptr() == x.data_ptr()
        assert abs(other.data_ptr() - x.data_ptr()) >= 2**40
        assert x.data_ptr() % 16 == 0
