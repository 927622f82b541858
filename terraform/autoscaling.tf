# How many tasks may run is state of the deployment: registering a range moves the number of tasks into it at once
# (https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html). So Terraform registers a
# range that allows no task, because there is no image yet, and leaves it alone afterwards. deploy.sh allows min_tasks to
# max_tasks when it has begun to roll out an image, and resumes the schedule; the schedule and db.sh allow none when they stop an
# environment, and the same again when they start it.
resource "aws_appautoscaling_target" "tasks" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.main.name}/${aws_ecs_service.main.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = 0
  max_capacity       = 0

  suspended_state {
    scheduled_scaling_suspended = true
  }

  lifecycle { ignore_changes = [min_capacity, max_capacity, suspended_state] }
}

resource "aws_appautoscaling_policy" "cpu" {
  name               = "prop-cpu${local.suffix}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.tasks.service_namespace
  resource_id        = aws_appautoscaling_target.tasks.resource_id
  scalable_dimension = aws_appautoscaling_target.tasks.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_appautoscaling_policy" "requests" {
  name               = "prop-requests${local.suffix}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.tasks.service_namespace
  resource_id        = aws_appautoscaling_target.tasks.resource_id
  scalable_dimension = aws_appautoscaling_target.tasks.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 6000 # per minute and task, which is 100 per second
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ALBRequestCountPerTarget"
      resource_label         = "${aws_lb.main.arn_suffix}/${aws_lb_target_group.tasks.arn_suffix}"
    }
  }
}
