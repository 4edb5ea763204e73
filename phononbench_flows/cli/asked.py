"""What `run` and `submit` are asked for, checked before anything heavy is imported, read or connected to."""

from __future__ import annotations

from dataclasses import dataclass

from phononbench_flows.cli.common import checked_set_name, chosen_protocol, read_conditions, sentences
from phononbench_flows.potentials import check_asked, parse_settings
from phononbench_flows.potentials.source import Setting
from phononbench_flows.protocol import Protocol


@dataclass(frozen=True)
class Asked:
    """How a set is to be judged."""

    protocol: Protocol
    conditions: dict[str, str | float | bool]
    settings: dict[str, Setting]
    reasons: list[str]
    about: list[str]


def asked_for(
    set_name: str,
    *,
    condition: list[str] | None,
    about: list[str] | None,
    potential: str,
    setting: list[str] | None,
    protocol: str,
    retry: list[str] | None,
    device: str,
) -> Asked:
    """The options, read; stops at one that cannot be."""
    checked_set_name(set_name)
    chosen, conditions = chosen_protocol(protocol), read_conditions(condition)
    with sentences():
        from phononbench_flows.sets.metadata import check_about
        from phononbench_flows.sets.retry import checked_reasons

        reasons, settings = checked_reasons(retry or ()), parse_settings(setting or ())
        check_asked(potential, device, settings)
        check_about(about or ())
    return Asked(chosen, conditions, settings, reasons, about or [])
