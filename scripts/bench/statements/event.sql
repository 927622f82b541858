-- prop's statement that stores an event.
INSERT INTO events (at, actor, action, entity, entity_id, service, environment, payload, key_id,
    request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
