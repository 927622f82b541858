"""What a plan in JSON says, so that a test can ask it as one sentence."""

import json
from typing import Any


class Plan:
    """What there will be: values by address, and which of them are known only once it is applied."""

    def __init__(self, document: dict[str, Any]):
        self.changes = [change for change in document["resource_changes"] if change["mode"] == "managed"]
        self.configuration = document["configuration"]["root_module"]["resources"]

    def __getitem__(self, address: str) -> dict[str, Any]:
        """What the resource of this address will be."""
        (found,) = [change["change"]["after"] for change in self.changes if change["address"] == address]
        return found

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every resource of this kind, by address."""
        return {change["address"]: change["change"]["after"] for change in self.changes if change["type"] == kind}

    def policy(self, address: str, attribute: str = "policy") -> list[dict[str, Any]]:
        """The statements of a policy."""
        return json.loads(self[address][attribute])["Statement"]

    def references(self, address: str, argument: str) -> list[str]:
        """What an argument refers to: how resources that have no ids yet are tied to each other."""
        (found,) = [resource for resource in self.configuration if resource["address"] == address]
        return found["expressions"][argument]["references"]


def statement(policy: list[dict[str, Any]], sid: str) -> dict[str, Any]:
    """The statement of this name."""
    (found,) = [statement for statement in policy if statement["Sid"] == sid]
    return found


def listed(value: str | list[str]) -> list[str]:
    """IAM writes a list of one without brackets, or with."""
    return [value] if isinstance(value, str) else value
