"""Which form of each kernel a device gets; chosen once from its features and limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from webllm.backends.webgpu.device.protocol import AdapterKind, Device


class ActivationFormat(Enum):
    """How values that only matrix products read are stored. [rows, cols], cols % 32 == 0.

    I8   two slices: u32 [rows, cols / 4], four int8 in order; and vec2<f32> [rows, cols / 32],
         (d, d * sum of the group's int8): value = d * int8, one d per group of 32 columns.
    F16  u32 [rows, cols / 2], two f16 in order.
    F32  f32 [rows, cols].
    """

    I8 = "i8"
    F16 = "f16"
    F32 = "f32"


@dataclass(frozen=True, slots=True)
class Target:
    """The forms in use.

    `barriers` False is for software adapters: one thread per row, no workgroup memory.
    `subgroup` is the size kernels may rely on, or 0: then they use workgroup memory alone.
    `f16` allows f16 arithmetic in shaders (f16 storage needs no feature).
    """

    activation: ActivationFormat
    kv_f16: bool
    f16: bool
    subgroup: int
    barriers: bool

    @classmethod
    def for_device(cls, device: Device) -> Target:
        software = device.info.kind is AdapterKind.SOFTWARE
        features = device.features
        fixed = features.subgroups and features.subgroup_min == features.subgroup_max
        return cls(
            activation=ActivationFormat.F32 if software else ActivationFormat.I8,
            kv_f16=not software,
            f16=features.shader_f16,
            subgroup=features.subgroup_max if fixed and not software else 0,
            barriers=not software,
        )

    def safer(self) -> Target | None:
        """The next form to try on a driver that computes wrongly; None if there is none left."""
        if self.subgroup:
            return replace(self, subgroup=0)
        if self.f16:
            return replace(self, f16=False)
        if self.barriers:
            return replace(self, barriers=False, activation=ActivationFormat.F32)
        return None
