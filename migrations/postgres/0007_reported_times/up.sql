-- When a review was given and a release was made, if that was reported; otherwise the time of recording counts.
ALTER TABLE approvals ADD COLUMN at timestamptz;
ALTER TABLE releases ADD COLUMN at timestamptz;
