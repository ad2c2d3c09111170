"""Build hook: compiles the CPU kernels, for every CPU variant, and the checksum into the wheel.

It uses the machine's C compiler ($CC, cc, gcc or clang). Without one it asks for the package
`ziglang` as a build dependency. Zig also builds for other machines:

    WEBLLM_BUILD_TARGET=aarch64-macos pip wheel .     (a key of TARGETS)

and builds the WebAssembly modules: WEBLLM_BUILD_WASM=1 adds them, the target `wasm32` builds only
them, into the pure wheel that browsers load. An editable install compiles into the source tree.

If js/dist is built, the wheel also contains the site of `webllm web` and `webllm bundle`. A release
needs it: WEBLLM_BUILD_SITE=1 builds it anew, with Node and the packages of package-lock.json.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple  # hatch runs this file outside sys.modules: no dataclasses

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIG = "ziglang>=0.14"
SOURCES = Path("src")
KERNELS = Path("webllm/backends/cpu/kernels.c")
CHECKSUM = Path("webllm/artifacts/checksum.c")  # in one variant: it has no use for more
SITE, INSTALLED_SITE = Path("js/dist"), "webllm/site"
# No -ffast-math: it would optimize exact rounding away. No contraction: all variants round alike.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden")


class Variant(NamedTuple):
    """One compilation of the kernels: its name, the flags of gcc and clang, the CPU for zig."""

    name: str
    flags: tuple[str, ...]
    zig_cpu: str


AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
X86_64 = (
    Variant("baseline", (), "x86_64"),
    Variant("avx2", AVX2, "x86_64_v3"),
    Variant("avxvnni", (*AVX2, "-mavxvnni"), "x86_64_v3+avxvnni"),
    Variant("avx512vnni", (*AVX2, *AVX512), "x86_64_v4+avx512vnni"),
)
AARCH64 = (
    Variant("baseline", (), "generic"),
    Variant("dotprod", ("-march=armv8.2-a+dotprod",), "generic+v8_2a+dotprod"),
)
WASM32 = (
    Variant("simd128", (), "generic+simd128+bulk_memory"),
    Variant("relaxed", (), "generic+simd128+bulk_memory+relaxed_simd"),
    Variant("simd128_threads", (), "generic+simd128+bulk_memory+atomics"),
    Variant("relaxed_threads", (), "generic+simd128+bulk_memory+relaxed_simd+atomics"),
)


class Target(NamedTuple):
    """A kind of machine: its variants, and the file suffix and wheel tag."""

    variants: tuple[Variant, ...]
    suffix: str
    tag: str
    triple: str | None = None  # zig's name of the target; None: this machine


TARGETS = {
    "x86_64-linux": Target(
        X86_64, ".so", "manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64-linux-gnu.2.17"
    ),
    "aarch64-linux": Target(
        AARCH64, ".so", "manylinux_2_17_aarch64.manylinux2014_aarch64", "aarch64-linux-gnu.2.17"
    ),
    "x86_64-macos": Target(X86_64, ".dylib", "macosx_11_0_x86_64", "x86_64-macos.11.0"),
    "aarch64-macos": Target(AARCH64, ".dylib", "macosx_11_0_arm64", "aarch64-macos.11.0"),
    "x86_64-windows": Target(X86_64, ".dll", "win_amd64", "x86_64-windows-gnu"),
    "aarch64-windows": Target(AARCH64, ".dll", "win_arm64", "aarch64-windows-gnu"),
    "wasm32": Target(WASM32, ".wasm", "any", "wasm32-freestanding"),
}
WASM_LINK = (
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--export-dynamic",
    "-Wl,--export=__heap_base",
    "-Wl,-z,stack-size=1048576",
)
# Every thread instantiates the module on one shared memory; browser_threads.py gives it a stack.
WASM_THREADS_LINK = (
    "-Wl,--import-memory",
    "-Wl,--shared-memory",
    "-Wl,--max-memory=4294901760",
    "-Wl,--export=__stack_pointer",
)


def this_machine() -> Target:
    machine = platform.machine().lower()
    variants = {"amd64": X86_64, "x86_64": X86_64, "arm64": AARCH64, "aarch64": AARCH64}
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return Target(variants.get(machine, (Variant("baseline", (), "baseline"),)), suffix, tag)


def system_compiler() -> list[str] | None:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    return None


def compile_command(target: Target, variant: Variant, source: Path, out: Path) -> list[str]:
    compiler = None if target.triple else system_compiler()
    if compiler:
        flags = [*FLAGS, *variant.flags]
    else:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
        flags = [*FLAGS, f"-mcpu={variant.zig_cpu}", "-s"]
    if target.triple:
        flags += ["-target", target.triple]
    link = ("-shared", "-fPIC", "-pthread")
    if target.variants is WASM32:
        link = (*WASM_LINK, *WASM_THREADS_LINK) if "atomics" in variant.zig_cpu else WASM_LINK
    return [*compiler, *flags, *link, str(source), "-o", str(out)]


def build(target: Target, sources: Path, folder: Path) -> dict[Path, str]:
    """Compiles all for a target into `folder`; returns {file: its path in the wheel}."""
    suffix = target.suffix
    kernels = {f"webllm_cpu_{variant.name}{suffix}": variant for variant in target.variants}
    checksum = {f"webllm_checksum{suffix}": target.variants[0]}
    built = {}
    for source, outputs in ((KERNELS, kernels), (CHECKSUM, checksum)):
        for name, variant in outputs.items():
            installed = source.parent / "lib" / name
            if compile_variant(target, variant, sources / source, folder / installed):
                built[folder / installed] = installed.as_posix()
    return built


def compile_variant(target: Target, variant: Variant, source: Path, out: Path) -> bool:
    """Returns False if the compiler cannot; raises RuntimeError if that is the first variant."""
    out.parent.mkdir(parents=True, exist_ok=True)
    command = compile_command(target, variant, source, out)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and variant is target.variants[0]:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
    if done.returncode:
        print(f"webllm: left out the {variant.name} kernels: {done.stderr}", file=sys.stderr)
    return not done.returncode


def build_site(root: Path) -> None:
    """Builds js/dist. Raises CalledProcessError, or FileNotFoundError without Node."""
    npm = ["npm", "--prefix", "js"]
    wheels = [sys.executable, "js/wheels.py", str(SITE / "wheels")]
    for command in ([*npm, "ci", "--include=dev"], wheels, [*npm, "run", "build"]):
        executable = shutil.which(command[0])
        if executable is None:
            raise FileNotFoundError(f"WEBLLM_BUILD_SITE needs {command[0]}, of Node.js 20 or newer")
        subprocess.run([executable, *command[1:]], check=True, cwd=root)


def site_files(root: Path) -> dict[str, str]:
    """Returns {file of the built site: path in the wheel}, empty if the site is not built."""
    site = root / SITE
    if not (site / "sw.js").is_file():  # the build writes it last
        return {}
    files = [path for path in site.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path): f"{INSTALLED_SITE}/{path.relative_to(site).as_posix()}" for path in files}


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    def dependencies(self) -> list[str]:
        asked = {"WEBLLM_BUILD_TARGET", "WEBLLM_BUILD_WASM", "WEBLLM_BUILD_SITE"}
        compiler = [ZIG] if asked & os.environ.keys() or system_compiler() is None else []
        return [*compiler, "pip"] if "WEBLLM_BUILD_SITE" in os.environ else compiler

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = self._target()
        sources = Path(self.root) / SOURCES
        editable = version == "editable"
        folder = sources if editable else Path(self.root) / "build" / "kernels" / target.tag
        built = build(target, sources, folder)
        if target.variants is not WASM32:
            if "WEBLLM_BUILD_WASM" in os.environ:
                built |= build(TARGETS["wasm32"], sources, folder)
            build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{target.tag}"
        if not editable:
            files = {str(path): installed for path, installed in built.items()}
            if target.variants is not WASM32:  # the pure wheel is part of the site, not the reverse
                if "WEBLLM_BUILD_SITE" in os.environ:
                    build_site(Path(self.root))
                files |= site_files(Path(self.root))
            build_data["force_include"] = files

    def _target(self) -> Target:
        name = os.environ.get("WEBLLM_BUILD_TARGET")
        if name is None:
            return this_machine()
        if name not in TARGETS:
            raise ValueError(f"WEBLLM_BUILD_TARGET is {name!r}; it may be one of {list(TARGETS)}")
        return TARGETS[name]
