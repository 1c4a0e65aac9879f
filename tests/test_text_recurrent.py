"""The LSTM's own steps give what PyTorch's layer gives, without work that rows share."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from texts import randomise

from visxai.text import Engine
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
    plain = torch.Tensor.sigmoid_

    def counted(gates):
        sizes.append(gates.shape[1])
        return plain(gates)

    monkeypatch.setattr(torch.Tensor, "sigmoid_", counted)
    given = network.embedding(rows(9)[:, 9:]).detach()
    with torch.no_grad():
        network.from_embeddings(given, 9)
    assert np.bincount(sizes).tolist() == [0, 9, 0, 0, 3 + 12]
    assert recurrent.REACH > 9


def layered(network, whole):
    """Scores by PyTorch's own layer, and the slopes of the first."""
    leaf = whole.clone().requires_grad_()
    scores = network.head(torch.relu(network.hidden(network.lstm(leaf)[0].amax(1))))
    return scores.detach(), torch.autograd.grad(scores[:, 0].sum(), leaf)[0]


def test_slopes_from_late_padding_count_for_nothing():
    """With the packaged weights, and most of each row padding; the scores stay exact."""
    model = Engine("toxicity", device="cpu").model
    texts = ["You are not stupid at all", "thanks a lot", "As for the service, I thought it good."]
    ids = [one.windows[0].ids for one in model.encode(texts)]
    (block,) = model.blocks(ids)
    network = copy.deepcopy(model._module).double()
    whole = network.embedding(torch.nn.functional.pad(block.ids, (block.lead, 0))).detach()
    scores, slopes = layered(network, whole)
    leaf = whole[:, block.lead :].clone().requires_grad_()
    found = network.from_embeddings(leaf, block.lead)
    torch.testing.assert_close(found.detach(), scores)
    (ours,) = torch.autograd.grad(found[:, 0].sum(), leaf)
    slopes = slopes[:, block.lead :]
    apart = (ours - slopes).abs().amax((1, 2)) / slopes.abs().amax((1, 2))
    assert 0 < float(apart.max()) < 2e-5


def test_a_rounding_decides_where_two_states_tie():
    """Float32 takes either state; only values of texts with such a tie depend on the kernel."""
    model = Engine("toxicity", device="cpu").model
    (window,) = model.encode(["As for the service, I thought it was good."])[0].windows
    network = copy.deepcopy(model._module).double()
    ids = torch.nn.functional.pad(torch.from_numpy(window.ids), (100 - len(window.ids), 0))[None]
    whole, origin = (network.embedding(one).detach() for one in (ids, torch.zeros_like(ids)))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    line = origin + torch.from_numpy((nodes + 1) / 2)[:, None, None] * (whole - origin)
    slopes = layered(network, line)[1] * (whole - origin)
    total = (torch.from_numpy(weights / 2)[:, None] * slopes.sum(2)).sum(0)
    with torch.no_grad():
        first, second = network.lstm(line)[0].topk(2, 1).values.unbind(1)
    gaps = (first - second)[first < 1 - 1e-6]
    assert gaps.min() < 6e-8 < gaps.median()  # the last bit of a float32 below 1
    exact = window.sums(total[-len(window.ids) :].numpy())
    (found,) = Engine(model).explain("As for the service, I thought it was good.", target=0)
    assert found.values[window.words] == pytest.approx(exact, abs=1e-5 * float(np.abs(exact).max()))
