"""A stand-in for AWS: moto's server, with what the provider and the scripts need and moto does not have.

Run as a program: `python aws_stand_in.py PORT`. It listens on 127.0.0.1 and forgets everything when it ends.
"""

import json
import sys
from typing import Any
from uuid import uuid4

import moto.applicationautoscaling.urls
import moto.budgets.urls
from moto.applicationautoscaling.models import FakeScalableTarget
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.budgets.responses import BudgetsResponse
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Service
from moto.rds.models import DBInstance
from moto.s3.models import FakeBucket
from moto.server import main

import access

tags: dict[str, dict[str, str]] = {}


class AutoScaling(ApplicationAutoScalingResponse):
    """Tags of scalable targets, and what registering one does to a service."""

    def register_scalable_target(self) -> str:
        answer = super().register_scalable_target()
        arn = json.loads(answer)["ScalableTargetARN"]
        tags.setdefault(arn, {}).update(self._get_param("Tags") or {})
        backend = self.applicationautoscaling_backend
        (target,) = [one for one in backend.describe_scalable_targets("ecs", None, None) if one.arn == arn]
        target.suspended_state = ACTIVITIES | (target.suspended_state or {})
        move_into_range(target, backend.ecs_backend)
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


# "Setting it to false (default) resumes the specified scaling activities":
# https://docs.aws.amazon.com/autoscaling/application/APIReference/API_SuspendedState.html
ACTIVITIES = {"DynamicScalingInSuspended": False, "DynamicScalingOutSuspended": False, "ScheduledScalingSuspended": False}


def move_into_range(target: FakeScalableTarget, ecs: EC2ContainerServiceBackend) -> None:
    """Unless the resource is not active, registering its target "changes the resource's current capacity to a value that is
    inside of this range", when it is made and whenever the range is changed:
    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html"""
    _, cluster, name = target.resource_id.split("/")
    (service,), _ = ecs.describe_services(cluster, [name])
    count = min(max(service.desired_count, target.min_capacity), target.max_capacity)
    if service.status == "ACTIVE" and count != service.desired_count:
        ecs.update_service({"cluster": cluster, "service": name, "desired_count": count})


def check_port(ecs: EC2ContainerServiceBackend, definition: str, balancers: list[dict[str, Any]]) -> None:
    """The revision must have the port of the load balancer, in a new service and in a changed one:
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LoadBalancer.html"""
    containers = {one["name"]: one for one in ecs.describe_task_definition(definition).container_definitions}
    for balancer in balancers:
        name, port = balancer["containerName"], balancer["containerPort"]
        if port not in [mapping["containerPort"] for mapping in containers[name].get("portMappings", [])]:
            raise InvalidParameterException(f"The container {name} did not have a container port {port} defined.")


def create_service(self: EC2ContainerServiceBackend, *arguments: Any, **settings: Any) -> Service:
    _, _, _, definition, balancers, *_ = arguments
    check_port(self, definition, balancers or [])
    return create_unchecked_service(self, *arguments, **settings)


def update_service(self: EC2ContainerServiceBackend, properties: dict[str, Any]) -> Service:
    service = self._get_service(properties.get("cluster", "default"), properties["service"].split("/")[-1])
    balancers = properties.get("load_balancers") or service.load_balancers
    check_port(self, properties.get("task_definition") or service.task_definition, balancers)
    return update_unchecked_service(self, properties)


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
    # Every instance has one of its own: https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DBInstance.html
    self.dbi_resource_id = f"db-{uuid4().hex[:26].upper()}"
    # moto takes what was restored from another instance for its read replica.
    self.source_db_instance_identifier = None


unconditional_permission = FakeBucket.get_permission
initialise = DBInstance.__init__
create_unchecked_service = EC2ContainerServiceBackend.create_service
update_unchecked_service = EC2ContainerServiceBackend.update_service

if __name__ == "__main__":
    access.install()
    FakeBucket.get_permission = get_permission
    DBInstance.__init__ = initialise_database
    DBInstance.performance_insights_enabled = property(lambda self: self.enable_performance_insights)
    EC2ContainerServiceBackend.create_service = create_service
    EC2ContainerServiceBackend.update_service = update_service
    moto.applicationautoscaling.urls.url_paths["{0}/$"] = AutoScaling.dispatch
    moto.budgets.urls.url_paths["{0}/$"] = Budgets.dispatch
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
