"""What an AWS call needs to be allowed, and whether policies allow it: by AWS's own list of actions, resources and condition keys.

The list is the Service Authorization Reference, as policy_sentry has it:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

from policy_sentry.querying.actions import get_action_data

# --- AWS's list

# The services whose prefix in policies is not the name that requests are signed for.
PREFIXES = {"monitoring": "cloudwatch", "email": "ses"}

# API operations that need an action of another name, with where AWS says so.
ACTIONS = {
    # https://docs.aws.amazon.com/cost-management/latest/userguide/billing-permissions-ref.html
    "budgets:CreateBudget": "budgets:ModifyBudget", "budgets:UpdateBudget": "budgets:ModifyBudget", "budgets:DeleteBudget": "budgets:ModifyBudget",
    "budgets:DescribeBudget": "budgets:ViewBudget", "budgets:DescribeNotificationsForBudget": "budgets:ViewBudget",
    "budgets:DescribeSubscribersForNotification": "budgets:ViewBudget", "budgets:CreateNotification": "budgets:ModifyBudget",
    "budgets:CreateSubscriber": "budgets:ModifyBudget",
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    "s3:HeadBucket": "s3:ListBucket", "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration", "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
}  # fmt: skip

# What tags in the request of another action need besides.
TAGGING = {
    "ec2": "ec2:CreateTags", "elasticloadbalancing": "elasticloadbalancing:AddTags", "rds": "rds:AddTagsToResource", "ecs": "ecs:TagResource",
    "ecr": "ecr:TagResource", "logs": "logs:TagResource", "sns": "sns:TagResource", "secretsmanager": "secretsmanager:TagResource",
    "cloudwatch": "cloudwatch:TagResource", "application-autoscaling": "application-autoscaling:TagResource", "budgets": "budgets:TagResource",
    "dynamodb": "dynamodb:TagResource", "scheduler": "scheduler:TagResource", "backup": "backup:TagResource", "kms": "kms:TagResource",
    "wafv2": "wafv2:TagResource", "sqs": "sqs:TagQueue",
}  # fmt: skip

# Where the parts of an ARN stand in a request.
PARTS = {
    "AlarmName": ["AlarmName", "AlarmNames.member.1"], "BucketName": ["Bucket"], "BudgetName": ["BudgetName"],
    "ClusterName": ["cluster", "clusterName", "clusters"], "DashboardName": ["DashboardName"],
    "DbInstanceName": ["DBInstanceIdentifier", "SourceDBInstanceIdentifier", "TargetDBInstanceIdentifier"],
    "GroupName": ["GroupName", "Name"], "LoadBalancerName": ["Name"], "LogGroupName": ["logGroupName"], "LogStreamName": ["logStreamName"],
    "ObjectName": ["Key"], "OidcProviderName": ["Url"], "ParameterGroupName": ["DBParameterGroupName"],
    "RepositoryName": ["repositoryName", "repositoryNames"], "RoleNameWithPath": ["RoleName"], "ScheduleName": ["Name"],
    "SecretId": ["SecretId", "Name"], "ServiceName": ["service", "services", "serviceName"], "SnapshotName": ["DBSnapshotIdentifier"],
    "SubnetGroupName": ["DBSubnetGroupName"], "TableName": ["TableName"], "TargetGroupName": ["Name"],
    "TaskDefinitionFamilyName": ["family", "taskDefinition"], "TaskId": ["task", "tasks"], "TopicName": ["Name"],
}  # fmt: skip

# The condition keys whose values are in a request as they are.
CONTEXT = {
    "application-autoscaling:scalable-dimension": "ScalableDimension", "application-autoscaling:service-namespace": "ServiceNamespace",
    "iam:AWSServiceName": "AWSServiceName",
}  # fmt: skip

# The parts that AWS makes up when it creates the resource.
GIVEN_BY_AWS = ["TaskDefinitionRevisionNumber", "LoadBalancerId", "TargetGroupId"]


@cache
def action_data(action: str) -> list[dict[str, Any]]:
    """What AWS lists of an action: one entry per type of resource. Empty when there is no such action."""
    service, _, name = action.partition(":")
    found = get_action_data(service.lower(), name)
    return found[service.lower()] if found else []


def pattern_of(arn_format: str) -> str:
    """The format of an ARN as a policy's pattern: every variable part is a `*`."""
    return re.sub(r"\$\{[^}]*\}", "*", arn_format)


