"""The LSTM's own steps give what PyTorch's layer gives, without work that rows share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from texts import randomise

from visxai.text.bilstm import BiLSTM


@pytest.fixture(scope="module")
def network():
    return randomise(BiLSTM(30, 7, 5, 6, 3), 3).double()


def rows(lead):
    ids = torch.randint(1, 30, (4, 12), generator=torch.Generator().manual_seed(1))
    ids[:, :lead] = 0
    ids[0, : lead + 2] = 0  # a row may have more padding than the others
    return ids


@pytest.mark.parametrize("lead", [0, 1, 7, 11])
def test_scores_and_slopes_are_those_of_the_layer(network, lead):
    ids = rows(lead)
    whole = network.embedding(ids).detach()
    plain, own = whole.clone().requires_grad_(), whole.clone().requires_grad_()
    expected = network.head(torch.relu(network.hidden(network.lstm(plain)[0].amax(1))))
    found = network.from_embeddings(own[:, lead:], lead)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(network.from_embeddings(whole[:, lead:], lead), network(ids))
    (slope,) = torch.autograd.grad(found[:, 1].sum(), own)
    (wanted,) = torch.autograd.grad(expected[:, 1].sum(), plain)
    torch.testing.assert_close(slope[:, lead:], wanted[:, lead:])


def test_only_the_backward_direction_steps_over_shared_padding(network, monkeypatch):
    """The forward direction's padding is stepped over once for all rows, in one column."""
    from visxai.text import recurrent

    sizes = []
    plain = torch.addmm

    def counted(*given, **more):
        sizes.append(given[2].shape[1])
        return plain(*given, **more)

    monkeypatch.setattr(recurrent.torch, "addmm", counted)
    with torch.no_grad():
        network.from_embeddings(network.embedding(rows(9)[:, 9:]), 9)
    assert np.bincount(sizes).tolist() == [0, 9, 0, 0, 3 + 12]
