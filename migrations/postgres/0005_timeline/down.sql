DROP INDEX deployments_not_ended;
