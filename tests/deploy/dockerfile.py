"""A Dockerfile as a list of stages, read as far as our checks need: instructions, their words and their JSON forms."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    name: str
    rest: str

    @property
    def flags(self) -> dict[str, str]:
        """The options that stand before the arguments, as ``--from=build``."""
        return dict(re.findall(r"--([a-z-]+)=(\S+)", self.rest.partition(" CMD ")[0]))

    @property
    def words(self) -> list[str]:
        """The arguments: of the exec form those of its list, else those a shell would see, without options."""
        if self.is_exec:
            return [str(word) for word in json.loads(self.rest[self.rest.index("[") :])]
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]

    @property
    def is_exec(self) -> bool:
        """Whether it is in exec form, without a shell."""
        return re.match(r"^(--\S+ )*(CMD )?\[", self.rest) is not None


@dataclass(frozen=True)
class Stage:
    """What one FROM begins."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of one kind, in order."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """The one that counts where only the last does.

        Raises:
            LookupError: there is none.
        """
        found = self.all(name)
        if not found:
            msg = f"stage {self.name or self.image} has no {name}"
            raise LookupError(msg)
        return found[-1]


def read_stages(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first FROM with their defaults, and the stages, their images' arguments filled in.

    Raises:
        ValueError: an instruction stands before the first FROM and is no ARG.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for name, rest in _read_instructions(path.read_text()):
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            stages.append(Stage(re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], image), alias))
        elif stages:
            stages[-1].instructions.append(Instruction(name, rest))
        elif name == "ARG":
            argument, _, default = rest.partition("=")
            arguments[argument] = default
        else:
            msg = f"{path}: {name} before the first FROM"
            raise ValueError(msg)
    return arguments, stages


def _read_instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines()]
    return [(name, rest) for name, rest in pairs]
