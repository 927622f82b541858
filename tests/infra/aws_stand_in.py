"""A stand-in for AWS: moto's server, with what the provider and the scripts need and moto does not have.

Run as a program: `python aws_stand_in.py PORT`. It listens on 127.0.0.1 and forgets everything when it ends.
"""

import json
import sys
from typing import Any

import moto.applicationautoscaling.urls
import moto.budgets.urls
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.budgets.responses import BudgetsResponse
from moto.rds.models import DBInstance
from moto.s3.models import FakeBucket
from moto.server import main

tags: dict[str, dict[str, str]] = {}


class AutoScaling(ApplicationAutoScalingResponse):
    """Tags of scalable targets."""

    def register_scalable_target(self) -> str:
        answer = super().register_scalable_target()
        tags.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
        return answer

    def list_tags_for_resource(self) -> str:
        return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})

    def tag_resource(self) -> str:
        tags.setdefault(self._get_param("ResourceARN"), {}).update(self._get_param("Tags"))
        return "{}"

    def untag_resource(self) -> str:
        for key in self._get_param("TagKeys"):
            tags.get(self._get_param("ResourceARN"), {}).pop(key, None)
        return "{}"


class Budgets(BudgetsResponse):
    """Tags of budgets, and who is notified."""

    def create_budget(self) -> str:
        answer = super().create_budget()
        arn = f"arn:aws:budgets::{self._get_param('AccountId')}:budget/{self._get_param('Budget')['BudgetName']}"
        tags[arn] = {tag["Key"]: tag["Value"] for tag in self._get_param("ResourceTags") or []}
        return answer

    def list_tags_for_resource(self) -> str:
        kept = tags.get(self._get_param("ResourceARN"), {})
        return json.dumps({"ResourceTags": [{"Key": key, "Value": value} for key, value in kept.items()]})

    def describe_subscribers_for_notification(self) -> str:
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


def initialise_database(self: DBInstance, *arguments: Any, **settings: Any) -> None:
    """As moto does it, and keeps Performance Insights: an update of them would take minutes at every apply."""
    initialise(self, *arguments, **settings)
    self.enable_performance_insights = settings.get("enable_performance_insights", False)
    self.performance_insights_retention_period = settings.get("performance_insights_retention_period")


unconditional_permission = FakeBucket.get_permission
initialise = DBInstance.__init__

if __name__ == "__main__":
    FakeBucket.get_permission = get_permission
    DBInstance.__init__ = initialise_database
    DBInstance.performance_insights_enabled = property(lambda self: self.enable_performance_insights)
    moto.applicationautoscaling.urls.url_paths["{0}/$"] = AutoScaling.dispatch
    moto.budgets.urls.url_paths["{0}/$"] = Budgets.dispatch
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
