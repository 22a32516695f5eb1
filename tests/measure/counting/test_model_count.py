"""What `count` says beyond the sum: modules, operators, parameters, bytes, and that the model is left as it was."""

import copy
import io
import math
import random
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import bench
from bench.core.errors import ClipError, InputError
from bench.measure.counting.formulas import _FORMULAS, counts_macs_of
from bench.measure.counting.free_operators import costs_nothing
from bench.measure.counting.model_count import Count, count


class Block(nn.Module):
    """A convolution, one more through its functional form, and a linear layer called by its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(4, 4, 1, 1))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.conv(x)), self.kernel)
        return self.fc.forward(x.mean((2, 3)))


CONV, KERNEL, FC = 36 * 4 * 27, 36 * 16, 20


def test_modules_get_what_runs_in_them_and_parents_the_sum() -> None:
    model = nn.Sequential(Block(), nn.ReLU())
    counted = count(model, torch.randn(2, 3, 6, 6))
    assert {path: macs // 2 for path, macs in counted.by_module.items()} == {
        "": CONV + KERNEL + FC,
        "0": CONV + KERNEL + FC,
        "0.conv": CONV,
        "0.fc": FC,
        "1": 0,
    }
    assert counted.by_operator == {"aten::convolution": 2 * (CONV + KERNEL), "aten::addmm": 2 * FC}
    assert sum(counted.by_operator.values()) == counted.macs


def test_backward_is_credited_to_the_module_whose_forward_it_undoes() -> None:
    counted = count(nn.Sequential(Block(), nn.ReLU()), torch.randn(1, 3, 6, 6), backward=True)
    assert counted.by_module == {
        "": 2 * CONV + 3 * KERNEL + 3 * FC,
        "0": 2 * CONV + 3 * KERNEL + 3 * FC,
        "0.conv": 2 * CONV,
        "0.fc": 3 * FC,
        "1": 0,
    }


class Shares(nn.Module):
    """One linear layer under two parents, and under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(6, 6, bias=False)
        self.a = nn.ModuleDict({"inner": shared, "own": nn.Linear(6, 2)})
        self.b = nn.Sequential(shared, nn.ReLU(), shared)
        self.c = shared

    def forward(self, x: Tensor) -> Tensor:
        return self.a["own"](self.b(self.b(x)))


def test_a_shared_module_counts_where_it_is_called() -> None:
    counted = count(Shares(), torch.randn(1, 6))
    assert counted.by_module["b"] == 4 * 36
    assert counted.by_module["a.own"] == 12
    assert counted.by_module["a"] == 12
    assert counted.by_module["c"] == 0
    assert counted.macs == counted.by_module[""] == 4 * 36 + 12
    assert counted.params == 36 + 14
    assert counted.parameters.by_module["a"] == 36 + 14
    assert counted.parameters.by_module["b"] == 36


