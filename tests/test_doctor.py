"""`mlc doctor`: what it finds is what there is, and nothing that is missing makes it fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlc
from mlc.backends import calibrate_models, doctor_view
from mlc.backends.accelerated import accelerations, exact_products
from mlc.backends.costs import assumed_costs, cache_path, write
from mlc.backends.doctor import examine
from mlc.backends.environment import Package, disks, extras, memory
from mlc.backends.report import terminal
from mlc.backends.targets import ORT_CPU, parse_target
from mlc.cli import run
from mlc.ir.errors import MlcError

GOLDEN = Path(__file__).parent / "golden" / "reports" / "doctor.txt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mlc"


def problems(found: dict[str, Any]) -> dict[str, str]:
    return {p["what"]: p["fix"] for p in found["problems"]}


def install(folder: Path, requires: list[str], extra: list[str]) -> None:
    info = folder / "sample-1.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: sample", "Version: 1.0"]
    lines += [f"Provides-Extra: {name}" for name in extra] + [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_packages_are_those_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy>=1.0",
        "onnx>=999",
        'tomli; python_version < "3.0"',
        'nobody-has-this>=2; extra == "far"',
        'numpy>=1.0; extra == "near"',
        'onnx; extra == "near"',
    ]
    install(tmp_path, wanted, ["near", "far"])
    monkeypatch.syspath_prepend(str(tmp_path))
    always, near, far = extras("sample")
    assert [(p.name, p.fits) for p in always.packages] == [("numpy", True), ("onnx", False)]
    assert [p.name for p in near.packages] == ["numpy", "onnx"]
    assert near.installed
    assert far.packages == (Package("nobody-has-this", ">=2", None),)
    assert not far.installed
    assert far.install == "pip install 'mlc-compress[far]'"


def test_mlc_itself_is_looked_up() -> None:
    found = examine(version="1")
    assert {p["name"] for p in found["packages"]} >= {"numpy", "onnx", "onnxruntime"}
    assert all(p["fits"] and p["version"] == metadata.version(p["name"]) for p in found["packages"])
    assert {e["name"] for e in found["extras"]} >= {"torch", "tvm", "dev"}
    assert found["target"]["isa"] == parse_target("ort(cpu)").known_isa


def test_what_is_not_installed_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlc.backends import doctor

    monkeypatch.setattr(doctor, "extras", lambda: extras("no-such-distribution"))
    found = examine(version="1")
    assert found["packages"] == found["extras"] == []
    assert "pip install -e ." in problems(found).values()


def test_the_command_runs_without_a_runtime() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['torch'] = None\n"
        "from mlc.cli import run; sys.exit(run(['doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runtime"] is None
    assert any("ONNX Runtime cannot be loaded" in what for what in problems(found))


def test_costs_that_were_measured_are_found(cache: Path) -> None:
    assert "mlc calibrate" in problems(examine(version="1")).values()
    write(assumed_costs("vnni"), cache_path(1))
    (cache / "costs-other.json").write_text(cache_path(1).read_text())
    found = examine(version="1")
    assert found["target"]["costs"] == "measured"
    assert [t["here"] for t in found["calibrations"]].count(True) == 1
    assert len(found["calibrations"]) == 2
    assert "mlc calibrate" not in problems(found).values()
    assert "mlc calibrate" not in " ".join(
        problems(examine("ort(cpu, costs=assumed)", version="1")).values()
    )  # asked for
    threads = examine("ort(cpu, threads=2)", version="1")
    assert 'mlc calibrate --to "ort(cpu, threads=2)"' in problems(threads).values()


def test_a_broken_table_is_a_problem_and_no_failure(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache_path(1).write_text("{}")
    found = examine(version="1")
    assert found["target"]["costs"] is None
    assert any(fix.startswith(f"remove {cache_path(1)}") for fix in problems(found).values())
    with pytest.raises(MlcError, match="does not exist"):
        examine("ort(cpu, costs=none.json)", version="1")


def test_another_instruction_set_is_told() -> None:
    other = "portable" if parse_target("ort(cpu)").known_isa != "portable" else "avx2"
    assert any(f"assumes {other}" in what for what in problems(examine(f"ort(cpu, isa={other})", version="1")))


def test_saturated_products_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that only claims to have VNNI."""
    from mlc.backends import accelerated

    monkeypatch.setattr(accelerated, "exact_products", lambda threads: False)
    for isa, told in (("vnni", True), ("avx2", False)):
        found = problems(examine(f"ort(cpu, isa={isa})", version="1"))
        assert any("saturate here" in what for what in found) == told


