"""Character models in lockstep against torch's modules and autograd."""

import torch
from torch import nn

from ouikit.data import text
from ouikit.nn.characters import CharacterModels


def test_losses_and_gradients_are_autograds():
    models = CharacterModels(characters=11, networks=2, seed=3, context=4, embedding=5, hidden=6)
    models.stack.flat[1] *= 1.5  # the second network differs
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 11, size, generator=generator) for size in ((7, 4), (7,)))
    found = models.backward(x, y)
    torch.testing.assert_close(models.loss(x, y), found)
    for r in range(2):
        embedding = nn.Embedding(11, 5)
        first, last = nn.Linear(20, 6), nn.Linear(6, 11)
        with torch.no_grad():
            embedding.weight.copy_(models.table.weight[r])
            for layer, (weight, bias) in zip((first, last), models.stack.layers, strict=True):
                layer.weight.copy_(weight[r].T)
                layer.bias.copy_(bias[r, 0])
        loss = nn.functional.cross_entropy(last(first(embedding(x).flatten(1)).relu()), y)
        loss.backward()
        torch.testing.assert_close(found[r], loss.detach())
        torch.testing.assert_close(models.table.grad[r].view(11, 5), embedding.weight.grad)
        for layer, (weight, bias) in zip((first, last), models.stack.grads, strict=True):
            torch.testing.assert_close(weight[r].T, layer.weight.grad)
            torch.testing.assert_close(bias[r, 0], layer.bias.grad)


def test_a_seed_draws_the_weights_and_leaves_torchs_own_numbers_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, other = (CharacterModels(9, 3, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(a.stack.flat, b.stack.flat)
    assert torch.equal(a.stack.flat[0], a.stack.flat[2])
    assert not torch.equal(a.table.weight, other.table.weight)


def test_the_manual_is_split_and_can_be_read_back():
    manual = text.python_manual()
    whole = "".join(manual.characters[i] for i in torch.cat([manual.train, manual.validation]).tolist())
    assert "context manager" in whole
    assert len(manual.validation) == round(0.1 * len(whole))
    assert len(manual.checksum) == 64
