"""Kernels and bytes read from compiled programs, and the compilers for accelerators where they are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compiled_for

# A fusion of two results, one of them bfloat16; a kernel launched in halves; a copy; what launches nothing.
HLO = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->(f32[8,4]{1,0})}

%fused_add (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %add.1 = f32[8,4]{1,0} add(%param_0, %param_0)
}

ENTRY %main.5 (p.1: f32[8,4], m.1: bf16[8,4], count.1: s32[]) -> (f32[8,4], bf16[8,4], s32[1], pred[3]) {
  %count.1 = s32[]{:T(128)S(6)} parameter(2), metadata={op_name="state.count"}
  %m.1 = bf16[8,4]{1,0:T(8,128)} parameter(1)
  %p.1 = f32[8,4]{1,0} parameter(0), metadata={op_name="params[\\'w\\'] (a, %b)"}
  %constant.2 = f32[]{:T(128)} constant(1e-06)
  %both = (f32[8,4]{1,0:T(8,128)}, /*index=1*/bf16[8,4]{1,0}) fusion(%p.1, /*index=1*/%m.1, %constant.2), kind=kLoop
  %part.1 = f32[8,4]{1,0} get-tuple-element(%both), index=0, metadata={op_name="jit(step)/add(x)"}
  %part.2 = bf16[8,4]{1,0} get-tuple-element(%both), index=1
  %bitcast.1 = s32[1]{0} bitcast(%count.1)
  %copy.1 = s32[1]{0} copy(%bitcast.1)
  %start.1 = pred[3]{0} fusion-start(%part.1), kind=kInput
  %done.1 = pred[3]{0} fusion-done(%start.1)
  ROOT %tuple.1 = (f32[8,4]{1,0}, bf16[8,4]{1,0}, s32[1]{0}, pred[3]{0}) tuple(%part.1, %part.2, %copy.1, %done.1)
}
"""


def test_kernels_and_their_bytes():
    fusion = 2 * (8 * 4 * 4 + 8 * 4 * 2) + 4
    assert compiled_for.kernels(HLO, compiled_for.is_fusion) == (1, fusion)
    assert compiled_for.kernels(HLO) == (3, fusion + (4 + 4) + (8 * 4 * 4 + 3))


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compiled_for, "find_spec", lambda module: None)
    compiled_for.main(["--trees", "leaf:8", "--write", str(tmp_path / "RESULTS.md")])
    gpu, tpu = capsys.readouterr().out.splitlines()
    assert gpu.startswith("NVIDIA H200 is left out, without jax-cuda12-plugin and jax-cuda12-pjrt: pip install")
    assert tpu.startswith("TPU v5e is left out, without libtpu: pip install")
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_device_must_be_known(capsys):
    with pytest.raises(SystemExit):
        compiled_for.main(["--devices", "h200,abacus"])
    assert "no device 'abacus': choose from h200, tpu-v5e" in capsys.readouterr().err


@pytest.mark.parametrize("device", compiled_for.ACCELERATORS)
def test_one_matrix_is_one_pass_over_memory(device, tmp_path):
    accelerator = compiled_for.ACCELERATORS[device]
    if not accelerator.installed:
        pytest.skip(f"{' and '.join(accelerator.wheels)} not installed")
    arguments = ["--devices", device, "--recipes", "adamw", "--trees", "leaf:512", "--write", tmp_path / "RESULTS.md"]
    command = [sys.executable, "-m", "benchmarks.compiled_for", *arguments]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])  # in a process that nobody prepared
    results = (tmp_path / "RESULTS.md").read_text()
    row = results.partition("| adamw |")[2].partition("\n")[0]
    kernels, optax_kernels, *rest = (float(cell) for cell in row.split("|")[:6])
    assert 1 <= kernels <= 4 and 1 <= optax_kernels <= 4  # and the count and the scalars made of it
    assert rest == pytest.approx([28, 28, 0, 0], abs=0.05)
    assert f"### {accelerator.name}, leaf:512" in results
