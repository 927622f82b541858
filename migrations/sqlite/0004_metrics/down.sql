DROP INDEX deployments_finished;