def formats(action: str) -> list[str]:
    """The formats of the ARNs that an action takes, without `*`."""
    return [entry["resource_arn_format"] for entry in action_data(action) if entry["resource_arn_format"] != "*"]


# --- What a call needs


@dataclass
class Need:
    """An action, with what it is about (None: this can't be told from the request) and the values of condition keys."""

    action: str
    resources: list[str] | None = None
    context: dict[str, str] = field(default_factory=dict)


def needs_of(service: str, operation: str, request: dict[str, Any], region: str, account: str) -> list[Need]:
    """Everything that the caller of an operation must be allowed."""
    service = PREFIXES.get(service, service)
    call = f"{service}:{operation}"
    action = ACTIONS.get(call, call)
    if call == "sts:GetCallerIdentity":  # "No permissions are required to perform this operation": API_GetCallerIdentity
        return []
    for value in list(request.values()):  # some services wrap what it is about, as Budget.BudgetName
        request = value | request if isinstance(value, dict) else request
    context = {"aws:RequestedRegion": region}
    if cluster := request.get("cluster"):
        context["ecs:cluster"] = f"arn:aws:ecs:{region}:{account}:cluster/{short(cluster)}"
    for key, name in CONTEXT.items():
        if name in request:
            context[key] = request[name]
    needed = [Need(action, resources_of(action, request, region, account), context)]
    if any(re.match(r"(?i)(resource)?tag(s|list|specification)?(\.|$)", name) for name in request) and "Tag" not in operation and service in TAGGING:
        needed.append(Need(TAGGING[service], resources_of(TAGGING[service], request, region, account), context))
    return needed + [passing(role, to, context) for role, to in passed_roles(service, request)]


def passed_roles(service: str, request: dict[str, Any]) -> list[tuple[str, str]]:
    """The roles that a request hands over, and to whom:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html
    """
    if service == "ecs":
        return [(request[name], "ecs-tasks.amazonaws.com") for name in ("executionRoleArn", "taskRoleArn") if name in request]
    target = request.get("Target")
    return [(target["RoleArn"], "scheduler.amazonaws.com")] if service == "scheduler" and target else []


def passing(role: str, to: str, context: dict[str, str]) -> Need:
    return Need("iam:PassRole", [role], context | {"iam:PassedToService": to})


def short(name: str) -> str:
    """What comes last in an ARN; a name as it is, and an address without `https://`."""
    return name.rpartition("/")[2] if name.startswith("arn:") else name.removeprefix("https://")


def resources_of(action: str, request: dict[str, Any], region: str, account: str) -> list[str] | None:
    """The ARNs that a request is about, in the formats that AWS lists for the action."""
    if not formats(action):
        return ["*"]
    given = [value for value in flat(request) if value.startswith("arn:")]
    found = []
    for arn_format in formats(action):
        if whole := [arn for arn in given if matches(pattern_of(arn_format), arn)]:
            found += whole
            continue
        where = {"Partition": "aws", "Region": region, "Account": account, **dict.fromkeys(GIVEN_BY_AWS, "*")}
        names = re.findall(r"\$\{([^}]*)\}", arn_format)
        if not any(values(request, name) for name in names):
            continue
        choices = [values(request, name) or ([where[name]] if name in where else []) for name in names]
        for choice in product(*choices):
            parts = iter(choice)
            found.append(re.sub(r"\$\{[^}]*\}", lambda _, parts=parts: next(parts), arn_format))
    return found or None


