"""A real compiler on another machine: IREE behind a real sshd, described by a declaration, and its runtime as a bench.

The other machine is this one over loopback, so its chip is "this-x86": whoever runs the tests. Its programs are found
through the host's ``path``, its address is in a file of hosts, and the declaration names neither.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_hosts import Hosts
from tests.sshd import Sshd

CHIP = "this-machine"

DECLARATION = """name: far-iree
description: IREE's compiler on a build host
units: [cpu]
precisions: [fp32]
host: builder
prepare:
  - {program: iree-import-onnx, arguments: ["{{ model }}", "-o", "model.mlir"]}
compile:
  program: iree-compile
  arguments:
    - model.mlir
    - -o
    - "{{ payload }}"
    - --iree-hal-target-device=local
    - --iree-hal-local-target-device-backends=llvm-cpu
    - "--iree-llvmcpu-target-cpu={{ cpu }}"
    - "--iree-opt-level={{ level }}"
    - --iree-hal-dump-executable-intermediates-to=listing
options: {cpu: x86-64-v3, level: O2}
values: {level: [O1, O3]}
version: {program: iree-compile, arguments: [--version]}
version_pattern: 'compiler version (\\S+)'
payload: model.vmfb
report: listing/module_model_linked_embedded_elf_x86_64.s
inspect: {fp32: '\\bv(?:fn?m(?:add|sub)\\d+|mul)ps\\b'}
format: iree-vmfb
instruction_set: x86-64-v3
runtime: iree-run-module
install: pip install iree-base-compiler iree-base-runtime on the build host
run:
  program: iree-run-module
  arguments: ["--module={{ payload }}", --device=local-sync, --function=model]
  inputs: "--input=@{{ file }}"
  outputs: "--output=@{{ file }}"
bench:
  chip: this-machine
  identify: {program: uname, arguments: [-m]}
  pattern: MACHINE
  quick: true
measure:
  command:
    program: iree-benchmark-module
    arguments:
      - "--module={{ payload }}"
      - --device=local-sync
      - --function=model
      - "--benchmark_repetitions={{ runs + warm_up }}"
      - --benchmark_min_time=1x
      - --benchmark_time_unit=ms
      - --benchmark_format=json
    inputs: "--input=@{{ file }}"
  samples: '"run_type": "iteration"[^}]*"real_time": ([0-9.e+-]+)'
  co_load: {program: sh, arguments: [-c, "while :; do :; done"]}
"""


@dataclass(frozen=True)
class Far:
    """The folder with declaration and hosts, and the driver that reads them."""

    folder: Path
    driver: External

    def edit(self, old: str, new: str, file: str = "far-iree.yaml") -> None:
        """Change a line of the declaration or of ``hosts.yml``."""
        text = (self.folder / file).read_text()
        assert old in text, old
        (self.folder / file).write_text(text.replace(old, new))

    @property
    def rooms(self) -> list[str]:
        """What lies in the host's folder for fresh folders: nothing, when nothing runs."""
        return sorted(path.name for path in (self.folder / "rooms").iterdir())


def set_up(folder: Path, sshd: Sshd, port: int | None = None) -> Far:
    """Write the declaration and the file of hosts. ``port``: of something between us and sshd."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rooms").mkdir(exist_ok=True)
    (folder / "far-iree.yaml").write_text(DECLARATION.replace("MACHINE", os.uname().machine))
    hosts(folder, sshd, port)
    return Far(folder, External((folder,), Hosts(folder / "hosts.yml")))


def hosts(folder: Path, sshd: Sshd, port: int | None = None) -> Path:
    """The file of hosts alone."""
    path = folder / "hosts.yml"
    path.write_text(
        f"hosts:\n  builder:\n    address: 127.0.0.1\n    port: {port or sshd.port}\n    user: {sshd.user}\n"
        f"    host_key: {sshd.host_key}\n    identity: {sshd.identity}\n    folder: {folder / 'rooms'}\n"
        f"    path: [{Path(sys.executable).parent}]\n"
    )
    return path
