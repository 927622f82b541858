"""A stand-in for AWS: moto's server, with what the provider and the scripts need and moto lacks.

Run as a program: `python aws_stand_in.py PORT`. It listens on 127.0.0.1 and forgets everything when it ends.
"""

import json
import sys
from typing import Any

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.budgets.responses import BudgetsResponse
from moto.s3.models import FakeBucket
from moto.server import main

autoscaling_tags: dict[str, dict[str, str]] = {}
register_scalable_target = ApplicationAutoScalingResponse.register_scalable_target


def register_and_tag(self: ApplicationAutoScalingResponse) -> str:
    answer = register_scalable_target(self)
    autoscaling_tags.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
    return answer


def list_tags_for_resource(self: ApplicationAutoScalingResponse) -> str:
    return json.dumps({"Tags": autoscaling_tags.get(self._get_param("ResourceARN"), {})})


def tag_resource(self: ApplicationAutoScalingResponse) -> str:
    autoscaling_tags.setdefault(self._get_param("ResourceARN"), {}).update(self._get_param("Tags"))
    return "{}"


def untag_resource(self: ApplicationAutoScalingResponse) -> str:
    for key in self._get_param("TagKeys"):
        autoscaling_tags.get(self._get_param("ResourceARN"), {}).pop(key, None)
    return "{}"


def describe_subscribers_for_notification(self: BudgetsResponse) -> str:
    budget = self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]
    wanted = self._get_param("Notification")
    subscribers: list[Any] = []
    for notification in budget.notifications:
        if all(notification.details.get(name) == value for name, value in wanted.items() if name != "NotificationState"):
            subscribers += notification.subscribers
    return json.dumps({"Subscribers": subscribers})


def get_permission(self: FakeBucket, action: str, resource: str) -> Any:
    """What a bucket's policy says. moto takes no notice of conditions, and would refuse everything where TLS is asked for."""
    policy, self.policy = self.policy, None
    try:
        if policy:
            document = json.loads(policy)
            document["Statement"] = [statement for statement in document["Statement"] if "Condition" not in statement]
            self.policy = json.dumps(document).encode() if document["Statement"] else None
        return unconditional_permission(self, action, resource)
    finally:
        self.policy = policy


unconditional_permission = FakeBucket.get_permission

if __name__ == "__main__":
    ApplicationAutoScalingResponse.register_scalable_target = register_and_tag
    ApplicationAutoScalingResponse.list_tags_for_resource = list_tags_for_resource
    ApplicationAutoScalingResponse.tag_resource = tag_resource
    ApplicationAutoScalingResponse.untag_resource = untag_resource
    BudgetsResponse.describe_subscribers_for_notification = describe_subscribers_for_notification
    FakeBucket.get_permission = get_permission
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
