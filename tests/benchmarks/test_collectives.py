"""Collectives are counted once each, in programs as XLA writes them for CPUs, GPUs and TPUs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.collectives import Counted, bytes_of, collectives

# Of a GPU: each is in two halves; the first has the operands beside the results, also of several arrays.
GPU = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main.9_spmd (p: f32[64,8], q: f32[8]) -> f32[8] {
  %p = f32[64,8]{1,0} parameter(0), metadata={op_name="all-reduce(p)"}
  %q = f32[8]{0} parameter(1)
  %all-reduce-start = f32[8]{0} all-reduce-start(%q), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %all-reduce-done = f32[8]{0} all-reduce-done(%all-reduce-start), metadata={scheduling_name="all-reduce-done"}
  %both = ((f32[64,8]{1,0}, bf16[4]{0}), (f32[512,8]{1,0}, bf16[32]{0})) all-gather-start(%p, %h), dimensions={0}
  %gathered = (f32[512,8]{1,0}, bf16[32]{0}) all-gather-done(%both)
  %there = ((f32[1,8,64]{2,0,1}), f32[1,8,64]{2,0,1}) all-to-all-start(%p), channel_id=3, dimensions={1}
  %back = f32[1,8,64]{2,0,1} all-to-all-done(%there)
  %scattering = ((f32[64,8]{1,0}), f32[8,8]{1,0}) reduce-scatter-start(%p), dimensions={0}, to_apply=%add
  ROOT %scattered = f32[8,8]{1,0} reduce-scatter-done(%scattering)
}
"""

# Of a TPU: a gather that runs beside two products is four fusions, a reduce-scatter is an all-reduce and a slice.
TPU = """\
HloModule jit_step, is_scheduled=true

%fused_computation.1 (param_0: bf16[64,512]) -> (bf16[64,512], bf16[512,512], s32[2]) {
  %param_0 = bf16[64,512]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[512,512]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=2, dimensions={0}
  ROOT %custom-call = (bf16[64,512]{1,0}, bf16[512,512]{1,0}, s32[2]{0:S(4)}) custom-call(%all-gather.1)
}

%async_collective_fusion.7 (param_0.1: bf16[64,512], param_1: f32[8,8]) -> (f32[8,8], bf16[512,512]) {
  %all-gather.2 = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.1), channel_id=2, dimensions={0}
}

%async_collective_fusion.8 (param_0.2: bf16[64,512], param_1.1: f32[8,8]) -> (f32[8,8], bf16[512,512]) {
  %all-gather.3 = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.2), channel_id=2, dimensions={0}
}

%fused_computation.2 (param_0.3: bf16[64,512]) -> bf16[512,512] {
  ROOT %all-gather.4 = bf16[512,512]{1,0:T(8,128)(2,1)} all-gather(%param_0.3), channel_id=2, dimensions={0}
}

%all-reduce-scatter (input: f32[512,512]) -> f32[64,512] {
  %input = f32[512,512]{1,0:T(8,128)} parameter(0)
  %all-reduce.2 = f32[512,512]{1,0:T(8,128)} all-reduce(%input), channel_id=5, to_apply=%add
  ROOT %slice = f32[64,512]{1,0:T(8,128)} dynamic-slice(%all-reduce.2, %i, %zero), dynamic_slice_sizes={64,512}
}

ENTRY %main.3_spmd (p: bf16[64,512]) -> f32[64,512] {
  %async-collective-start.1 = (bf16[64,512]{1,0}, bf16[512,512]{1,0}) fusion(%p), calls=%fused_computation.1
  %fusion.7 = (f32[8,8]{1,0}, bf16[512,512]{1,0}) fusion(%p), kind=kCustom, calls=%async_collective_fusion.7
  %fusion.8 = (f32[8,8]{1,0}, bf16[512,512]{1,0}) fusion(%p), kind=kCustom, calls=%async_collective_fusion.8
  %async-collective-done.1 = bf16[512,512]{1,0} fusion(%fusion.8), kind=kCustom, calls=%fused_computation.2
  %norms = (f32[]{:T(128)}, f32[512]{0:T(512)S(1)}, /*index=2*/f32[3]{0}) all-reduce(%a, %b, %c), to_apply=%add
  %moved = bf16[4,2]{1,0} collective-permute(%p), channel_id=7, source_target_pairs={{0,1},{1,0}}
  ROOT %fusion = f32[64,512]{1,0:T(8,128)} fusion(%fusion.1), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_two_halves_are_one_and_count_their_results():
    assert collectives(GPU) == {
        "all-reduce": Counted(1, 8 * 4),
        "all-gather": Counted(1, 512 * 8 * 4 + 32 * 2),
        "all-to-all": Counted(1, 8 * 64 * 4),
        "reduce-scatter": Counted(1, 8 * 8 * 4),
    }


def test_fusions_that_carry_a_collective_on_are_not_others():
    assert collectives(TPU) == {
        "all-gather": Counted(1, 512 * 512 * 2),
        "reduce-scatter": Counted(1, 64 * 512 * 4),
        "all-reduce": Counted(1, (1 + 512 + 3) * 4),
        "collective-permute": Counted(1, 8 * 2),
    }


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[]", 4),
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", 12),
        ("pred[5]", 5),
        ("s4[6]", 3),
        ("(u8[7], f8e4m3fn[2], token[])", 9),
    ],
)
def test_bytes_of_shapes(shape, expected):
    assert bytes_of(shape) == expected


def test_a_compiled_program():
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    everywhere = NamedSharding(mesh, P())
    compiled = jax.jit(lambda x: (x.sum(0), x), out_shardings=everywhere).lower(x).compile()
    assert collectives(compiled) == {"all-reduce": Counted(1, 32 * 4), "all-gather": Counted(1, 64 * 32 * 4)}
