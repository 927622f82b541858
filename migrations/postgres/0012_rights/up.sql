-- From when the success of a deployment gives rights: the later of when it happened and when it was recorded. NULL in
-- rows that an earlier version wrote: finished_at counts there.
ALTER TABLE deployments ADD COLUMN counts_from timestamptz;
-- Whether its release got an image only after the gate had decided on the deployment. It gives no rights then.
ALTER TABLE deployments ADD COLUMN image_added_later boolean NOT NULL DEFAULT false;
