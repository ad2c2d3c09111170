"""Products of few rows of x, eight at a time: how threads are laid out over the weight."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.activation import Encoded
from webllm.backends.webgpu.kernels.linear_form import Gated, Job, Residual, Store, grid
from webllm.backends.webgpu.kernels.repack import Matrix, Shard
from webllm.backends.webgpu.kernels.step_buffer import RowCount, StepBuffer
from webllm.backends.webgpu.kernels.target import ActivationFormat, Target
from webllm.backends.webgpu.kernels.template import snippet, source

MOST_FEW_ROWS = 64  # of x: all that decode at once
_ROWS_AT_ONCE = 8
_MAX_LANES = 128
_GROUP = 32  # columns; subgroups of as many threads encode a group without workgroup memory


@dataclass(frozen=True, slots=True)
class Teams:
    """A team of `lanes` threads shares two rows; `loops` times `teams` of them a workgroup."""

    lanes: int
    teams: int
    loops: int

    @property
    def pairs(self) -> int:
        return self.teams * self.loops

    @property
    def threads(self) -> int:
        return self.lanes * self.teams


def lay_out(groups: int, pairs: int | None, subgroup: int, max_threads: int) -> Teams:
    """Teams for rows of `groups` groups and `pairs` pairs a workgroup (None: any number).

    As measured on an H200: about 128 threads to a row, in equal turns; as many teams as there may
    be threads where workgroups are few (16 pairs), else half.
    """
    if subgroup:
        turns = -(-groups // _MAX_LANES)
        lanes = -(-groups // (turns * subgroup)) * subgroup
    else:
        lanes = 1 << (min(groups, 64) - 1).bit_length()
    if pairs is None:
        return Teams(lanes, max(1, min(256, max_threads) // lanes), 1)
    most = max_threads if pairs < 32 else min(512, max_threads)
    teams = 1
    while teams * 2 * lanes <= most and pairs % (teams * 2) == 0:
        teams *= 2
    return Teams(lanes, teams, pairs // teams)


def can_fuse_norm(target: Target, rows: RowCount) -> bool:
    """Whether `linear_residual` and `norm_eps` may be used."""
    integers = target.activation is ActivationFormat.I8
    return integers and target.subgroup > 0 and target.barriers and is_few(rows)


def is_few(rows: RowCount) -> bool:
    """Whether `few` takes them: nothing may be left over."""
    at_once = min(rows.maximum, _ROWS_AT_ONCE)
    return rows.maximum <= MOST_FEW_ROWS and rows.maximum % at_once == 0


def few(device: Device, target: Target, job: Job, norm_eps: float | None = None) -> list[Dispatch]:
    return [_few(device, target, job, norm_eps, shard) for shard in job.weight.shards]


def linear_residual(
    device: Device,
    target: Target,
    *,
    step: StepBuffer,
    rows: RowCount,
    x: Encoded,
    weight: Matrix,
    residual: Slice,
    gamma: Slice,
    out: Encoded,
) -> list[Dispatch]:
    """residual += x W^T; out = encoded residual * gamma, for consumers with `norm_eps`.

    Those divide by the root mean square, whose sums lie behind out's scales: that slice is
    f32 [2, rows, weight.rows / 32, 2]. Only where `can_fuse_norm`; weight.rows % 32 == 0.
    """
    assert weight.rows % 32 == 0, weight.rows
    return few(device, target, Job(step, rows, x, weight, Residual(residual, gamma, out)))


def _few(
    device: Device, target: Target, job: Job, norm_eps: float | None, shard: Shard
) -> Dispatch:
    pairs = {Store: None, Gated: 32, Residual: 16}[type(job.ending)]
    limit = device.limits.max_workgroup_threads
    teams = lay_out(job.weight.groups, pairs, target.subgroup, limit)
    constants = job.constants(shard) | {
        "LANES": teams.lanes,
        "TEAMS": teams.teams,
        "LOOPS": teams.loops,
        "MAX_TOKENS": job.rows.maximum,
    }
    if target.subgroup:
        constants["SUBGROUP"] = target.subgroup
    if norm_eps is not None:
        constants["EPS"] = norm_eps
    inputs = job.inputs(shard)
    rows_at_once = min(job.rows.maximum, _ROWS_AT_ONCE)
    code = source(
        "linear_few",
        tokens=str(rows_at_once),
        pairs=str(teams.pairs),
        parts=str(teams.lanes // target.subgroup if target.subgroup else 1),
        threads=str(teams.threads),
        out=str(len(inputs)),
        lanes=snippet(f"linear_lanes_{'subgroup' if target.subgroup else 'workgroup'}"),
        norm=snippet("linear_norm_none" if norm_eps is None else "linear_norm_fused"),
        epilogue=_epilogue(target, job),
        **job.reading(),
    )
    label = f"linear_few {type(job.ending).__name__.lower()}"
    return Dispatch(
        device.pipeline(code, constants, label, proven=True),
        (*inputs, *job.outputs()),
        (
            *grid(-(-shard.rows // (2 * teams.pairs)), device.limits.max_workgroups),
            job.rows.maximum // rows_at_once,
        ),
        label,
    )


def _epilogue(target: Target, job: Job) -> str:
    match job.ending:
        case Store():
            return job.ending.snippets() + snippet("linear_finish_store")
        case Gated():
            return source(
                "linear_finish_gated",
                activation=snippet(f"gated_{job.ending.activation}"),
                store=job.ending.out.store,
            )
        case Residual():
            if target.subgroup == _GROUP:
                return snippet("linear_finish_residual_subgroup")
            return source("linear_finish_residual", store=job.ending.out.store)
