INSERT INTO derived_places (service, environment)
SELECT DISTINCT service, environment FROM deployments WHERE started_at IS NOT NULL
ON CONFLICT DO NOTHING;