class CallsItself(nn.Module):
    """Shared under two parents, and runs itself again inside of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor, again: bool = True) -> Tensor:
        return self(self.fc(x), False) if again else self.fc(x)


def test_a_module_that_calls_itself_stays_where_it_was_called() -> None:
    inner = CallsItself()
    model = nn.Sequential(nn.Sequential(inner), nn.Sequential(inner))
    assert count(model[1:], torch.randn(1, 4)).by_module["1.0"] == 32
    counted = count(model, torch.randn(1, 4)).by_module
    assert (counted["0.0"], counted["1.0"], counted["1.0.fc"], counted[""]) == (32, 32, 32, 64)


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))
        self.head = nn.Linear(6, 2)
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.body, self.stem(x), use_reentrant=self.use_reentrant)
        return self.head(x)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_what_checkpointing_runs_again_is_credited_to_its_modules(use_reentrant: bool) -> None:
    counted = count(Checkpointed(use_reentrant=use_reentrant), torch.randn(1, 6), backward=True)
    again = 48 if use_reentrant else 0
    assert counted.by_module["stem"] == 2 * 36
    assert counted.by_module["body.0"] == 4 * 48
    assert counted.by_module["body.1"] == 3 * 48 + again
    assert counted.by_module["head"] == 3 * 12
    assert counted.backward_macs == counted.macs - (36 + 96 + 12)


class CallsItsNeighbour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Sequential(nn.Linear(4, 4)), nn.Module()
        self.right.register_module("neighbour", nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) @ self.right.neighbour.weight.t()


def test_a_weight_used_outside_its_module_counts_where_it_is_used() -> None:
    counted = count(CallsItsNeighbour(), torch.randn(1, 4))
    assert counted.by_module == {"": 28, "left": 16, "left.0": 16, "right": 0, "right.neighbour": 0}
    assert counted.never_called == {"right.neighbour.bias": 3}


def test_parameters_by_identity() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    counted = count(model.eval(), torch.randn(2, 4))
    assert (counted.params, counted.trainable, counted.buffers) == (16 + 4 + 8 + 4, 16 + 8 + 4, 9)
    assert counted.parameters.total_bytes == 4 * 32
    assert counted.never_called == {}


def test_activations_and_traffic_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2))
    counted = count(model, torch.randn(2, 3, 4, 4))
    assert counted.activation_elements == 128 + 128 + 4
    assert counted.activation_bytes == 4 * counted.activation_elements
    read = 2 * 48 + 12 + 128 + (128 + 128 + 2)
    assert counted.bytes_moved == 4 * (read + counted.activation_elements)
    assert counted.flops_per_byte == pytest.approx(counted.flops / counted.bytes_moved)


def test_a_broadcast_operand_is_read_once() -> None:
    class Adds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x[:1].expand(4, 6)

    assert count(Adds(), torch.randn(4, 6)).bytes_moved == 4 * (24 + 6 + 24)


class Remembers(nn.Module):
    """Everything that a forward pass might leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(4, 4)
        self.plain = torch.ones(4)
        self.calls: list[Tensor] = []
        self.table = {"scale": torch.full((4,), 2.0)}

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(x)
        self.plain = self.plain + 1
        return self.dropout(self.norm(self.fc(x))) * self.plain * self.table["scale"] * random.random()


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_model_its_gradients_and_random_numbers_stay_as_they_were(device: str) -> None:
    model = Remembers()
    model.dropout.eval()
    model(torch.randn(3, 4)).sum().backward()
    del model.calls[:]
    model.register_forward_hook(lambda *_: None)
    before, keys = copy.deepcopy(model.state_dict()), sorted(model.__dict__)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    plain, hooks = model.plain, list(model._forward_hooks)
    torch.manual_seed(3)
    random.seed(3)
    expected = (torch.rand(3), random.random())
    torch.manual_seed(3)
    random.seed(3)
    x = torch.ones(3, 4)
    counted = count(model, x, backward=True, device=device)
    assert counted.macs == 2 * 48
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True) if p.grad is not None)
    assert (model.calls, list(model._forward_hooks), sorted(model.__dict__)) == ([], hooks, keys)
    assert model.plain is plain
    assert x.grad is None


def test_models_that_plain_deepcopy_refuses() -> None:
    model = nn.Linear(4, 4)
    model.kept = model(torch.randn(2, 4))
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    assert count(model, torch.randn(2, 4)).macs == 32


class RefusesToBeCopied(nn.Linear):
    def __deepcopy__(self, memo: dict[int, object]) -> "RefusesToBeCopied":
        raise TypeError("one of a kind")


def with_attribute(value: object) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].held = {"inside": [value]}
    return model


@pytest.mark.parametrize(
    "make",
    [
        threading.Lock,
        lambda: (i for i in range(3)),
        tempfile.TemporaryFile,
        torch.Generator,
        lambda: math,
    ],
    ids=["lock", "generator", "file", "torch.Generator", "module"],
)
def test_objects_that_cannot_be_copied_are_shared_with_the_copy(make: Callable[[], object]) -> None:
    held = make()
    try:
        model = with_attribute(held)
        assert count(model, torch.randn(2, 4)).macs == 2 * 32
        assert model[1].held["inside"][0] is held
    finally:
        if isinstance(held, io.IOBase):
            held.close()


def test_a_module_that_refuses_to_be_copied_is_copied_by_its_attributes() -> None:
    model = nn.Sequential(RefusesToBeCopied(4, 4), nn.Linear(4, 4))
    counted = count(model, torch.randn(2, 4))
    assert (counted.macs, counted.params, counted.device_used) == (64, 40, "meta")