def test_little_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlc.backends import doctor

    monkeypatch.setattr(doctor, "memory", lambda: {"total": 4 << 30, "available": 1 << 20})
    monkeypatch.setattr(doctor, "disks", lambda: {"here": {"path": "/full", "free": 1}})
    told = " ".join(problems(examine(version="1")))
    assert "less than 1 GiB of memory" in told
    assert "(/full)" in told


def test_memory_and_disks_are_real() -> None:
    found = memory()
    assert found["total"] > 1 << 28
    assert found["available"] is None or 0 < found["available"] <= found["total"]
    assert all(Path(disk["path"]).is_absolute() and disk["free"] > 0 for disk in disks().values())


def test_each_form_is_measured_and_its_kernel_is_one_of_the_table() -> None:
    kernels = " ".join(row.kernel for row in ORT_CPU)
    measured = accelerations()
    assert len(measured) == 6
    for form in measured:
        assert form.kernel in kernels, form
        assert form.us > 0
        assert form.speedup == pytest.approx(form.float_us / form.us)
        assert (form.verdict == "faster") == (form.speedup > 1.1)


def test_bits_of_weights_suit_what_products_do_here() -> None:
    """8 bits are only used where the largest products are exact."""
    assert exact_products() or parse_target("ort(cpu)").weight_bits == 7


def test_the_loud_product_is_what_integers_give() -> None:
    _, expected = calibrate_models.loud_product(64, 8)
    codes, weights = np.full((1, 64), 255 - 128, np.int64), np.full((64, 8), 127, np.int64)
    np.testing.assert_allclose((codes @ weights) * 0.02 * 1e-3, expected)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"mlc        {mlc.__version__}" in shown
    assert "QLinearConv" in shown
    assert run(["doctor", "--to", "tensorrt"]) == 2


def test_golden(update_golden: bool) -> None:
    """Brackets in the lines of pip are no markup."""
    console = terminal()
    console.file, console.width = io.StringIO(), 150
    doctor_view.show(FOUND, console)
    text = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"
    if update_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == text


def test_what_is_shown_is_what_is_found() -> None:
    """The findings of the golden text have the shape of real ones."""
    assert _shape(FOUND) == _shape(examine(version="1"))


def _shape(part: Any) -> Any:
    return {key: _shape(value) for key, value in part.items()} if isinstance(part, dict) else None


def _package(name: str, version: str | None) -> dict[str, Any]:
    return {"name": name, "wanted": ">=1", "version": version, "fits": version is not None}


FOUND: dict[str, Any] = {
    "format": 1,
    "mlc": {"version": "0.1.0", "path": "/opt/mlc"},
    "python": {"version": "3.11.7", "executable": "/opt/bin/python"},
    "system": "Linux 6.0 x86_64",
    "packages": [_package("numpy", "2.4.6"), _package("onnx", None)],
    "extras": [
        {"name": "torch", "installed": True, "install": "", "packages": [_package("torch", "2.13.0")]},
        {"name": "tvm", "installed": False, "install": "pip install 'mlc-compress[tvm]'",
         "packages": [_package("apache-tvm", None)]},
    ],
    "machine": {
        "cpu": "Some CPU family 26 model 2",
        "isa": ["avx2"],
        "cores": 4,
        "usable_cores": 2,
        "memory": {"total": 8 << 30, "available": None},
        "disks": {name: {"path": f"/{name}", "free": 3 << 30} for name in ("here", "temporary files", "cache")},
    },
    "target": {
        "text": "ort(cpu, isa=vnni)", "isa": "vnni", "detected_isa": "avx2", "weight_bits": 8, "threads": 1,
        "costs": "assumed",
    },
    "calibrations": [{"path": "/cache/costs-1.json", "here": False, "digest": "0", "environment": {}}],
    "runtime": {"version": "1.31.1", "providers": ["CPUExecutionProvider"]},
    "acceleration": [
        {"what": "8-bit convolution", "kernel": "QLinearConv", "sizes": "2 of 3x3, 64 channels, 14x14",
         "float_us": 120.4, "us": 41.5, "speedup": 2.9, "verdict": "faster"},
    ],
    "exact_products": False,
    "refused": None,
    "problems": [{"what": "onnx is missing, >=1 is needed", "fix": "pip install mlc-compress"}],
}  # fmt: skip
