"""A config in the making: its settings, and the remarks that become comments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dssm_core.inspection.commented_yaml import Remark


@dataclass
class Draft:
    """Settings as a config file has them, and remarks on them."""

    settings: dict[str, Any]
    remarks: list[Remark] = field(default_factory=list)

    def say(self, path: str, text: str) -> None:
        """Explain the setting at a dotted path."""
        self.remarks.append(Remark(path, text))

    def doubt(self, path: str, text: str) -> None:
        """Ask a person to check the setting at a dotted path."""
        self.remarks.append(Remark(path, text, unsure=True))

    def allow(self, setting: str, table: str) -> None:
        """Let a table, users or items, have gaps: `setting` of the validation."""
        validation = self.settings.setdefault("validation", {})
        validation[setting] = [*validation.get(setting, []), table]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is to be checked, a sentence each."""
        return tuple(f"{each.path}: {each.text}" for each in self.remarks if each.unsure)