def values(request: dict[str, Any], part: str) -> list[str]:
    for name in PARTS.get(part, []):
        if value := request.get(name):
            return [short(one) for one in (value if isinstance(value, list) else [value])]
    return []


def flat(value: Any) -> list[str]:
    """All texts in a request."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in flat(one)]
    if isinstance(value, list):
        return [text for one in value for text in flat(one)]
    return [value] if isinstance(value, str) else []


# --- Whether policies allow it


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """As IAM compares: `*` is any text, `?` any character."""
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(expression, text, re.IGNORECASE if ignore_case else 0) is not None


OPERATORS = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringLike": matches,
    "ArnEquals": matches,
    "ArnLike": matches,
}


def statements(policy: str | dict[str, Any]) -> list[dict[str, Any]]:
    document = json.loads(policy) if isinstance(policy, str) else policy
    return listed(document["Statement"])


def applies(statement: dict[str, Any], need: Need, resource: str | None) -> bool:
    """Whether a statement is about this action, this resource (None: whichever it is) and these values of condition keys."""
    if not any(matches(action, need.action, ignore_case=True) for action in listed(statement["Action"])):
        return False
    if resource is not None and not any(matches(pattern, resource) for pattern in listed(statement["Resource"])):
        return False
    for operator, conditions in statement.get("Condition", {}).items():
        for key, wanted in conditions.items():
            value = need.context.get(key)
            if value is None or not any(OPERATORS[operator](one, value) for one in listed(wanted)):
                return False
    return True


def allowing(policies: list[str | dict[str, Any]], need: Need) -> list[dict[str, Any]]:
    """The statements that allow it, one for each resource; none when it is refused."""
    found = []
    for resource in need.resources or [None]:
        about = [statement for policy in policies for statement in statements(policy) if applies(statement, need, resource)]
        if not about or any(statement["Effect"] == "Deny" for statement in about):
            return []
        found.append(about[0])
    return found


# --- What is wrong with a policy


def faults(policy: str | dict[str, Any]) -> list[str]:
    """Actions, resources and condition keys that don't exist, or don't go together."""
    found = []
    for statement in statements(policy):
        sid = statement.get("Sid", "?")
        for action in listed(statement["Action"]):
            if "*" in action:
                continue
            if not action_data(action):
                found.append(f"{sid}: there is no action {action}")
                continue
            found += [f"{sid}: {action} {fault}" for fault in [*wrong_resources(action, statement), *wrong_keys(action, statement)]]
    return found


def wrong_resources(action: str, statement: dict[str, Any]) -> list[str]:
    resources = listed(statement["Resource"])
    patterns = [pattern_of(arn_format) for arn_format in formats(action)]
    if "*" in resources:
        return []
    if not patterns:
        return ["takes no resource"]
    return [] if any(overlap(resource, pattern) for resource in resources for pattern in patterns) else [f"takes none of {resources}"]


@cache
def overlap(one: str, other: str) -> bool:
    """Whether a text can match both patterns."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return (one[0] == other[0] or "?" in (one[0], other[0])) and overlap(one[1:], other[1:])


GLOBAL_KEYS = {
    # In every request, or in those that a service makes:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    "aws:RequestedRegion", "aws:PrincipalAccount", "aws:SourceAccount", "aws:SourceArn", "aws:SecureTransport",
    # Of an identity provider, by its name: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html
    "token.actions.githubusercontent.com:aud", "token.actions.githubusercontent.com:sub",
}  # fmt: skip


def wrong_keys(action: str, statement: dict[str, Any]) -> list[str]:
    known = {key for entry in action_data(action) for key in entry["condition_keys"]}
    used = [key for conditions in statement.get("Condition", {}).values() for key in conditions]
    return [f"has no condition key {key}" for key in used if key not in GLOBAL_KEYS | known]