def test_a_random_generator_of_the_model_does_not_advance() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.rand(x.shape, generator=self.source))

    model = Noisy(4, 4)
    model.source = torch.Generator().manual_seed(3)
    assert count(model, torch.randn(2, 4)).macs == 32
    assert torch.equal(model.source.get_state(), torch.Generator().manual_seed(3).get_state())


def test_lazy_modules_are_counted_as_what_they_become() -> None:
    model = nn.Sequential(nn.LazyConv3d(4, 3, padding=1), nn.LazyBatchNorm3d(), nn.Flatten(), nn.LazyLinear(5))
    for backward in (False, True):
        counted = count(model.train(), torch.randn(1, 3, 2, 4, 4), backward=backward)
        conv, linear = 4 * 32 * 81, 4 * 32 * 5
        assert counted.forward_macs == conv + linear
        assert counted.backward_macs == (conv + 2 * linear if backward else 0)
        assert (counted.params, counted.buffers) == (4 * 82 + 8 + 5 * 129, 9)
        assert counted.never_called == {}
    assert isinstance(model[0].weight, nn.UninitializedParameter)


def test_compiled_and_parallel_models_are_counted_as_what_they_hold() -> None:
    def body() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    class Holder(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    inside = body()
    inside.compile()
    x = torch.randn(3, 4)
    plain = count(body(), x)
    for model in (torch.compile(body()), nn.DataParallel(body()), inside):
        counted = count(model, x)
        assert (counted.by_module, counted.params, counted.is_complete) == (plain.by_module, plain.params, True)
    for model in (Holder(torch.compile(body())), Holder(nn.DataParallel(body())), torch.compile(Holder(body()))):
        counted = count(model, x, backward=True)
        assert (counted.forward_macs, counted.params, counted.never_called) == (plain.macs, plain.params, {})
        assert counted.is_complete


class LooksAtValues(nn.Module):
    """Runs its layer as often as there are positive sums; heads and recurrence take fast paths in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int((x.sum((1, 2)) > 0).sum())):
            x = self.encoder(x)
        return self.lstm(x)[0]


def test_code_that_looks_at_values_is_counted_in_a_real_run() -> None:
    x = torch.stack([torch.ones(5, 8), torch.ones(5, 8), -torch.ones(5, 8)])
    counted = count(LooksAtValues().eval(), x)
    layer = 3 * (5 * 8 * 8 * 4 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)
    assert counted.macs == 2 * layer + 3 * 5 * 4 * 4 * (8 + 4)
    assert counted.by_module["encoder"] == 2 * layer
    assert counted.device_used == "cpu"
    assert counted.fallback_reason is not None
    assert "item" in counted.fallback_reason
    assert counted.is_complete
    assert torch.backends.mha.get_fastpath_enabled()


def test_constants_made_on_the_cpu_meet_tensors_without_data() -> None:
    table = torch.ones(4)

    class UsesConstants(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            steps = torch.linspace(0, 3, 2).long().tolist()
            return torch.cat([x[:, step : step + 1] for step in steps], 1) @ torch.ones(2, 4) * table

    counted = count(UsesConstants(), torch.randn(3, 4))
    assert (counted.macs, counted.device_used) == (3 * 2 * 4, "meta")


def test_a_model_and_inputs_on_meta_are_enough() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(4, 4), torch.empty(3, 4)
    assert count(model, x).macs == 48


def test_several_inputs_and_results_of_any_shape() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(3, 5)

        def forward(self, x: Tensor, pair: list[Tensor]) -> dict[str, Any]:
            return {"a": self.a(x), "rest": [self.b(pair[0]), None, 3]}

    counted = count(Two(), (torch.randn(2, 4), [torch.randn(2, 3)]), backward=True)
    assert counted.macs == 2 * (2 * 16 + 2 * 15)


def test_wrong_inputs_say_what_they_were() -> None:
    with pytest.raises(InputError, match="Linear cannot run on inputs of 3x5"):
        count(nn.Linear(4, 4), torch.randn(3, 5))
    with pytest.raises(InputError, match="nothing to train"):
        count(nn.ReLU(), torch.randn(3, 5), backward=True)


def test_an_error_of_ours_passes_as_it_is() -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ClipError("too small")

    with pytest.raises(ClipError, match="too small"):
        count(Refuses(), torch.randn(1))


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    with torch.library._scoped_library("counting_test", "FRAGMENT") as library:
        yield library


def operator(library: torch.library.Library, name: str) -> Callable[..., Tensor]:
    library.define(f"{name}(Tensor x, Tensor w) -> Tensor")
    library.impl(name, lambda x, w: x @ w, "CompositeExplicitAutograd")
    function: Callable[..., Tensor] = getattr(torch.ops.counting_test, name)
    return function


class UsesOperator(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.function(x, self.w), self.w.t())


def test_an_operator_without_a_formula_is_named_with_its_calls(library: torch.library.Library) -> None:
    counted = count(UsesOperator(operator(library, "unknown")), torch.randn(3, 4))
    assert counted.uncounted_ops == {"counting_test::unknown": 2}
    assert not counted.is_complete


def test_one_decorated_formula_is_enough_for_a_custom_operator(library: torch.library.Library) -> None:
    function = operator(library, "known")

    @counts_macs_of("counting_test::known")
    def known(x: Tensor, w: Tensor, *, out: Tensor) -> int:
        return out.numel() * x.shape[-1]

    try:
        counted = count(UsesOperator(function), torch.randn(3, 4))
    finally:
        del _FORMULAS["counting_test::known"]
    assert (counted.macs, counted.is_complete) == (2 * 60, True)
    assert counted.by_operator == {"counting_test::known": 2 * 60}


def test_an_operator_may_be_declared_free(library: torch.library.Library) -> None:
    function = operator(library, "free")
    costs_nothing("counting_test::free")
    counted = count(UsesOperator(function), torch.randn(3, 4))
    assert (counted.macs, counted.is_complete) == (0, True)


@pytest.mark.parametrize(
    "function",
    [torch.fft.rfft, torch.linalg.inv, lambda x: torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")],
)
def test_what_nobody_has_judged_is_not_taken_for_free(function: Callable[[Tensor], Tensor]) -> None:
    class Runs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    assert not count(Runs(), torch.eye(4)).is_complete


def test_weight_norm_of_the_old_kind_runs_by_its_hook() -> None:
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    new = parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    for model in (old, new):
        counted = count(model, torch.randn(1, 3, 5, 5), backward=True)
        assert (counted.macs, counted.is_complete) == (2 * 9 * 4 * 27, True)


def test_int8_products() -> None:
    class Int8(nn.Module):
        def forward(self, a: Tensor, b: Tensor, x: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
            return torch._int_mm(a, b.t()), torch._weight_int8pack_mm(x, b, scales)

    a, b = torch.ones(32, 16, dtype=torch.int8), torch.ones(24, 16, dtype=torch.int8)
    counted = count(Int8(), (a, b, torch.ones(5, 16, dtype=torch.bfloat16), torch.ones(24, dtype=torch.bfloat16)))
    assert counted.macs == 32 * 16 * 24 + 5 * 16 * 24
    assert counted.is_complete


def test_deformable_convolution() -> None:
    from torchvision.ops import DeformConv2d

    class Deforms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = DeformConv2d(4, 6, 3, groups=2)

        def forward(self, x: Tensor, offset: Tensor) -> Tensor:
            return self.conv(x, offset)

    for device in ("meta", "cpu"):
        inputs = (torch.randn(2, 4, 6, 6), torch.randn(2, 18, 4, 4))
        counted = count(Deforms(), inputs, backward=True, device=device)
        assert counted.forward_macs == 2 * 16 * 6 * 2 * 9
        assert counted.backward_macs == counted.forward_macs
        assert counted.is_complete


def test_the_public_name() -> None:
    counted = bench.count(nn.Linear(4, 4), torch.randn(2, 4))
    assert isinstance(counted, Count)
    assert (counted.macs, counted.flops, type(counted.macs)) == (32, 64, int)


def attention_macs(query: tuple[int, ...], key: tuple[int, ...], width_v: int) -> int:
    """Pairs of queries and keys of the broadcast batch, times both widths; by loops over nothing but shapes."""
    lead = torch.broadcast_shapes(query[:-2], key[:-2])
    return math.prod(lead) * query[-2] * key[-2] * (query[-1] + width_v)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("query", "key"),
    [
        ((1, 2, 1, 8), (4, 2, 7, 8)),
        ((2, 1, 8), (4, 2, 7, 8)),
        ((4, 2, 3, 8), (1, 2, 7, 8)),
        ((1, 1, 3, 8), (2, 5, 7, 8)),
        ((3, 8), (2, 7, 8)),
    ],
)
def test_attention_whose_operands_broadcast_costs_all_pairs(
    query: tuple[int, ...], key: tuple[int, ...], device: str
) -> None:
    class Attend(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, k)

    counted = count(Attend(), (torch.randn(query), torch.randn(key)), device=device)
    assert counted.macs == attention_macs(query, key, 8)
    written = math.prod(torch.broadcast_shapes(query[:-2], key[:-2])) * query[-2] * 8
    if device == "meta":  # the CPU splits it
        assert counted.activation_elements == written


def test_attention_with_grouped_queries_and_with_a_mask_that_broadcasts() -> None:
    class Attend(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, k, mask, enable_gqa=True)

    q, k = torch.randn(2, 8, 5, 4), torch.randn(2, 2, 6, 4)
    assert count(Attend(), (q, k)).macs == 2 * 8 * 5 * 6 * 8
    x = torch.randn(1, 2, 5, 4)
    masked = count(Attend(), (x, x, torch.zeros(3, 1, 5, 5)))
    assert masked.macs == 2 * 5 * 5 * 4 + 3 * 2 * 5 * 5 * 4  # the mask widens what the values are averaged with
    assert masked.activation_elements == 3 * 2 * 5 * 4


def test_packed_sequences_attend_only_to_themselves() -> None:
    from bench.measure.counting.formulas import formula_of

    q = torch.randn(8, 2, 4)
    starts = torch.tensor([0, 5, 8])
    formula = formula_of("aten::_flash_attention_forward")
    assert formula is not None
    assert formula(q, q, q, starts, starts, out=q) == (25 + 9) * 2 * 8


def test_flex_attention_is_counted_in_the_forward_pass() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Attend(nn.Module):
        def __init__(self, call: Callable[..., torch.Tensor]) -> None:
            super().__init__()
            self.project, self.call = nn.Linear(16, 16), call

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.project(x)
            return self.call(q, x, x, score_mod=lambda score, b, h, i, j: score + (i - j))

    x = torch.randn(1, 2, 128, 16)
    for call in (flex_attention, torch.compile(flex_attention)):
        counted = count(Attend(call), x)
        assert counted.macs == 2 * 128 * 16 * 16 + 2 * 2 * 128 * 128 * 16
        assert counted.is_complete


def test_jagged_nested_tensors_are_counted_by_their_real_lengths() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nested = torch.nested.nested_tensor([x[0], x[1, :3]], layout=torch.jagged)
            return F.relu(self.project(nested)).values()

    counted = count(Packed(), torch.randn(2, 5, 8))
    assert (counted.macs, counted.is_complete, counted.by_module["project"]) == (8 * 32, True, 8 * 32)


def quantised(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def test_quantised_models_have_the_parameters_that_are_packed() -> None:
    plain = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4, bias=False))
    model = quantised(plain)
    counted = count(model, torch.randn(10, 8))
    assert counted.macs == 10 * (48 + 24)
    assert counted.params == 48 + 6 + 24
    assert counted.parameters.total_bytes == 48 + 24 + 6 * 4  # int8 weights, a bias of fp32
    assert counted.parameters.by_module["0"] == 54


def test_packed_weights_that_cannot_be_read_are_unknown_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.measure.counting import parameters

    monkeypatch.setattr(parameters, "_unpacked", lambda packed: None)
    model = quantised(nn.Sequential(nn.Linear(8, 6)))
    counted = count(model, torch.randn(10, 8))
    assert (counted.params, counted.parameters.total_bytes) == (None, None)
    assert "packed weights cannot be read in 0" in counted.notes[0]


def test_markers_of_the_profiler_and_embedding_bags_leave_a_count_complete() -> None:
    class Marked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(10, 4, mode="sum")
            self.head = nn.Linear(4, 2)

        def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            with torch.profiler.record_function("bags"):
                return self.head(self.bag(ids, per_sample_weights=weights))

    ids, weights = torch.randint(0, 10, (3, 5)), torch.rand(3, 5, requires_grad=True)
    for backward in (False, True):
        counted = count(Marked(), (ids, weights), backward=backward)
        assert (counted.forward_macs, counted.uncounted_ops) == (24, {})


def test_products_of_complex_numbers_are_named() -> None:
    class Complex(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (torch.view_as_complex(x) @ torch.view_as_complex(x)).abs()

    counted = count(Complex(), torch.randn(3, 3, 2))
    assert counted.macs == 27
    assert "27 MACs are products of complex numbers" in counted.notes[0]
    assert count(nn.Linear(2, 2), torch.randn(1, 2)).notes == ()


@pytest.fixture
def operators() -> Iterator[torch.library.Library]:
    """A library of operators of its own, removed after the test."""
    with torch.library._scoped_library("countchecks", "FRAGMENT") as library:
        yield library


def test_formulas_of_register_flop_formula_are_used(operators: torch.library.Library) -> None:
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    operators.define("fused(Tensor x, Tensor w) -> Tensor")
    operators.impl("fused", lambda x, w: x @ w, "CompositeExplicitAutograd")
    operators.define("joined(Tensor x, Tensor w) -> Tensor")
    operators.impl("joined", lambda x, w: x @ w + x @ w, "CompositeImplicitAutograd")  # seen in parts without a formula
    packets = [torch.ops.countchecks.fused, torch.ops.countchecks.joined]
    register_flop_formula(packets[0])(lambda x, w, *, out_shape=None, **_: 2 * x[0] * x[1] * w[1])
    register_flop_formula(packets[1], get_raw=True)(lambda x, w, *, out_val=None, **_: 2 * 1000 * out_val.shape[0])

    class Net(nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return packets[0](x, w) + packets[1](x, w)

    try:
        counted = count(Net(), (torch.randn(4, 8), torch.randn(8, 6)))
    finally:
        for packet in packets:
            del flop_registry[packet]
    assert (counted.macs, counted.uncounted_ops) == (4 * 8 * 6 + 4000, {})


def test_operators_can_be_named_as_free(operators: torch.library.Library) -> None:
    operators.define("shift(Tensor x) -> Tensor")
    operators.impl("shift", lambda x: torch.roll(x, 1).clone(), "CompositeExplicitAutograd")

    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.countchecks.shift(super().forward(x))

    model, x = Net(4, 4), torch.randn(2, 4)
    assert count(model, x).uncounted_ops == {"countchecks::shift": 1}
    named = count(model, x, free_operators=["countchecks::shift"])
    assert (named.macs, named.is_complete) == (32, True)


@pytest.mark.parametrize("wrong", [-1, 2.5, None, "many"])
def test_formulas_must_return_a_whole_number(operators: torch.library.Library, wrong: object) -> None:
    operators.define("strange(Tensor x) -> Tensor")
    operators.impl("strange", torch.clone, "CompositeExplicitAutograd")
    counts_macs_of("countchecks::strange")(lambda x, *, out: wrong)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.countchecks.strange(x)

    try:
        with pytest.raises(InputError, match=r"formula of countchecks::strange returned"):
            count(Net(), torch.randn(2, 4))
    finally:
        del _FORMULAS["countchecks::strange"]


def test_operators_without_a_gradient_never_shorten_a_train_step_silently(operators: torch.library.Library) -> None:
    operators.define("opaque(Tensor x) -> Tensor")
    operators.impl("opaque", torch.clone, "CPU")
    operators.impl("opaque", torch.clone, "Meta")  # without an autograd kernel, PyTorch warns and drops the gradient

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.ops.countchecks.opaque(self.first(x)))

    assert count(Net(), torch.randn(2, 4)).macs == 64
    with pytest.raises(InputError, match="autograd"):
        count(Net(), torch.randn(2, 4), backward=True)


def test_the_page_on_custom_operators_completes_a_count() -> None:
    page = Path(bench.__file__).parents[1] / "docs" / "custom-operators.md"
    scope: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, scope)

    class Net(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return scope["scores"](q, k)

    counted = count(Net(), (torch.randn(2, 3, 4), torch.randn(2, 5, 4)))
    assert (counted.macs, counted.is_complete, counted.device_used) == (2 * 3 * 5 * 4, True, "meta")
