"""The variant of each kernel that a device runs, chosen once from its features."""

from __future__ import annotations

from dataclasses import dataclass, replace

from webllm.backends.webgpu.device.protocol import AdapterKind, Device
from webllm.backends.webgpu.kernels.activation import ActivationFormat


@dataclass(frozen=True, slots=True)
class KernelVariant:
    """Which kernels run, and with which formats.

    activation: format of the inputs of matrix products
    kv_f16: the KV cache holds f16, else f32
    subgroup: the subgroup size that kernels may rely on; 0: they use workgroup memory alone
    barriers: False runs the scalar kernels, one thread a row without workgroup memory, which are
        the fastest on software adapters
    """

    activation: ActivationFormat
    kv_f16: bool
    subgroup: int
    barriers: bool

    @classmethod
    def for_device(cls, device: Device) -> KernelVariant:
        """Returns the fastest variant that the device's features allow."""
        if device.info.kind is AdapterKind.SOFTWARE:
            return SCALAR
        features = device.features
        fixed = features.subgroups and features.subgroup_min == features.subgroup_max
        return cls(
            activation=ActivationFormat.I8,
            kv_f16=True,
            subgroup=features.subgroup_max if fixed else 0,
            barriers=True,
        )

    def safer(self) -> KernelVariant | None:
        """Returns the next variant to try on a driver that computes wrong results with this one.

        First without subgroups, then without int8 products, then scalar; None after that.
        """
        if not self.barriers:
            return None
        if self.subgroup:
            return replace(self, subgroup=0)
        if self.activation is ActivationFormat.I8:
            return replace(self, activation=ActivationFormat.F32)
        return SCALAR


SCALAR = KernelVariant(ActivationFormat.F32, kv_f16=False, subgroup=0, barriers=False)
