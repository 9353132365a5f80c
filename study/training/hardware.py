"""What a stage trains on. Without torch, because those who only read records of stages need it too."""

from __future__ import annotations

from dataclasses import dataclass

from study.config import Resources


@dataclass(frozen=True)
class Hardware:
    """What a stage trains on, and with which training step."""

    accelerator: str = "cpu"
    threads: int = 1
    engine: str = "exact"
    resident: bool = False

    @classmethod
    def of(cls, resources: Resources) -> Hardware:
        """What the resources of a study say."""
        return cls(resources.accelerator, resources.cpus, resources.engine, resources.resident)
